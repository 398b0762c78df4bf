// The only file that knows Python: engine._native.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include "contrast.hpp"
#include "cpu/peak.hpp"
#include "cpu/session.hpp"
#include "cuda/session.hpp"
#include "resize.hpp"

namespace nb = nanobind;
using namespace nb::literals;
namespace cpu = mbunet::cpu;
namespace cuda = mbunet::cuda;

namespace {

template <class T, int Dimensions>
using Array = nb::ndarray<const T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
using Pixels = nb::ndarray<const uint8_t, nb::shape<-1, -1, 3>, nb::c_contig, nb::device::cpu>;
using NewPixels = nb::ndarray<uint8_t, nb::shape<-1, -1, 3>, nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Mask = nb::ndarray<uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<int32_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

int size(const auto& array, size_t axis) { return static_cast<int>(array.shape(axis)); }

mbunet::Convolution convolution(const Array<int8_t, 7>& weights, const Array<uint8_t, 2>& exponents) {
    return {size(weights, 4),
            size(weights, 2),
            size(weights, 0),
            {weights.data(), weights.data() + weights.size()},
            {exponents.data(), exponents.data() + exponents.size()},
            {}};
}

template <class AnySession>
void run(AnySession& session, const std::vector<Pixels>& pixels, const std::vector<int32_t>& thresholds,
         const std::vector<Mask>& masks, const std::vector<Logits>& logits) {
    std::vector<mbunet::Image> images;
    for (size_t i = 0; i < pixels.size(); ++i) {
        if (pixels[i].size() == 0) throw nb::value_error("an image without pixels");
        images.push_back({pixels[i].data(), size(pixels[i], 0), size(pixels[i], 1), thresholds.at(i),
                          masks.at(i).data(), logits.empty() ? nullptr : logits.at(i).data()});
    }
    nb::gil_scoped_release release;
    session.run(images);
}

using HostArray = nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>;

// Host memory as an array that holds it, where there is some.
std::optional<HostArray> array_of(std::shared_ptr<uint8_t> memory, size_t bytes) {
    if (!memory) return std::nullopt;
    using Held = std::shared_ptr<uint8_t>;
    const nb::capsule owner(new Held(memory), [](void* held) noexcept { delete static_cast<Held*>(held); });
    return HostArray(memory.get(), {bytes}, owner);
}

// What every session offers: to build a network, to run it, to poison what it holds.
template <class AnySession>
nb::class_<AnySession> session_class(nb::module_& module, const char* name) {
    return nb::class_<AnySession>(module, name)
        .def(
            "add_tensor",
            [](AnySession& self, int channels, int stride, int planes, bool is_signed, int first, int last) {
                return self.network().add_tensor({channels, stride, planes, is_signed, first, last});
            },
            "channels"_a, "stride"_a, "planes"_a, "is_signed"_a, "first"_a, "last"_a)
        .def(
            "add_stem",
            [](AnySession& self, int output, Array<int16_t, 4> weights, Array<int32_t, 2> theta) {
                self.network().add_stem(output, weights.data(), theta.data());
            },
            "output"_a, "weights"_a.noconvert(), "theta"_a.noconvert())
        .def(
            "add_convolution",
            [](AnySession& self, std::vector<int> inputs, int output, Array<int8_t, 7> weights,
               Array<uint8_t, 2> exponents, Array<int32_t, 2> theta) {
                self.network().add_convolution(std::move(inputs), output, convolution(weights, exponents),
                                               theta.data());
            },
            "inputs"_a, "output"_a, "weights"_a.noconvert(), "exponents"_a.noconvert(), "theta"_a.noconvert())
        .def(
            "add_residual_convolution",
            [](AnySession& self, std::vector<int> inputs, int output, Array<int8_t, 7> weights,
               Array<uint8_t, 2> exponents, Array<int32_t, 2> theta, int residual, int exponent,
               Array<int8_t, 1> factors) {
                mbunet::Convolution conv = convolution(weights, exponents);
                conv.residual = {residual, exponent, {factors.data(), factors.data() + factors.size()}};
                self.network().add_convolution(std::move(inputs), output, std::move(conv), theta.data());
            },
            "inputs"_a, "output"_a, "weights"_a.noconvert(), "exponents"_a.noconvert(), "theta"_a.noconvert(),
            "residual"_a, "exponent"_a, "factors"_a.noconvert())
        .def(
            "add_pool", [](AnySession& self, int input, int output) { self.network().add_pool(input, output); },
            "input"_a, "output"_a)
        .def(
            "add_gate",
            [](AnySession& self, int input, int gate, int output) { self.network().add_gate(input, gate, output); },
            "input"_a, "gate"_a, "output"_a)
        .def(
            "add_head",
            [](AnySession& self, int input, Array<int16_t, 2> weights, Array<int32_t, 1> bias, int doublings) {
                self.network().add_head(input, size(weights, 0), weights.data(), bias.data(), doublings);
            },
            "input"_a, "weights"_a.noconvert(), "bias"_a.noconvert(), "doublings"_a)
        .def("run", &run<AnySession>, "pixels"_a, "thresholds"_a, "masks"_a, "logits"_a)
        .def("poison", &AnySession::poison, "value"_a)
        .def_prop_ro("memory", &AnySession::memory);
}

}  // namespace

NB_MODULE(_native, module) {
    nb::set_leak_warnings(false);  // written when the process ends, they wait for ever where nobody reads stderr
    module.def("available_kernels", [] {
        std::vector<std::string> names;
        for (const cpu::Kernels* kernels : cpu::available_kernels()) names.emplace_back(kernels->name);
        return names;
    });

    module.def(
        "peak",
        [](const std::string& kernel, int threads, size_t bytes) {
            if (threads < 1 || bytes == 0) throw nb::value_error("a peak needs a thread and a byte");
            nb::gil_scoped_release release;
            return cpu::peak(cpu::kernels_named(kernel), threads, bytes);
        },
        "kernel"_a, "threads"_a, "bytes"_a);

    module.def(
        "histogram",
        [](Array<uint8_t, 1> values) {
            nb::gil_scoped_release release;
            return mbunet::histogram(values.data(), values.size());
        },
        "values"_a.noconvert());
    module.def(
        "look_up",
        [](Array<uint8_t, 1> values, nb::ndarray<const uint8_t, nb::shape<256>, nb::c_contig, nb::device::cpu> table,
           Values out) {
            if (out.size() != values.size()) throw nb::value_error("values and out are not of one size");
            nb::gil_scoped_release release;
            mbunet::look_up(values.data(), values.size(), table.data(), out.data());
        },
        "values"_a.noconvert(), "table"_a.noconvert(), "out"_a.noconvert());

    module.def(
        "resize",
        [](Pixels image, NewPixels resized) {
            const mbunet::Size from{size(image, 0), size(image, 1)}, to{size(resized, 0), size(resized, 1)};
            if (image.size() == 0) throw nb::value_error("an image without pixels");
            nb::gil_scoped_release release;
            mbunet::resize(image.data(), from, resized.data(), to);
        },
        "image"_a.noconvert(), "resized"_a.noconvert());

    session_class<cpu::Session>(module, "Session")
        .def(
            "__init__",
            [](cpu::Session* self, const std::string& kernel, int threads) {
                if (threads < 1) throw nb::value_error("a session needs a thread");
                new (self) cpu::Session(cpu::kernels_named(kernel), threads);
            },
            "kernel"_a, "threads"_a)
        .def_prop_ro("kernel", [](const cpu::Session& self) { return std::string(self.kernels().name); })
        .def_prop_ro("threads", &cpu::Session::threads)
        .def_prop_ro("step_seconds", &cpu::Session::step_seconds);

    nb::exception<cuda::Error>(module, "CudaError", PyExc_RuntimeError);
    nb::class_<cuda::Gpu>(module, "Gpu")
        .def_ro("name", &cuda::Gpu::name)
        .def_ro("bus", &cuda::Gpu::bus)
        .def_ro("capability", &cuda::Gpu::capability)
        .def_ro("memory", &cuda::Gpu::memory);
    module.def("gpus", &cuda::gpus);
    session_class<cuda::Session>(module, "CudaSession")
        .def(nb::new_(&cuda::make_session), "gpu"_a)
        .def("load", &cuda::Session::load, nb::call_guard<nb::gil_scoped_release>())
        .def(
            "host_memory", [](cuda::Session& self, size_t bytes) { return array_of(self.host_memory(bytes), bytes); },
            "bytes"_a)
        .def("seconds", &cuda::Session::seconds, "begin"_a, "end"_a, "repeats"_a, "launches"_a = 1,
             nb::call_guard<nb::gil_scoped_release>())
        .def("peak", &cuda::Session::peak, nb::call_guard<nb::gil_scoped_release>())
        .def_prop_ro("kernels", &cuda::Session::kernels);
}
