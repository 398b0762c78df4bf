// From a launch to a kernel, its grid and its arguments; the same for the device and the emulation.
#pragma once

#include "conv.hpp"
#include "doubling.hpp"
#include "gate.hpp"
#include "general_conv.hpp"
#include "head.hpp"
#include "heuristics.hpp"
#include "layer.hpp"
#include "pool.hpp"
#include "resident_conv.hpp"
#include "stem.hpp"
#include "up_conv.hpp"

namespace mbunet::cuda {

// What a thread of a kernel does. One that begins early copies weights before it waits for its inputs by itself.
template <class Kernel, BitOp bit_op>
MBUNET_DEVICE void run_kernel(const typename Kernel::Args& args) {
    if constexpr (!requires { Kernel::kBeginsEarly; }) wait_for_inputs();
    Kernel::template run<bit_op>(args);
}

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

// One thread for each of `count` things of every image.
inline Grid flat_grid(const Launch& launch, int count) { return {divide_up(count, kThreads), 1, launch.images, 0}; }

// What both kinds of convolution are told.
template <class Args>
Args loop_args(const Launch& launch, const KSchedule& schedule) {
    const Layer& layer = *launch.layer;
    Args args{};
    args.weights = launch.packed_weights;
    args.accumulator_start = signed_words(launch, layer.accumulator_start);
    args.chunks = launch.packed_weights + layer.chunks;
    const auto planes = static_cast<size_t>(layer.input_planes);
    for (size_t i = 0; i < layer.input_channels.size() * planes; ++i) {
        const int words = pixel_words(layer.input_channels[i / planes]);
        const int tensor_words = words * layer.input_planes;
        args.sources[i] = {launch.inputs[i / planes] + i % planes * static_cast<size_t>(words),
                           words,
                           tensor_words,
                           launch.height * launch.width * tensor_words,
                           schedule.pitches[i],
                           schedule.offsets[i]};
    }
    args.output = launch.output;
    args.pooled = launch.pooled;
    args.extent = {launch.height, launch.width};
    args.k_steps = layer.k_steps;
    args.output_words = pixel_words(layer.channels);
    args.columns = args.output_words * layer.up * layer.up;
    args.stages = schedule.shared_tile_bytes;
    return args;
}

inline Grid conv_grid(const Launch& launch, const KSchedule& schedule, int words) {
    const Layer& layer = *launch.layer;
    return tile_grid(launch, layer.up * layer.up * pixel_words(layer.channels) / words,
                     static_cast<size_t>(schedule.shared_tile_bytes + stages_bytes(layer.masked, words)));
}

template <bool masked, class Run>
int dispatch_general_conv(const Launch& launch, Run&& run) {
    const Layer& layer = *launch.layer;
    const KSchedule schedule(conv_shape(layer));
    auto args = loop_args<GeneralConvArgs>(launch, schedule);
    args.shifts = signed_words(launch, layer.shifts);
    args.worths = signed_words(launch, layer.worths);
    args.residual = launch.residual;
    args.part_steps = schedule.part_steps;
    args.input_planes = layer.input_planes;
    args.output_planes = layer.planes;
    args.up = layer.up;
    const Grid grid = conv_grid(launch, schedule, most_output_words(true));
    return layer.kernel == 1 ? run.template operator()<GeneralConv<masked, 1>>(grid, args)
                             : run.template operator()<GeneralConv<masked, 3>>(grid, args);
}

// What a convolution of MBU-Net is told.
template <class Args>
Args conv_args(const Launch& launch, const KSchedule& schedule) {
    auto args = loop_args<Args>(launch, schedule);
    args.starts = signed_words(launch, launch.layer->starts);
    args.pooled_image_words = launch.height / 2 * (launch.width / 2) * args.output_words;
    args.output_image_words = launch.height * launch.width * args.columns;
    return args;
}

template <class Run>
int dispatch_warpgroups(const Launch& launch, const KSchedule& schedule, Run&& run) {
    return run.template operator()<WarpgroupConv>(conv_grid(launch, schedule, WarpgroupConvSums::kWords),
                                                  conv_args<ConvArgs>(launch, schedule));
}

template <int kWords, class Run>
int dispatch_up_conv(const Launch& launch, const KSchedule& schedule, const UpBlocks& blocks, Run&& run) {
    auto args = conv_args<UpConvArgs>(launch, schedule);
    args.walk = TileWalk(launch.images, launch.height, launch.width, blocks.count);
    args.block_words = blocks.block_words;
    args.tile_bytes = schedule.shared_tile_bytes;
    args.stages = 2 * schedule.shared_tile_bytes + blocks.block_words * kStartWords * 4;
    const int bytes = up_conv_bytes(args.k_steps, blocks.block_words, schedule.shared_tile_bytes);
    const Grid grid{blocks.count, args.columns / blocks.block_words, 1, static_cast<size_t>(bytes)};
    return run.template operator()<UpConv<kWords>>(grid, args);
}

template <class Run>
int dispatch_up_conv(const Launch& launch, const Device& device, Run&& run) {
    const Layer& layer = *launch.layer;
    const KSchedule schedule(conv_shape(layer));
    const UpBlocks blocks = up_blocks(launch, schedule, layer.up * layer.up * pixel_words(layer.channels), device);
    return blocks.words == 4 ? dispatch_up_conv<4>(launch, schedule, blocks, run)
                             : dispatch_up_conv<2>(launch, schedule, blocks, run);
}

template <bool masked, int kWords, bool upsamples, class Run>
int dispatch_blocks(const Launch& launch, const KSchedule& schedule, const ConvBlocks& blocks, Run&& run) {
    auto args = conv_args<ResidentConvArgs>(launch, schedule);
    if (!blocks.resident)
        return run.template operator()<Conv<masked, kWords, upsamples>>(conv_grid(launch, schedule, kWords), args);
    args.walk = TileWalk(launch.images, launch.height, launch.width, blocks.count);
    args.block_words = blocks.block_words;
    args.tile_bytes = schedule.shared_tile_bytes;
    args.stages = 2 * schedule.shared_tile_bytes;
    const int weights = args.k_steps * blocks.block_words * (masked ? 2 : 1) * kSliceWords * 4;
    const Grid grid{blocks.count, args.columns / blocks.block_words, 1, static_cast<size_t>(args.stages + weights)};
    return run.template operator()<ResidentConv<masked, kWords, upsamples>>(grid, args);
}

template <bool masked, bool upsamples, class Run>
int dispatch_conv(const Launch& launch, const Device& device, Run&& run) {
    const Layer& layer = *launch.layer;
    const KSchedule schedule(conv_shape(layer));
    const int columns = layer.up * layer.up * pixel_words(layer.channels);
    const ConvBlocks blocks = conv_blocks(launch, schedule, columns, device);
    if (layer.by_warpgroups) return dispatch_warpgroups(launch, schedule, run);
    return blocks.words == 2 ? dispatch_blocks<masked, 2, upsamples>(launch, schedule, blocks, run)
                             : dispatch_blocks<masked, 1, upsamples>(launch, schedule, blocks, run);
}

template <bool masked, class Run>
int dispatch_bits(const Launch& launch, const Device& device, Run&& run) {
    if (launch.layer->general) return dispatch_general_conv<masked>(launch, run);
    return dispatch_conv<masked, false>(launch, device, run);
}

template <int kPlanes, int kWords, class Run>
int dispatch_stem(const Launch& launch, const Device& device, Run&& run) {
    const Layer& layer = *launch.layer;
    const int words = pixel_words(layer.channels), groups = words / kWords;
    const int tiles = tiles_of(launch.height, launch.width) * launch.images;
    const int blocks = std::min(tiles, divide_up(device.multiprocessors * kResidentBlocks, groups));
    const Grid grid{blocks, groups, 1, Stem<kPlanes, kWords>::kSharedBytes};
    return run.template operator()<Stem<kPlanes, kWords>>(
        grid,
        StemArgs{launch.packed_weights, signed_words(launch, layer.accumulator_start), launch.batch.params,
                 launch.batch.pixels, launch.output, launch.height, launch.width, words,
                 signed_words(launch, layer.starts), TileWalk(launch.images, launch.height, launch.width, blocks)});
}

template <class Run>
int dispatch_pool(const Launch& launch, Run&& run) {
    const int height = launch.height / 2, width = launch.width / 2, words = pixel_words(launch.layer->channels);
    const Grid grid = flat_grid(launch, height * width * words);
    const PoolArgs args{launch.inputs[0], launch.output, height, width, words};
    return launch.layer->planes > 1 ? run.template operator()<Pool<2>>(grid, args)
                                    : run.template operator()<Pool<1>>(grid, args);
}

template <class Run>
int dispatch_gate(const Launch& launch, Run&& run) {
    const Layer& layer = *launch.layer;
    const int words = pixel_words(layer.channels), gates = layer.input_channels.back();
    return run.template operator()<Gate>(flat_grid(launch, launch.height * launch.width * words),
                                         GateArgs{launch.inputs[0], launch.inputs[1], launch.output, launch.height,
                                                  launch.width, layer.planes, words, pixel_words(gates), gates == 1});
}

template <class Run>
int dispatch_head(const Launch& launch, Run&& run) {
    const Layer& layer = *launch.layer;
    if (launch.doubles)
        return run.template operator()<Doubling>(
            flat_grid(launch, launch.height * launch.width << 2 * layer.doublings),
            DoublingArgs{launch.coarse, launch.batch, launch.height, launch.width, layer.channels, layer.doublings});
    const Grid grid = flat_grid(launch, divide_up(launch.height * launch.width, kHeadPixels));
    const HeadArgs args{signed_words(launch, 0),
                        signed_words(launch, layer.accumulator_start),
                        launch.inputs[0],
                        launch.batch,
                        launch.height,
                        launch.width,
                        layer.input_planes * pixel_words(layer.input_channels[0]),
                        layer.channels,
                        launch.coarse};
    return layer.doublings ? run.template operator()<CoarseHead>(grid, args)
                           : run.template operator()<Head>(grid, args);
}

// Calls run.operator()<Kernel>(grid, args) for the launch's kernel.
template <class Run>
int dispatch(const Launch& launch, const Device& device, Run&& run) {
    switch (launch.layer->op) {
        case Op::kStem:
            if (launch.layer->planes > 1) return dispatch_stem<2, 1>(launch, device, run);
            return pixel_words(launch.layer->channels) % 2 ? dispatch_stem<1, 1>(launch, device, run)
                                                           : dispatch_stem<1, 2>(launch, device, run);
        case Op::kConv:
            if (is_up_conv(*launch.layer)) return dispatch_up_conv(launch, device, run);
            return launch.layer->masked ? dispatch_bits<true>(launch, device, run)
                                        : dispatch_bits<false>(launch, device, run);
        case Op::kPool: return dispatch_pool(launch, run);
        case Op::kGate: return dispatch_gate(launch, run);
        case Op::kHead: break;
    }
    return dispatch_head(launch, run);
}

}  // namespace mbunet::cuda
