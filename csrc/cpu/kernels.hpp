// What one instruction set offers: a table of functions on byte-planes (layout.hpp). Pointers and plain structs only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "../layout.hpp"

namespace mbunet {

// The inputs that one output channel counts, as offsets into the arena: quads (of four) of weight +1, then of weight
// -1, fewer than four of each, then blocks of 16 of weight +1, then of weight -1. Quads are filled up with an input
// that is 0 everywhere.
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
    int32_t output;    // index of its plane
};

// A bit convolution on one batch shape.
struct CountArgs {
    const uint8_t* arena;
    const uint32_t* taps;
    const CountedChannel* channels;
    const uint8_t* valid;  // Geometry::valid
    uint8_t* out;          // position 0 of output plane 0
    size_t out_plane;      // bytes from one output plane to the next
};

// One output channel of a bit convolution without zero weights: its list holds the inputs of one sign only, S counts
// the ones among them, and A the ones among all inputs.
struct DenseChannel {
    TapList list;
    int32_t constant;  // bit = 2 S + constant > A, or its opposite where negated
    int32_t output;
    bool negated;
};

struct DenseArgs {
    const uint8_t* arena;
    const uint32_t* taps;
    const DenseChannel* channels;
    TapList all;  // every input, as +1
    int levels;   // bits that hold S + constant / 2 - A / 2 with its sign
    const uint8_t* valid;
    uint8_t* out;
    size_t out_plane;
};

constexpr int kColumns = 16;  // columns that the first and the last layer compute at a time

// The first layer: 3x3 over RGB pixels in int16 fixed point, two products at a time. For each of the three rows of taps
// the pairs are (R, G) at columns -1, 0 and 1, then B at columns (-1, 0) and at (1, nothing).
constexpr int kPixelPairs = 15;
constexpr int kPixelStride = 16;  // pairs from one channel's weights to the next; the last is zero

struct PixelArgs {
    const int32_t* weights;  // [channels][kPixelStride], two int16 each, the first in the low half
    const int32_t* theta;    // [channels]
    int channels;
};

// Pixels of three image rows as pairs of int16: red_green[i][x] = (R, G) of column x, blue[i][x] = B of (x, x + 1).
struct PixelRows {
    const int32_t* red_green[3];
    const int32_t* blue[3];
};

// The last layer: 1x1 with int16 weights on -1/+1 bits.
struct HeadArgs {
    const uint8_t* planes;  // position 0 of channel 0
    size_t plane;           // bytes from one channel to the next
    int channels;
    int classes;
    const int32_t* weights;  // [classes][channels]: 2 w, what a set bit adds
    const int32_t* tables;   // [classes][ceil(channels / 8)][256]: the same summed over the bits of eight channels
    const int32_t* base;     // [classes]: bias - sum of w
};

struct Kernels {
    const char* name;
    // Bits of output channels [channel, channel_end) at positions [begin, end), both multiples of kLine.
    void (*count)(const CountArgs& args, size_t begin, size_t end, int channel, int channel_end);
    void (*count_dense)(const DenseArgs& args, size_t begin, size_t end, int channel, int channel_end);
    // First layer at kColumns columns of one lane, a byte for eight columns: of channel c the first byte is
    // bits[c * stride], the second kLanes behind it.
    void (*pixels)(const PixelArgs& args, const PixelRows& rows, uint8_t* bits, size_t stride);
    // Last layer at the kColumns positions from `at`: logits[class][lane][column].
    void (*head)(const HeadArgs& args, size_t at, int32_t* logits);
    // Pixels [columns][3] as red_green[x] = (R, G) of column x, blue[x] = B of (x, x + 1), 0 behind the last.
    void (*pairs)(const uint8_t* row, int columns, int32_t* red_green, int32_t* blue);
    // Turns bytes of eight columns, one for each lane, into bytes of eight lanes, one for each of `count` columns.
    void (*columns)(const uint8_t* bits, uint8_t* out, int count);
    // out[x] = OR of the 2x2 input bytes, for `columns` output columns.
    void (*pool)(const uint8_t* upper, const uint8_t* lower, uint8_t* out, int columns);
    // out = a[0], b[0], a[1], b[1], ... for `columns` bytes of each.
    void (*interleave)(const uint8_t* a, const uint8_t* b, uint8_t* out, int columns);
    // Fills the halo rows of one plane, whose row 0 is at `rows`.
    void (*halo)(const Geometry& geometry, uint8_t* rows);
};

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

}  // namespace mbunet
