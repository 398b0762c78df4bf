// A layer's packed weights in device memory, and the geometry that its kernel and its weights must agree on.
//
// Of a bit convolution: weights [K step][output word][plane][pair of blocks][lane][4], at word `accumulator_start` what
// the sums start at, at word `chunks` the table of chunks. Of the first layer: weights as StemArgs has them, and
// starts. Of the head: weights as HeadArgs has them, and in the starts' place the bases.
#pragma once

#include <array>
#include <vector>

#include "geometry.hpp"
#include "heuristics.hpp"
#include "kernels.hpp"

namespace mbunet::cuda {

// 128 bits of a pixel's inputs, half a K step: which tap and input channels every word holds.
struct KChunk {
    struct Word {
        int tap = -1;     // -1: nothing of the layer
        int channel = 0;  // the first of 32, counted over all inputs
        int end = 0;      // behind the last channel of the input
    };
    std::array<Word, 4> words;
    int offset = 0;  // in the shared tiles, bytes
};

// How a convolution's sum runs along K: its shared tiles, by input, and the chunks in their order.
struct KSchedule {
    std::array<int, 2> pitches{}, offsets{};
    int shared_tile_bytes = 0;
    std::vector<KChunk> chunks;  // an even number

    KSchedule(const std::vector<int>& input_channels, bool upsamples);
};

// Bytes of the stages of weights of a block that computes `words` output words.
constexpr int stages_bytes(bool masked, int words) { return kStages * words * (masked ? 2 : 1) * kSliceWords * 4; }

}  // namespace mbunet::cuda
