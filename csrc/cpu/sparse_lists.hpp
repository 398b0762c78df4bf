// What the counting kernels read instead of weights: lists of the inputs that have one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../network.hpp"
#include "kernels/kernels.hpp"

namespace mbunet::cpu {

// The lists of one bit convolution on one batch shape. Either `channels` or, where no weight is zero, `dense_channels`
// is filled; a transposed convolution has an entry for every (channel, tap).
struct SparseLists {
    std::vector<uint32_t> taps;
    std::vector<CountedChannel> channels;
    std::vector<DenseChannel> dense_channels;
    TapList all{};   // dense only
    int levels = 0;  // dense only
};

// Entries whose lists are sorted among each other, so that like lengths follow each other and branches are foreseen.
constexpr int kSorted = 128;

// Where a bit convolution finds things within a group.
struct Addresses {
    std::vector<uint32_t> inputs;  // position (0, 0) of every input channel
    Plane input;
    uint32_t zero;    // an input that is 0 at every position
    uint32_t output;  // plane of the first output channel
    Plane out;
};

SparseLists list_taps(const Step& step, const Addresses& addresses);

}  // namespace mbunet::cpu
