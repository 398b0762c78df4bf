// The launch choices: what could be otherwise and give the same bits, in more or less time.
#pragma once

#include <cstdint>

#include <algorithm>

#include "geometry.hpp"
#include "k_schedule.hpp"
#include "kernels.hpp"

namespace mbunet::cuda {

// The bit operation of kernels compiled for compute capability `compiled` (10 * major + minor): the one in hardware.
constexpr BitOp bit_op_of(int compiled) { return compiled < 90 ? BitOp::kXor : BitOp::kAnd; }

constexpr int kStages = 4;          // K steps of weights in shared memory
constexpr int kResidentBlocks = 4;  // of a multiprocessor: leaves 128 registers to a thread

// Of products of warpgroups (warpgroup_conv.hpp): how many warpgroups a multiprocessor holds, with 128 or 96 registers
// a thread. The more there are, the better a wait of one is filled by the others, as long as thresholds stay in
// registers. A block of one warpgroup has the fewest to wait for at its barrier, a block of two has half as many
// weights to copy and to keep.
constexpr int most_warpgroups(bool masked, int of_block) { return masked || of_block == 2 ? 4 : 5; }
constexpr int kSharingSteps = 10;  // K steps from which two warpgroups share a block's weights
constexpr int kMostResidentSteps = 64;
constexpr int kStreamedWarpgroupBlocks = 3;  // where weights stream, whose sums take 128 registers alone

// Images that go through the network together.
constexpr int64_t kMostPixels = int64_t{1} << 26;
constexpr int64_t kMostImages = 512;

// Output words that a block of a bit convolution computes at most. A general one's totals take the registers of a
// second.
constexpr int most_output_words(bool general) { return general ? 1 : 2; }

// Of a convolution that is not general: the most where the columns can be so divided and no multiprocessor is left
// without work, else one.
constexpr int kMostOutputWords = most_output_words(false);
constexpr int output_words_of_block(int columns, const Launch& launch, const Device& device) {
    const int blocks = tiles_of(launch.height, launch.width) * (columns / kMostOutputWords) * launch.images;
    return columns % kMostOutputWords == 0 && blocks >= device.multiprocessors ? kMostOutputWords : 1;
}

constexpr int kReserved = 1024;  // bytes of shared memory of a block that are CUDA's

// How a convolution that is not general is cut into blocks.
struct ConvBlocks {
    int words;           // output words that are counted at a time
    bool resident;       // blocks stay, and have all weights of their output words (resident_conv.hpp)
    int block_words;     // output words of a block
    int count;           // blocks, for each `block_words` of the columns; not read if not resident
    int warpgroups = 1;  // of a block
};

// Bytes of weights of one K step and one output word.
constexpr int slice_bytes(const Layer& layer) {
    if (layer.by_warpgroups) return warpgroup_columns(layer.masked) * 16;
    return (layer.masked ? 2 : 1) * kSliceWords * 4;
}

// Blocks stay where their weights and two tiles of pixels leave room for kResidentBlocks, and where there are more
// tiles than blocks: else there is nothing to copy meanwhile, and a pipeline begins sooner. A block has as many output
// words as leave every block something to do, because each of them copies the pixels anew.
inline ConvBlocks conv_blocks(const Launch& launch, const KSchedule& schedule, int columns, const Device& device) {
    const Layer& layer = *launch.layer;
    const int words = output_words_of_block(columns, launch, device);
    const int room = device.shared_bytes / kResidentBlocks - kReserved - 2 * schedule.shared_tile_bytes;
    const int tiles = tiles_of(launch.height, launch.width) * launch.images;
    const int most_blocks = device.multiprocessors * kResidentBlocks;
    ConvBlocks blocks{words, false, words, 0};
    for (int block_words = words; block_words <= columns; block_words += words) {
        const int groups = columns / block_words;
        const bool fits = layer.k_steps * block_words * slice_bytes(layer) <= room;
        if (columns % block_words || !fits || tiles * groups <= most_blocks) continue;
        blocks = {words, true, block_words, std::min(tiles, divide_up(most_blocks, groups))};
    }
    return blocks;
}

// Bytes of shared memory of a block of UpConv: two tiles of pixels, weights, and what sums start at.
constexpr int up_conv_bytes(int k_steps, int block_words, int tile_bytes) {
    constexpr int kStartBytes = 32 * 2 * 4;
    return 2 * tile_bytes + block_words * (k_steps * kSliceWords * 4 + kStartBytes);
}

// How a transposed convolution is cut into blocks.
struct UpBlocks {
    int words;        // output words that are stored at a time
    int block_words;  // output words of a block
    int count;        // blocks, for each `block_words` of the columns
};

constexpr int kLeastUpWords = 4;  // of a block: two warps make two each

// As many words at a time, and then of a block, as leave every multiprocessor, and then every block, something to do.
inline UpBlocks up_blocks(const Launch& launch, const KSchedule& schedule, int columns, const Device& device) {
    const int tiles = tiles_of(launch.height, launch.width) * launch.images;
    const int most_blocks = device.multiprocessors * kResidentBlocks;
    const auto needs = [&](int block_words) {
        return up_conv_bytes(launch.layer->k_steps, block_words, schedule.shared_tile_bytes);
    };
    const bool by_four =
        columns % 8 == 0 && needs(8) <= device.shared_bytes && tiles * (columns / 8) >= device.multiprocessors;
    const int least = by_four ? 8 : kLeastUpWords;
    UpBlocks blocks{least / 2, least, 0};
    for (int words = 2 * least; words <= columns; words += least)
        if (columns % words == 0 && needs(words) <= device.shared_bytes / kResidentBlocks - kReserved &&
            tiles * (columns / words) >= most_blocks)
            blocks.block_words = words;
    blocks.count = std::min(tiles, divide_up(most_blocks, columns / blocks.block_words));
    return blocks;
}

// Words of a pixel of every input; 0 where they differ.
inline int shared_pixel_words(const Layer& layer) {
    const int words = pixel_words(layer.input_channels[0]);
    return pixel_words(layer.input_channels.back()) == words ? words : 0;
}

// Whether a block makes two output words and no more. Inputs of 64 channels are copied anew in less time than a tile
// takes that must ask for how many words it has.
constexpr bool has_one_pair(int input_words, int warpgroups) { return input_words == 2 && warpgroups == 1; }

// The same of products of warpgroups, which count two words at a time. Blocks stay wherever their weights and two tiles
// fit at all: as many of them as fit, and a block has more output words, which need no copy of the pixels anew, where
// that leaves as many blocks, each with something to do. Two warpgroups share the weights of a block where these are
// large, and where there are few tiles, so that copying weights counts.
inline ConvBlocks warpgroup_blocks(const Launch& launch, const KSchedule& schedule, int columns, const Device& device) {
    constexpr int kFew = 4;  // pairs of words and tiles for each multiprocessor
    const Layer& layer = *launch.layer;
    const int tiles = tiles_of(launch.height, launch.width) * launch.images;
    const bool shares = layer.k_steps >= kSharingSteps || tiles * columns / 2 < kFew * device.multiprocessors;
    const int warpgroups = shares ? 2 : 1;
    const auto fitting = [&](int words) {  // blocks of a multiprocessor
        const int bytes = 2 * schedule.shared_tile_bytes + layer.k_steps * words * slice_bytes(layer);
        return std::min(most_warpgroups(layer.masked, warpgroups) / warpgroups,
                        (device.shared_bytes + kReserved) / (bytes + kReserved));
    };
    const int most_blocks = device.multiprocessors * fitting(2);
    ConvBlocks blocks{2, most_blocks > 0 && layer.k_steps <= kMostResidentSteps, 2, 0, warpgroups};
    const int most_words = has_one_pair(shared_pixel_words(layer), warpgroups) ? 2 : columns;
    for (int words = 2; words <= most_words; words += 2)
        if (columns % words == 0 && fitting(words) == fitting(2) && tiles * (columns / words) >= most_blocks)
            blocks.block_words = words;
    blocks.count = std::min(tiles, std::max(1, most_blocks / (columns / blocks.block_words)));
    return blocks;
}

}  // namespace mbunet::cuda
