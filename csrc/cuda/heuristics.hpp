// The launch choices: what could be otherwise and give the same bits, in more or less time.
#pragma once

#include <cstdint>

#include "geometry.hpp"
#include "kernels.hpp"

namespace mbunet::cuda {

// The bit operation of kernels compiled for compute capability `compiled` (10 * major + minor): the one in hardware.
constexpr BitOp bit_op_of(int compiled) { return compiled < 90 ? BitOp::kXor : BitOp::kAnd; }

constexpr int kStages = 4;          // K steps of weights in shared memory
constexpr int kResidentBlocks = 4;  // of a multiprocessor: leaves 128 registers to a thread

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

}  // namespace mbunet::cuda
