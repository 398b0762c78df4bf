// From a launch to a kernel, its grid and its arguments; the same for the device and the emulation.
#pragma once

#include "conv.hpp"
#include "head.hpp"
#include "heuristics.hpp"
#include "layer.hpp"
#include "stem.hpp"

namespace mbunet::cuda {

struct Grid {
    int x, y, z;
    size_t shared_bytes;
};

inline Grid tile_grid(const Launch& launch, int columns, size_t shared_bytes) {
    return {tiles_of(launch.height, launch.width), columns, launch.images, shared_bytes};
}

inline const int32_t* signed_words(const Launch& launch, size_t at) {
    return reinterpret_cast<const int32_t*>(launch.packed_weights + at);
}

inline ConvArgs conv_args(const Launch& launch, const KSchedule& schedule) {
    const Layer& layer = *launch.layer;
    ConvArgs args{};
    args.weights = launch.packed_weights;
    args.accumulator_start = signed_words(launch, layer.accumulator_start);
    args.chunks = launch.packed_weights + layer.chunks;
    for (size_t i = 0; i < layer.input_channels.size(); ++i)
        args.sources[i] = {launch.inputs[i], pixel_words(layer.input_channels[i]), schedule.pitches[i],
                           schedule.offsets[i]};
    args.output = launch.output;
    args.pooled = launch.pooled;
    args.height = launch.height;
    args.width = launch.width;
    args.k_steps = layer.k_steps;
    args.output_words = pixel_words(layer.channels);
    args.columns = args.output_words * (layer.upsamples ? 4 : 1);
    args.stages = schedule.shared_tile_bytes;
    return args;
}

template <bool masked, bool upsamples, class Run>
int dispatch_conv(const Launch& launch, const Device& device, Run&& run) {
    const KSchedule schedule(launch.layer->input_channels, upsamples);
    const ConvArgs args = conv_args(launch, schedule);
    const auto grid = [&](int words) {
        return tile_grid(launch, args.columns / words,
                         static_cast<size_t>(schedule.shared_tile_bytes + stages_bytes(masked, words)));
    };
    if (output_words_of_block(args.columns, launch, device) == 2)
        return run.template operator()<Conv<masked, 2, upsamples>>(grid(2), args);
    return run.template operator()<Conv<masked, 1, upsamples>>(grid(1), args);
}

// Calls run.operator()<Kernel>(grid, args) for the launch's kernel.
template <class Run>
int dispatch(const Launch& launch, const Device& device, Run&& run) {
    const Layer& layer = *launch.layer;
    const int words = pixel_words(layer.channels);
    switch (layer.op) {
        case Op::kStem:
            return run.template operator()<Stem>(
                tile_grid(launch, 1, shared_bytes(layer)),
                StemArgs{launch.packed_weights, signed_words(launch, layer.accumulator_start), launch.batch.params,
                         launch.batch.pixels, launch.output, launch.height, launch.width, words});
        case Op::kConv:
            if (!layer.upsamples)
                return layer.masked ? dispatch_conv<true, false>(launch, device, run)
                                    : dispatch_conv<false, false>(launch, device, run);
            return layer.masked ? dispatch_conv<true, true>(launch, device, run)
                                : dispatch_conv<false, true>(launch, device, run);
        case Op::kPool:
            return run.template operator()<Pool>(
                Grid{divide_up(launch.height / 2 * (launch.width / 2) * words, kThreads), 1, launch.images, 0},
                PoolArgs{launch.inputs[0], launch.output, launch.height / 2, launch.width / 2, words});
        case Op::kGate:
        case Op::kHead: break;
    }
    return run.template operator()<Head>(
        Grid{divide_up(launch.height * launch.width, kThreads), 1, launch.images, 0},
        HeadArgs{signed_words(launch, 0), signed_words(launch, layer.accumulator_start), launch.inputs[0], launch.batch,
                 launch.height, launch.width, pixel_words(layer.input_channels[0]), layer.channels});
}

}  // namespace mbunet::cuda
