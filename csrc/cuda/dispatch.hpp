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
#include "warpgroup_conv.hpp"

namespace mbunet::cuda {

// What a thread of a kernel does. One that begins early copies weights before it waits for its inputs by itself.
template <class Kernel, BitOp bit_op>
MBUNET_DEVICE void run_kernel(const typename Kernel::Args& args) {
    if constexpr (!requires { Kernel::kBeginsEarly; }) wait_for_inputs();
    Kernel::template run<bit_op>(args);
}

template <class Kernel>
constexpr int threads_of() {
    if constexpr (requires { Kernel::kBlockThreads; })
        return Kernel::kBlockThreads;
    else
        return kThreads;
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
                           schedule.offsets[i],
                           schedule.joined};
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
                     static_cast<size_t>(schedule.shared_tile_bytes + stages_bytes(layer, words)));
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

// What a convolution whose blocks stay is told. Blocks: ConvBlocks or UpBlocks.
template <class Args, class Blocks>
Args resident_args(const Launch& launch, const KSchedule& schedule, const Blocks& blocks) {
    auto args = conv_args<Args>(launch, schedule);
    args.walk = TileWalk(launch.images, launch.height, launch.width, blocks.count);
    args.block_words = blocks.block_words;
    args.tile_bytes = schedule.shared_tile_bytes;
    args.stages = 2 * schedule.shared_tile_bytes;
    return args;
}

template <int kWords, class Run>
int dispatch_up_conv(const Launch& launch, const KSchedule& schedule, const UpBlocks& blocks, Run&& run) {
    auto args = resident_args<ResidentConvArgs>(launch, schedule, blocks);
    args.stages += blocks.block_words * kStartWords * 4;  // which are what sums start at
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

inline Grid resident_grid(const Launch& launch, const ResidentConvArgs& args, const ConvBlocks& blocks) {
    const int weights = args.k_steps * blocks.block_words * slice_bytes(*launch.layer);
    return {blocks.count, args.columns / blocks.block_words, 1, static_cast<size_t>(args.stages + weights)};
}

template <bool masked, int kWarpgroups, class Run>
int dispatch_pixels(const Grid& grid, const WarpgroupConvArgs& args, int words, Run&& run) {
    const auto launch = [&]<int kPixelWords, bool joined>() {
        return run.template operator()<WarpgroupConv<masked, kPixelWords, joined, kWarpgroups>>(grid, args);
    };
    if (words == 2 && args.sources[0].joined) return launch.template operator()<2, true>();
    switch (words) {
        case 2: return launch.template operator()<2, false>();
        case 4: return launch.template operator()<4, false>();
        case 8: return launch.template operator()<8, false>();
        case 16:
            if constexpr (kWarpgroups > 1) return launch.template operator()<16, false>();
            [[fallthrough]];
        default: return launch.template operator()<0, false>();
    }
}

template <bool masked, class Run>
int dispatch_warpgroups(const Launch& launch, const KSchedule& schedule, const Device& device, Run&& run) {
    const ConvBlocks blocks = warpgroup_blocks(launch, schedule, pixel_words(launch.layer->channels), device);
    if (!blocks.resident)
        return run.template operator()<StreamedWarpgroupConv<masked>>(conv_grid(launch, schedule, blocks.words),
                                                                      conv_args<ConvArgs>(launch, schedule));
    auto args = resident_args<WarpgroupConvArgs>(launch, schedule, blocks);
    for (size_t i = 0; i < schedule.chunks.size(); i += 2) {
        const int first = schedule.chunks[i].offset, second = schedule.chunks[i + 1].offset;
        args.operands[i / 2] = static_cast<uint32_t>(first / 16 | (second - first) / 16 << 16);
    }
    const Grid grid = resident_grid(launch, args, blocks);
    return blocks.warpgroups == 2 ? dispatch_pixels<masked, 2>(grid, args, shared_pixel_words(*launch.layer), run)
                                  : dispatch_pixels<masked, 1>(grid, args, shared_pixel_words(*launch.layer), run);
}

template <bool masked, int kWords, class Run>
int dispatch_blocks(const Launch& launch, const KSchedule& schedule, const ConvBlocks& blocks, Run&& run) {
    if (!blocks.resident)
        return run.template operator()<Conv<masked, kWords>>(conv_grid(launch, schedule, kWords),
                                                             conv_args<ConvArgs>(launch, schedule));
    const auto args = resident_args<ResidentConvArgs>(launch, schedule, blocks);
    return run.template operator()<ResidentConv<masked, kWords>>(resident_grid(launch, args, blocks), args);
}

template <bool masked, class Run>
int dispatch_conv(const Launch& launch, const Device& device, Run&& run) {
    const Layer& layer = *launch.layer;
    const KSchedule schedule(conv_shape(layer));
    if (layer.by_warpgroups) return dispatch_warpgroups<masked>(launch, schedule, device, run);
    const ConvBlocks blocks = conv_blocks(launch, schedule, pixel_words(layer.channels), device);
    return blocks.words == 2 ? dispatch_blocks<masked, 2>(launch, schedule, blocks, run)
                             : dispatch_blocks<masked, 1>(launch, schedule, blocks, run);
}

template <bool masked, class Run>
int dispatch_bits(const Launch& launch, const Device& device, Run&& run) {
    return launch.layer->general ? dispatch_general_conv<masked>(launch, run)
                                 : dispatch_conv<masked>(launch, device, run);
}

template <int kPlanes, int kWords, class Run>
int dispatch_stem(const Launch& launch, const Device& device, Run&& run) {
    using Kernel = Stem<kPlanes, kWords>;
    const Layer& layer = *launch.layer;
    const int words = pixel_words(layer.channels), groups = words / kWords;
    const int pairs = tiles_of(divide_up(launch.height, 2), launch.width) * launch.images;
    const int blocks = std::min(pairs, divide_up(device.multiprocessors * Kernel::kBlocks, groups));
    const Grid grid{blocks, groups, 1, Kernel::kSharedBytes};
    return run.template operator()<Kernel>(
        grid, StemArgs{launch.packed_weights, signed_words(launch, layer.accumulator_start), launch.batch.params,
                       launch.batch.pixels, launch.output, launch.height, launch.width, words,
                       signed_words(launch, layer.starts),
                       TileWalk(launch.images, divide_up(launch.height, 2), launch.width, blocks)});
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
