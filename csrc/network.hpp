// A network as the native code runs it: flat steps that read and write slots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

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
    std::vector<int8_t> signs;        // kConv, kUpconv: [channels][taps][sum of input_channels]
    std::vector<int32_t> weights;     // kPixels: [channels][3][3][3]; kHead: see HeadArgs
    std::vector<int32_t> tables;      // what CPU kernels read besides or instead (cpu/kernels.hpp)
    std::vector<int32_t> offsets;     // theta, or base of the head

    int taps() const { return op == Op::kUpconv ? 4 : 9; }
};

class Network {
  public:
    int add_slot(int channels, int stride);
    // weights [channels][3][3][3] (row, column, colour), theta [channels]
    void add_pixels(int output, int channels, const int16_t* weights, const int32_t* theta);
    // signs [channels][taps][sum of input_channels] in {-1, 0, 1}, theta [channels]
    void add_convolution(Op op, std::vector<int> inputs, std::vector<int> input_channels, int output, int channels,
                         const int8_t* signs, const int32_t* theta);
    void add_pool(int input, int output, int channels);
    // weights [classes][channels], bias [classes]
    void add_head(int input, int channels, int classes, const int16_t* weights, const int32_t* bias);

    const std::vector<Step>& steps() const { return steps_; }
    const std::vector<Slot>& slots() const { return slots_; }
    const Slot& slot(int index) const { return slots_.at(static_cast<size_t>(index)); }
    int classes() const { return steps_.empty() ? 0 : steps_.back().channels; }
    // The largest stride: what the sides of an image must be multiples of, and the side of a tile.
    int multiple() const;

  private:
    std::vector<Slot> slots_;
    std::vector<Step> steps_;
};

}  // namespace mbunet
