// From a launch to a kernel, its grid and its arguments; the same for the device and the emulation.
#pragma once

#include "conv.hpp"
#include "head.hpp"
#include "layer.hpp"
#include "stem.hpp"

namespace mbunet::cuda {

struct Grid {
    int x, y, z;
    size_t shared_bytes;
};

inline Grid tile_grid(const Launch& launch, int groups, size_t shared_bytes) {
    return {tiles_of(launch.height, launch.width), groups, launch.images, shared_bytes};
}

inline const int32_t* signed_words(const Launch& launch, size_t at) {
    return reinterpret_cast<const int32_t*>(launch.image + at);
}

inline ConvArgs conv_args(const Launch& launch, const Walk& walk) {
    const Layer& layer = *launch.layer;
    ConvArgs args{};
    args.weights = launch.image;
    args.limits = signed_words(launch, layer.limits);
    args.units = launch.image + layer.units;
    for (size_t i = 0; i < layer.input_channels.size(); ++i)
        args.sources[i] = {launch.inputs[i], pixel_words(layer.input_channels[i]), walk.pitches[i], walk.offsets[i]};
    args.output = launch.output;
    args.pooled = launch.pooled;
    args.height = launch.height;
    args.width = launch.width;
    args.steps = layer.steps;
    args.output_words = pixel_words(layer.channels);
    args.columns = args.output_words * (layer.op == Op::kUpconv ? 4 : 1);
    args.ring = walk.patch_bytes;
    return args;
}

// Two output words to a block, or one where there is but one or where two would leave multiprocessors without work.
template <bool masked, bool upsamples, class Run>
int dispatch_conv(const Launch& launch, const Device& device, Run&& run) {
    const Walk walk(launch.layer->input_channels, upsamples);
    const ConvArgs args = conv_args(launch, walk);
    const auto grid = [&](int words) {
        return tile_grid(launch, args.columns / words,
                         static_cast<size_t>(walk.patch_bytes + ring_bytes(masked, words)));
    };
    const Grid two = grid(2);
    if (args.columns % 2 == 0 && two.x * two.y * two.z >= device.multiprocessors)
        return run.template operator()<Conv<masked, 2, upsamples>>(two, args);
    return run.template operator()<Conv<masked, 1, upsamples>>(grid(1), args);
}

// Calls run.operator()<Kernel>(grid, args) for the launch's kernel.
template <class Run>
int dispatch(const Launch& launch, const Device& device, Run&& run) {
    const Layer& layer = *launch.layer;
    const int words = pixel_words(layer.channels);
    switch (layer.op) {
        case Op::kPixels:
            return run.template operator()<Pixels>(
                tile_grid(launch, 1, shared_bytes(layer)),
                PixelArgs{launch.image, signed_words(launch, layer.limits), launch.batch.frames, launch.batch.pixels,
                          launch.output, launch.height, launch.width, words});
        case Op::kConv:
            return layer.masked ? dispatch_conv<true, false>(launch, device, run)
                                : dispatch_conv<false, false>(launch, device, run);
        case Op::kUpconv:
            return layer.masked ? dispatch_conv<true, true>(launch, device, run)
                                : dispatch_conv<false, true>(launch, device, run);
        case Op::kPool:
            return run.template operator()<Pool>(
                Grid{divide_up(launch.height / 2 * (launch.width / 2) * words, kThreads), 1, launch.images, 0},
                PoolArgs{launch.inputs[0], launch.output, launch.height / 2, launch.width / 2, words});
        case Op::kHead: break;
    }
    return run.template operator()<Head>(
        Grid{divide_up(launch.height * launch.width, kThreads), 1, launch.images, 0},
        HeadArgs{signed_words(launch, 0), signed_words(launch, layer.limits), launch.inputs[0], launch.batch,
                 launch.height, launch.width, pixel_words(layer.input_channels[0]), layer.channels});
}

}  // namespace mbunet::cuda
