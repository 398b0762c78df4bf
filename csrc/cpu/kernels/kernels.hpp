// What one instruction set offers: a table of functions on lane tiles (layout.hpp). Pointers and plain structs only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "../layout.hpp"

namespace mbunet::cpu {

// The inputs that one output channel counts, as offsets into the arena: quads (of four) of weight +1, then of weight
// -1, fewer than four of each, then blocks of 16 of weight +1, then of weight -1. Quads are filled up with an input
// that is 0 everywhere. Of an input of two planes it is that of the more significant one.
struct TapList {
    uint32_t first;  // index of the first among the taps
    uint8_t positive_quads, negative_quads;
    uint16_t positive_blocks, negative_blocks;

    int inputs() const { return 4 * (positive_quads + negative_quads) + 16 * (positive_blocks + negative_blocks); }
};

// One output channel of a bit convolution.
struct CountedChannel {
    TapList list;
    int32_t at_least;  // bit = (ones among the +1 inputs + zeros among the -1 inputs, filling included) >= at_least
    uint32_t output;   // offset of its first position
};

// One output channel of a bit convolution without zero weights: its list holds the inputs of one sign only, S counts
// the ones among them, and A the ones among all inputs.
struct DenseChannel {
    TapList list;
    int32_t constant;  // bit = 2 S + constant > A, or its opposite where negated
    uint32_t output;
    bool negated;
};

// A list whose inputs count 2^exponent each, their more significant planes twice that.
struct Term {
    TapList list;
    int exponent;
};

// One output channel of any bit convolution. Its count is the sum of its terms, whose exponents descend.
struct WeightedChannel {
    uint32_t first_term;  // index among the terms
    uint16_t terms;
    uint8_t levels;    // of its counter
    bool negated;      // what is counted is the sum's negative: all output bits are complemented
    int32_t at_least;  // most significant output bit = count (less that of all inputs, where it is taken away) >=
                       // at_least, filling included
    int32_t to_upper, to_lower;  // two planes: what this threshold exceeds the one above it by, and the one below it
    uint32_t output;             // offset of its first position in the plane of most significant bits
};

// Positions that a bit convolution computes: `count` ranges of `bytes` bytes.
struct StridedRanges {
    size_t input, input_stride;    // where the first starts behind the taps' offsets, from one to the next
    size_t output, output_stride;  // the same behind the channels' offsets
    size_t bytes;
    int count;
};

struct CountArgs {
    uint8_t* group;  // what offsets count from
    const uint32_t* taps;
    const CountedChannel* channels;
};

struct DenseArgs {
    uint8_t* group;
    const uint32_t* taps;
    const DenseChannel* channels;
    TapList all;  // every input, as +1
    int levels;   // bits that hold S + constant / 2 - A / 2 with its sign
};

struct WeightedArgs {
    uint8_t* group;
    const uint32_t* taps;
    const Term* terms;
    const WeightedChannel* channels;
    const Term* all;  // all inputs, to be taken away from every count; none where `all_terms` is 0
    int all_terms;
    int input_planes;           // 1 or 2
    int planes;                 // of the output, 1 or 2
    size_t input_below, below;  // from a plane of most significant bits to that of less significant ones, of inputs
                                // and of the output
};

constexpr int kStemLanes = 32;  // lanes that the first layer computes at a time
constexpr int kHeadLanes = 64;  // the last

// The first layer: 3x3 over RGB pixels in int16 fixed point, two products at a time. For each of the three rows of taps
// the pairs are (R, G) at columns -1, 0 and 1, then B at columns (-1, 0); behind them stand the Bs at column 1, those
// of the first two rows and (that of the last, nothing).
constexpr int kStemPairs = 14;
constexpr int kStemStride = 16;  // pairs from one channel's weights to the next; the last two are zero

struct StemArgs {
    const int32_t* weights;  // [channels][kStemStride], two int16 each, the first in the low half
    const int32_t* theta;    // [channels][levels]
    int channels;
    int levels;  // thresholds of a channel
};

// The last layer: 1x1 with int16 weights on planes of bits.
struct HeadArgs {
    size_t plane;  // bytes from one plane to the next
    int planes;
    int classes;
    const int32_t* weights;  // [classes][planes]: what a one adds
    const int32_t* tables;   // [classes][ceil(planes / 8)][256]: the same summed over the bits of eight planes
    const int32_t* base;     // [classes]: the logit of zeros
};

// Channels whose borders are filled in one group, from the lanes of all groups.
struct HaloArgs {
    uint8_t* first;      // plane of the first channel in group 0
    uint8_t* edges;      // copy of its edges there, or null: the planes themselves are read
    size_t group_bytes;  // from one group to the next
    int group;
    int channels;
};

constexpr size_t kPeakBlock = 32 * kLine;

struct Kernels {
    const char* name;
    // Bits of output channels [channel, channel_end) at `ranges`.
    void (*count)(const CountArgs& args, const StridedRanges& ranges, int channel, int channel_end);
    void (*count_dense)(const DenseArgs& args, const StridedRanges& ranges, int channel, int channel_end);
    void (*count_weighted)(const WeightedArgs& args, const StridedRanges& ranges, int channel, int channel_end);
    // First layer at kStemLanes lanes of one position: taps[i] points at their pixels under tap i, each R | G << 8 |
    // B << 16; four bytes of bits for threshold t of channel c go to bits + (c * levels + t) * kLine.
    void (*stem)(const StemArgs& args, const uint32_t* const* taps, uint8_t* bits);
    // Last layer at the kHeadLanes lanes from `bits` of channel 0: logits[class][lane].
    void (*head)(const HeadArgs& args, const uint8_t* bits, int32_t* logits);
    // Pixels [columns][3] as R | G << 8 | B << 16.
    void (*unpack_rgb)(const uint8_t* row, int columns, uint32_t* pixels);
    // OR of 2x2 positions of two rows, for `columns` output positions of `bytes` bytes.
    void (*pool)(const uint8_t* upper, const uint8_t* lower, uint8_t* out, int columns, size_t bytes);
    // The highest of 2x2 levels of two bits; their less significant bits lie `below` behind the others.
    void (*pool_levels)(const uint8_t* upper, const uint8_t* lower, size_t below, uint8_t* out, size_t out_below,
                        int columns, size_t bytes);
    // Fills the borders of some channels in one group. halo_bytes() of scratch.
    void (*halo)(const Grid& grid, const Plane& plane, const HaloArgs& args, uint8_t* scratch);
    // Counts `bytes` aligned bytes (a multiple of kPeakBlock) `rounds` times, with nothing to wait for; something of
    // the result goes to the kLine bytes at `sink`.
    void (*peak)(const uint8_t* data, size_t bytes, int rounds, uint8_t* sink);
};

// Scratch of Kernels::halo: for each of some positions the lanes of two groups, and a line that may be read.
constexpr size_t kHaloLanes = 3 * kLine;
constexpr int kHaloPositions = 16;
inline size_t halo_bytes(const Grid& grid) {
    return static_cast<size_t>(std::max(grid.side, kHaloPositions)) * kHaloLanes;
}

// Transposes an 8x8 bit matrix: bit j of byte i becomes bit i of byte j.
constexpr uint64_t transpose8x8(uint64_t x) {
    uint64_t t = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAull;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCull;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x00000000F0F0F0F0ull;
    return x ^ t ^ (t << 28);
}

// The kernel tables that this machine can run, best first; portable is always the last.
std::vector<const Kernels*> available_kernels();
// By name; "auto" is the best. Throws std::invalid_argument with the names there are.
const Kernels& kernels_named(const std::string& name);

}  // namespace mbunet::cpu
