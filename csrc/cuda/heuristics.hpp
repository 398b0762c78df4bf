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

// From so many K steps on, masked, Hopper's products of warpgroups are worth it: below, weights are resident instead.
constexpr int kWarpgroupSteps = 10;
constexpr int kWarpgroupBlocks = 3;  // of a multiprocessor: its sums take 128 registers alone

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

// How a convolution that is not general is cut into blocks.
struct ConvBlocks {
    int words;        // output words that are counted at a time
    bool resident;    // blocks stay, and have all weights of their output words (resident_conv.hpp)
    int block_words;  // output words of a block
    int count;        // blocks, for each `block_words` of the columns; not read if not resident
};

// Blocks stay where their weights and two tiles of pixels leave room for kResidentBlocks, and where there are more
// tiles than blocks: else there is nothing to copy meanwhile, and a pipeline begins sooner. A block has as many output
// words as leave every block something to do, because each of them copies the pixels anew.
inline ConvBlocks conv_blocks(const Launch& launch, const KSchedule& schedule, int columns, const Device& device) {
    constexpr int kReserved = 1024;  // bytes of a block that are CUDA's
    const Layer& layer = *launch.layer;
    const int words = output_words_of_block(columns, launch, device);
    const int room = device.shared_bytes / kResidentBlocks - kReserved - 2 * schedule.shared_tile_bytes;
    const int tiles = tiles_of(launch.height, launch.width) * launch.images;
    const int most_blocks = device.multiprocessors * kResidentBlocks;
    ConvBlocks blocks{words, false, words, 0};
    for (int block_words = words; block_words <= columns; block_words += words) {
        const int groups = columns / block_words;
        const bool fits = layer.k_steps * block_words * (layer.masked ? 2 : 1) * kSliceWords * 4 <= room;
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
    constexpr int kReserved = 1024;  // bytes of a block that are CUDA's
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

}  // namespace mbunet::cuda
