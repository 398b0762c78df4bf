#include "emulated_launch.hpp"

#include "../../csrc/cuda/dispatch.hpp"

namespace mbunet::cuda {

namespace {

// Memory that the launch reads; the same tensor may be read in several places.
void declare_read(const void* begin, size_t bytes, bool constant = false) {
    const auto address = reinterpret_cast<uintptr_t>(begin);
    for (const emulation::Range& range : emulation::ranges)
        if (range.begin == address && range.end == address + bytes && !range.writable) return;
    emulation::declare(begin, bytes, false, constant);
}

void declare_batch(const Launch& launch, size_t pixels) {
    const Batch& batch = launch.batch;
    const auto classes = static_cast<size_t>(launch.layer->channels);
    declare_read(batch.params, static_cast<size_t>(launch.images) * sizeof(ImageParams));
    if (launch.layer->op == Op::kStem) return declare_read(batch.pixels, pixels * 3);
    pixels <<= 2 * launch.layer->doublings;
    emulation::declare(batch.masks, pixels, true);
    if (batch.logits) emulation::declare(batch.logits, pixels * classes * 4, true);
}

// The head's launch of which the logits are still to be doubled.
bool is_coarse(const Launch& launch) { return launch.layer->doublings && !launch.doubles; }

// Declares the memory that the launch may touch: exactly what its shape says.
void declare_memory(const Launch& launch) {
    const Layer& layer = *launch.layer;
    const auto pixels =
        static_cast<size_t>(launch.images) * static_cast<size_t>(launch.height) * static_cast<size_t>(launch.width);
    const auto bytes = [](size_t count, int channels, int planes) {
        return count * static_cast<size_t>(planes * pixel_words(channels)) * 4;
    };
    const size_t coarse = pixels * static_cast<size_t>(layer.channels) * 4;
    emulation::ranges.clear();
    if (launch.doubles) {
        declare_read(launch.coarse, coarse);
        return declare_batch(launch, pixels);
    }
    declare_read(launch.packed_weights, layer.packed_weights.size() * 4, true);
    for (size_t i = 0; i < layer.input_channels.size(); ++i)
        declare_read(launch.inputs[i],
                     bytes(pixels, layer.input_channels[i], layer.op == Op::kGate && i ? 1 : layer.input_planes));
    if (launch.residual) declare_read(launch.residual, bytes(pixels, layer.channels, layer.input_planes));
    if (is_coarse(launch)) return emulation::declare(launch.coarse, coarse, true);
    if (layer.op == Op::kStem || layer.op == Op::kHead) declare_batch(launch, pixels);
    if (layer.op == Op::kHead) return;
    const size_t written = layer.op == Op::kPool ? pixels / 4 : pixels * static_cast<size_t>(layer.up * layer.up);
    emulation::declare(launch.output, bytes(written, layer.channels, layer.planes), true);
    if (launch.pooled) emulation::declare(launch.pooled, bytes(pixels / 4, layer.channels, layer.planes), true);
}

// Every byte of an output tensor is written once, and of masks and logits those of the images' own pixels.
void check_writes(const Launch& launch) {
    size_t written = 0, once = 0, all = 0;
    for (const emulation::Range& range : emulation::ranges) {
        all += range.writes.size();
        for (uint8_t count : range.writes) {
            written += count;
            once += count == 1;
        }
    }
    if (launch.layer->op == Op::kHead && !is_coarse(launch)) {
        size_t pixels = 0;
        for (int i = 0; i < launch.images; ++i)
            pixels +=
                static_cast<size_t>(launch.batch.params[i].height) * static_cast<size_t>(launch.batch.params[i].width);
        all = pixels * (launch.batch.logits ? 1 + 4 * static_cast<size_t>(launch.layer->channels) : 1);
    }
    if (written != all || once != all) emulation::fail("an output is not written exactly once");
}

}  // namespace

int emulate(const Launch& launch, const Device& device, Stream) {
    declare_memory(launch);
    dispatch(launch, device, [&]<class Kernel>(const Grid& grid, const typename Kernel::Args& args) {
        emulation::run_grid({grid.x, grid.y, grid.z}, threads_of<Kernel>(), grid.shared_bytes, ++emulated_seed, [&] {
            if (device.bit_op == BitOp::kXor)
                run_kernel<Kernel, BitOp::kXor>(args);
            else
                run_kernel<Kernel, BitOp::kAnd>(args);
        });
        return 0;
    });
    check_writes(launch);
    return 0;
}

}  // namespace mbunet::cuda
