// The only file that knows Python: engine._native.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "peak.hpp"
#include "session.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using mbunet::Op;
using mbunet::Session;

namespace {

template <class T, int Dimensions>
using Array = nb::ndarray<const T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
using Pixels = nb::ndarray<const uint8_t, nb::shape<-1, -1, 3>, nb::c_contig, nb::device::cpu>;
using Mask = nb::ndarray<uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<int32_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

int size(const auto& array, size_t axis) { return static_cast<int>(array.shape(axis)); }

void run(Session& session, const std::vector<Pixels>& pixels, const std::vector<int32_t>& thresholds,
         const std::vector<Mask>& masks, const std::vector<Logits>& logits) {
    std::vector<mbunet::Image> images;
    for (size_t i = 0; i < pixels.size(); ++i)
        images.push_back({pixels[i].data(), size(pixels[i], 0), size(pixels[i], 1), thresholds.at(i),
                          masks.at(i).data(), logits.empty() ? nullptr : logits.at(i).data()});
    nb::gil_scoped_release release;
    session.run(images);
}

}  // namespace

NB_MODULE(_native, module) {
    module.def("available_kernels", [] {
        std::vector<std::string> names;
        for (const mbunet::Kernels* kernels : mbunet::available_kernels()) names.emplace_back(kernels->name);
        return names;
    });

    module.def(
        "peak",
        [](const std::string& kernel, int threads, size_t bytes) {
            nb::gil_scoped_release release;
            return mbunet::peak(mbunet::kernels_named(kernel), threads, bytes);
        },
        "kernel"_a, "threads"_a, "bytes"_a);

    nb::class_<Session>(module, "Session")
        .def(
            "__init__",
            [](Session* self, const std::string& kernel, int threads) {
                new (self) Session(mbunet::kernels_named(kernel), threads);
            },
            "kernel"_a, "threads"_a)
        .def(
            "add_slot",
            [](Session& self, int channels, int stride) { return self.network().add_slot(channels, stride); },
            "channels"_a, "stride"_a)
        .def(
            "add_pixels",
            [](Session& self, int output, Array<int16_t, 4> weights, Array<int32_t, 1> theta) {
                self.network().add_pixels(output, size(weights, 0), weights.data(), theta.data());
            },
            "output"_a, "weights"_a.noconvert(), "theta"_a.noconvert())
        .def(
            "add_convolution",
            [](Session& self, bool upsamples, std::vector<int> inputs, std::vector<int> input_channels, int output,
               Array<int8_t, 4> signs, Array<int32_t, 1> theta) {
                self.network().add_convolution(upsamples ? Op::kUpconv : Op::kConv, std::move(inputs),
                                               std::move(input_channels), output, size(signs, 0), signs.data(),
                                               theta.data());
            },
            "upsamples"_a, "inputs"_a, "input_channels"_a, "output"_a, "signs"_a.noconvert(), "theta"_a.noconvert())
        .def(
            "add_pool",
            [](Session& self, int input, int output, int channels) {
                self.network().add_pool(input, output, channels);
            },
            "input"_a, "output"_a, "channels"_a)
        .def(
            "add_head",
            [](Session& self, int input, Array<int16_t, 2> weights, Array<int32_t, 1> bias) {
                self.network().add_head(input, size(weights, 1), size(weights, 0), weights.data(), bias.data());
            },
            "input"_a, "weights"_a.noconvert(), "bias"_a.noconvert())
        .def("run", &run, "pixels"_a, "thresholds"_a, "masks"_a, "logits"_a)
        .def("poison", &Session::poison, "value"_a)
        .def_prop_ro("kernel", [](const Session& self) { return std::string(self.kernels().name); })
        .def_prop_ro("threads", &Session::threads)
        .def_prop_ro("memory", &Session::memory)
        .def_prop_ro("step_seconds", &Session::step_seconds);
}
