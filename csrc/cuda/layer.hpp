// A layer's image in device memory, and the geometry that its kernel and its weights must agree on.
//
// Of a bit convolution: weights [step][output word][plane][pair of blocks][lane][4], the limits at word `limits`, the
// table of units at word `units`. Of the first layer: weights as PixelArgs has them, and limits. Of the head: weights
// as HeadArgs has them, and at `limits` the bases.
#pragma once

#include <array>
#include <vector>

#include "geometry.hpp"
#include "kernels.hpp"

namespace mbunet::cuda {

// 128 bits of a pixel's inputs, or half a step: which tap and input channels every word holds.
struct Unit {
    struct Word {
        int tap = -1;     // -1: nothing of the layer
        int channel = 0;  // the first of 32, counted over all inputs
        int end = 0;      // behind the last channel of the input
    };
    std::array<Word, 4> words;
    int offset = 0;  // in the patches, bytes
};

// How a convolution's patches lie in shared memory, by input, and the units that its sum runs over.
struct Walk {
    std::array<int, 2> pitches{}, offsets{};
    int patch_bytes = 0;
    std::vector<Unit> units;  // an even number

    Walk(const std::vector<int>& input_channels, bool upsamples);
};

// Bytes of the ring of weights of a block that computes `words` output words.
constexpr int ring_bytes(bool masked, int words) { return kStages * words * (masked ? 2 : 1) * kSliceWords * 4; }

}  // namespace mbunet::cuda
