// Replays cases (protocol.hpp) on the CUDA kernels under emulation and writes their logits. The kernel's name is the
// architecture, as in "sm_80". Every case runs twice on poisoned memory: first with pools in the convolutions before
// them and few multiprocessors, whose blocks stay, then with pools by themselves, many multiprocessors and little
// shared memory, so that all variants of a kernel come to run.
//
// `cuda_replay mutate` runs the cases again with each barrier and each wait left out, under several seeds, and prints
// for every one how many seeds gave wrong bits or an error.
#include <algorithm>
#include <cstring>

#include "../../csrc/cuda/heuristics.hpp"
#include "emulated_launch.hpp"
#include "emulation.hpp"
#include "protocol.hpp"

namespace {

using namespace mbunet;

int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// Memory as the device has it: aligned, and full of something.
template <class T>
class Memory {
  public:
    explicit Memory(size_t count) : bytes_(count * sizeof(T) + 16) {
        for (uint8_t& byte : bytes_) byte = static_cast<uint8_t>(fill_());
    }
    T* data() {
        const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
        return reinterpret_cast<T*>((address + 15) / 16 * 16);
    }

  private:
    static inline std::minstd_rand fill_;
    std::vector<uint8_t> bytes_;
};

// A case on the emulated device.
class Run {
  public:
    Run(const Network& network, const protocol::Images& all, const cuda::Device& device) : network_(network) {
        const int multiple = network.multiple();
        images_ = static_cast<int>(all.images.size());
        height_ = round_up(all.images[0].height, multiple);
        width_ = round_up(all.images[0].width, multiple);
        for (const Tensor& tensor : network.tensors())
            tensors_.emplace_back(pixels(tensor.stride) *
                                  static_cast<size_t>(tensor.planes * cuda::pixel_words(tensor.channels)));
        for (const Step& step : network.steps()) {
            layers_.push_back(cuda::prepare(network, step, device));
            const std::vector<uint32_t>& packed = layers_.back().packed_weights;
            weights_.emplace_back(packed.size());
            std::copy(packed.begin(), packed.end(), weights_.back().data());
        }
    }

    // Logits and masks go to `all`.
    void run(protocol::Images& all, bool fused, const cuda::Device& device) {
        Memory<cuda::ImageParams> params(all.images.size());
        Memory<uint8_t> rgb(pixels(1) * 3), masks(pixels(1));
        Memory<int32_t> logits(pixels(1) * static_cast<size_t>(network_.classes()));
        Memory<int32_t> coarse(pixels(1 << network_.steps().back().doublings) *
                               static_cast<size_t>(network_.classes()));
        const size_t padded = pixels(1) / all.images.size();
        for (size_t i = 0; i < all.images.size(); ++i) {
            params.data()[i] = {all.images[i].height, all.images[i].width, all.images[i].threshold, 0};
            std::copy(all.pixels[i].begin(), all.pixels[i].end(), rgb.data() + i * padded * 3);
        }
        const cuda::Batch batch{params.data(), rgb.data(), masks.data(), logits.data()};
        for (size_t i = 0; i < layers_.size(); ++i) {
            const bool fuses = fused && pools(i);
            cuda::Launch launch = make_launch(i, batch);
            launch.coarse = coarse.data();
            if (fuses) launch.pooled = tensor(network_.steps()[i + 1].output);
            cuda::emulate(launch, device, nullptr);
            launch.doubles = layers_[i].doublings;
            if (launch.doubles) cuda::emulate(launch, device, nullptr);
            i += fuses;
        }
        for (size_t i = 0; i < all.images.size(); ++i) {
            const auto classes = static_cast<size_t>(network_.classes());
            std::copy_n(logits.data() + i * padded * classes, all.logits[i].size(), all.logits[i].begin());
            std::copy_n(masks.data() + i * padded, all.masks[i].size(), all.masks[i].begin());
        }
    }

  private:
    size_t pixels(int stride) const {
        return static_cast<size_t>(images_) * static_cast<size_t>(height_ / stride) *
               static_cast<size_t>(width_ / stride);
    }

    uint32_t* tensor(int index) { return tensors_[static_cast<size_t>(index)].data(); }

    // Whether the step behind step `i` pools its output.
    bool pools(size_t i) const {
        const std::vector<Step>& steps = network_.steps();
        return steps[i].op == Op::kConv && steps[i].conv.up == 1 && i + 1 < steps.size() &&
               steps[i + 1].op == Op::kPool && steps[i + 1].inputs[0] == steps[i].output;
    }

    cuda::Launch make_launch(size_t i, const cuda::Batch& batch) {
        const Step& step = network_.steps()[i];
        cuda::Launch launch{};
        launch.layer = &layers_[i];
        launch.packed_weights = weights_[i].data();
        const int stride = step.inputs.empty() ? 1 : network_.tensor(step.inputs[0]).stride;
        launch.images = images_;
        launch.height = height_ / stride;
        launch.width = width_ / stride;
        for (size_t k = 0; k < step.inputs.size(); ++k) launch.inputs[k] = tensor(step.inputs[k]);
        if (step.conv.residual.tensor >= 0) launch.residual = tensor(step.conv.residual.tensor);
        if (step.output >= 0) launch.output = tensor(step.output);
        launch.batch = batch;
        return launch;
    }

    const Network& network_;
    int images_, height_, width_;
    std::vector<Memory<uint32_t>> tensors_, weights_;
    std::vector<cuda::Layer> layers_;
};

void require_decisions(const protocol::Images& all, int classes) {
    if (!protocol::masks_are_decisions(all, classes)) emulation::fail("a mask is not its logits' decision");
}

// The two devices that a case runs on; pools are fused on the first.
struct Devices {
    cuda::Device small, large;
    Devices(cuda::BitOp bit_op, bool has_warpgroups)
        : small{bit_op, 1, static_cast<int>(emulation::shared_limit()), has_warpgroups, true},
          large{bit_op, 1 << 20, 0, has_warpgroups, true} {}
};

void mutate(Run& run, protocol::Images& all, const Devices& devices) {
    constexpr int kSeeds = 8;
    const auto expected = all.logits;
    const std::set<emulation::Site> sites = emulation::state.sites;
    for (const emulation::Site& site : sites) {
        emulation::state.left_out = &site;
        int caught = 0;
        for (int seed = 0; seed < kSeeds; ++seed) {
            cuda::emulated_seed = static_cast<unsigned>(seed) * 1000;
            try {
                run.run(all, true, devices.small);
                bool differs = all.logits != expected;
                run.run(all, false, devices.large);
                differs |= all.logits != expected;
                caught += differs;
            } catch (const std::runtime_error&) {
                ++caught;
            }
        }
        std::printf("%s:%d %d of %d\n", std::strrchr(site.file.c_str(), '/') + 1, site.line, caught, kSeeds);
    }
    emulation::state.left_out = nullptr;
}

}  // namespace

int main(int count, char** arguments) {
    const bool mutates = count > 1 && std::strcmp(arguments[1], "mutate") == 0;
    const protocol::Header header = protocol::read_header();
    emulation::capability = protocol::capability(header);
    const Devices devices(cuda::bit_op_of(emulation::capability), protocol::has_warpgroups(header));
    for (;;) {
        Network network;
        if (!protocol::read_network(network)) return 0;
        protocol::Images all = protocol::read_images(network.classes());
        Run run(network, all, devices.small);
        run.run(all, true, devices.small);
        require_decisions(all, network.classes());
        const auto first = all.logits;
        run.run(all, false, devices.large);
        require_decisions(all, network.classes());
        if (all.logits != first) emulation::fail("two runs differ");
        if (emulation::state.bank_conflicts) emulation::fail("ldmatrix has bank conflicts");
        mutates ? mutate(run, all, devices) : protocol::write_logits(all);
    }
}
