// What the counting kernels read instead of weights: lists of the inputs that have one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/kernels.hpp"
#include "network.hpp"

namespace mbunet {

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

// Lists of `step`, whose input channels have their position 0 at `planes`, with rows `stride` bytes apart; at `zero`
// stands an input that is 0 at every position.
Lists list_taps(const Step& step, const std::vector<uint32_t>& planes, uint32_t zero, size_t stride);

}  // namespace mbunet
