// A layer's packed weights in device memory, and the geometry that its kernel and its weights must agree on.
//
// Of a bit convolution: weights [K step][output word][plane][pair of blocks][lane][4], at word `accumulator_start` what
// the sums start at, [output word][threshold][32], at `starts`, if there is one threshold, the same as a product takes
// it (sums.hpp; by warpgroups [output word][32] of pair_start), at `chunks` the table of chunks, and of a general one
// at `shifts` and `worths` what GeneralConvArgs says. Of the first layer: weights as StemArgs has them, and starts. Of
// the head: weights as HeadArgs has them, and in the starts' place the bases.
#pragma once

#include "heuristics.hpp"
#include "k_schedule.hpp"
#include "kernels.hpp"

namespace mbunet::cuda {

constexpr int32_t kNever = INT32_MIN / 2;  // the start of a channel that must not fire

// What the sums of two pixels, of 16 bits each, start at, such that the highest bit of either says that with `start` it
// is not negative. Resident products count less than 2^14, so no start needs to be larger, and no sum exceeds 16 bits.
constexpr uint32_t pair_start(int32_t start) {
    constexpr int32_t kMost = kMostResidentSteps * 256;
    static_assert(kMost <= 1 << 14);
    return static_cast<uint32_t>(std::clamp(start, -kMost, kMost)) * 0x10001u + 0x80008000u;
}

inline ConvShape conv_shape(const Layer& layer) {
    return {layer.input_channels, layer.kernel, layer.input_planes, layer.segments};
}

// Bytes of the stages of weights of a block that computes `words` output words.
constexpr int stages_bytes(const Layer& layer, int words) { return kStages * words * slice_bytes(layer); }

// Appends, for layers of one threshold, the starts of `words` output words once more: as a product takes them.
void append_start_fragments(Layer& layer, int words);

}  // namespace mbunet::cuda
