// Steps of a network, and what the counting kernels read instead of weights: lists of the inputs that have one.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels.hpp"

namespace mbunet {

enum class Op { kPixels, kConv, kPool, kUpconv, kHead };

// Where a step's result lives: `channels` planes of the level whose resolution is 1 / `stride` of the image's.
struct Slot {
    int channels;
    int stride;
};

struct Step {
    Op op;
    std::vector<int> inputs;          // slots; none for pixels
    std::vector<int> input_channels;  // channels taken of each input
    int output;                       // slot; -1 for the head
    int channels;                     // output channels, classes of the head
    // kConv, kUpconv: int8 [channels][taps][sum of input_channels]; others as their kernel wants them
    std::vector<int8_t> signs;
    std::vector<int32_t> weights;
    std::vector<int32_t> tables;
    std::vector<int32_t> offsets;  // theta, or base of the head

    int taps() const { return op == Op::kUpconv ? 4 : 9; }
};

// The lists of one bit convolution on one batch shape. Either `sparse` or, where no weight is zero, `dense` is filled;
// output planes of a transposed convolution are (channel, tap).
struct Lists {
    std::vector<uint32_t> taps;
    std::vector<CountedChannel> sparse;
    std::vector<DenseChannel> dense;
    TapList all{};   // dense only
    int levels = 0;  // dense only
};

// Output planes whose lists are sorted among each other, so that like lengths follow each other and branches are
// foreseen.
constexpr int kSorted = 128;

// Lists of `step`, whose input channels have their position 0 at `planes`, with rows `stride` bytes apart.
Lists list_taps(const Step& step, const std::vector<uint32_t>& planes, size_t stride);

}  // namespace mbunet
