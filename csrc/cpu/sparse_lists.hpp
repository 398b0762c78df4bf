// What the counting kernels read instead of weights: lists of the inputs that have one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../network.hpp"
#include "kernels/kernels.hpp"

namespace mbunet::cpu {

// The lists of one bit convolution on one batch shape: an entry for every output channel and each of up x up outputs.
// One of the three kinds of channels is filled.
struct SparseLists {
    std::vector<uint32_t> taps;
    // One bit an input, one list, one threshold; `dense_channels` where moreover no weight is zero.
    std::vector<CountedChannel> channels;
    std::vector<DenseChannel> dense_channels;
    TapList all{};   // dense only
    int levels = 0;  // dense only
    // Everything else.
    std::vector<WeightedChannel> weighted_channels;
    std::vector<Term> terms;
    int all_terms = 0;  // of `terms`, the last ones: every input, where no weight is zero

    int entries() const { return static_cast<int>(channels.size() + dense_channels.size() + weighted_channels.size()); }
    size_t memory() const;  // bytes
};

// Entries whose lists are sorted among each other, so that like lengths follow each other and branches are foreseen.
constexpr int kSorted = 128;

// Where a bit convolution finds things within a group.
struct Addresses {
    std::vector<uint32_t> inputs;    // position (0, 0) of every input channel
    std::vector<uint32_t> residual;  // the same of the residual; empty without one
    int planes;                      // of both
    Plane input;
    uint32_t zero;    // an input that is 0 at every position
    uint32_t output;  // plane of the first output channel
    Plane out;
    int out_planes;
    bool is_signed;  // what the inputs' bits mean
};

// Throws std::length_error for more inputs than a list holds.
SparseLists list_taps(const Step& step, const Addresses& addresses);

}  // namespace mbunet::cpu
