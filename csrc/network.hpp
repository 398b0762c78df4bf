// A network as the native code runs it: flat steps that read and write tensors, every tensor written once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mbunet {

enum class Op { kStem, kConv, kPool, kGate, kHead };

// What a step writes: `channels` levels of `planes` bits each, at 1 / `stride` of the image's resolution. One plane
// with `is_signed` means -1 or +1, else bits are levels from 0 on. It is needed from step `first` to step `last`.
struct Tensor {
    int channels;
    int stride;
    int planes;
    bool is_signed;
    int first, last;

    // Planes of one bit.
    int bit_planes() const { return channels * planes; }
};

// An earlier tensor that a convolution adds to its sums, 2^exponent times and with a sign for every channel.
struct Residual {
    int tensor = -1;  // none
    int exponent = 0;
    std::vector<int8_t> factors;
};

// A convolution of bits. `kernel` x `kernel` taps make each of `up` x `up` outputs of an input position.
struct Convolution {
    int kernel = 0, up = 1, segments = 1;
    std::vector<int8_t> weights;     // [segments][channels][up][up][kernel][kernel][inputs] in {-1, 0, 1}
    std::vector<uint8_t> exponents;  // [segments][channels]: how often a segment's sum is doubled
    Residual residual;
};

struct Step {
    Op op;
    std::vector<int> inputs;          // tensors; none for pixels
    std::vector<int> input_channels;  // of each input
    int output;                       // tensor; -1 for the head
    int channels;                     // output channels, classes of the head
    Convolution conv = {};
    std::vector<int32_t> weights = {};     // kStem: [channels][3][3][3]; kHead: [classes][planes, the most significant
                                           // first][input channels], what a one adds
    std::vector<int32_t> thresholds = {};  // theta [channels][levels above the lowest], ascending; none for others
    std::vector<int32_t> base = {};        // kHead: the logit of zeros
    int doublings = 0;                     // kHead: of the logits' size

    // Thresholds of a channel.
    int levels() const { return static_cast<int>(thresholds.size()) / channels; }
};

class Network {
  public:
    int add_tensor(const Tensor& tensor);
    // weights [channels][3][3][3] (row, column, color), theta [channels][levels]
    void add_stem(int output, const int16_t* weights, const int32_t* theta);
    // theta [channels][levels]
    void add_convolution(std::vector<int> inputs, int output, Convolution conv, const int32_t* theta);
    void add_pool(int input, int output);
    // Where a bit of `gate`, of one or of as many channels as the input has, is 0, all planes of the output are.
    void add_gate(int input, int gate, int output);
    // weights [classes][channels], bias [classes]
    void add_head(int input, int classes, const int16_t* weights, const int32_t* bias, int doublings);

    const std::vector<Step>& steps() const { return steps_; }
    const std::vector<Tensor>& tensors() const { return tensors_; }
    const Tensor& tensor(int index) const { return tensors_.at(static_cast<size_t>(index)); }
    int classes() const { return steps_.empty() ? 0 : steps_.back().channels; }
    // The largest stride: what the sides of an image must be multiples of, and the side of a tile.
    int multiple() const;

  private:
    Step step(Op op, std::vector<int> inputs, int output) const;
    std::vector<int32_t> thresholds(int output, const int32_t* theta) const;

    std::vector<Tensor> tensors_;
    std::vector<Step> steps_;
};

}  // namespace mbunet
