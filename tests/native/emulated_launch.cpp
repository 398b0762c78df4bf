#include "emulated_launch.hpp"

#include "../../csrc/cuda/dispatch.hpp"

namespace mbunet::cuda {

namespace {

// Declares the memory that the launch may touch: exactly what its shape says.
void declare_memory(const Launch& launch) {
    const Layer& layer = *launch.layer;
    const auto pixels =
        static_cast<size_t>(launch.images) * static_cast<size_t>(launch.height) * static_cast<size_t>(launch.width);
    const auto bits = [&](const uint32_t* tensor, size_t count, int channels, bool writable) {
        emulation::declare(tensor, count * static_cast<size_t>(pixel_words(channels)) * 4, writable);
    };
    emulation::ranges.clear();
    emulation::declare(launch.packed_weights, layer.packed_weights.size() * 4, false);
    for (size_t i = 0; i < layer.input_channels.size(); ++i)
        bits(launch.inputs[i], pixels, layer.input_channels[i], false);
    const Batch& batch = launch.batch;
    if (layer.op == Op::kStem || layer.op == Op::kHead)
        emulation::declare(batch.params, static_cast<size_t>(launch.images) * sizeof(ImageParams), false);
    if (layer.op == Op::kStem) emulation::declare(batch.pixels, pixels * 3, false);
    if (layer.op == Op::kHead) {
        emulation::declare(batch.masks, pixels, true);
        if (batch.logits) emulation::declare(batch.logits, pixels * static_cast<size_t>(layer.channels) * 4, true);
        return;
    }
    const size_t up = layer.upsamples ? pixels * 4 : layer.op == Op::kPool ? pixels / 4 : pixels;
    bits(launch.output, up, layer.channels, true);
    if (launch.pooled) bits(launch.pooled, pixels / 4, layer.channels, true);
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
    if (launch.layer->op == Op::kHead) {
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
        emulation::run_grid({grid.x, grid.y, grid.z}, kThreads, grid.shared_bytes, ++emulated_seed, [&] {
            if (device.bit_op == BitOp::kXor)
                Kernel::template run<BitOp::kXor>(args);
            else
                Kernel::template run<BitOp::kAnd>(args);
        });
        return 0;
    });
    check_writes(launch);
    return 0;
}

}  // namespace mbunet::cuda
