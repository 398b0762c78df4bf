// A network as the native code runs it: flat steps that read and write tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mbunet {

enum class Op { kStem, kConv, kPool, kTransposedConv, kHead };

// Where a step's result lives: `channels` planes of the level whose resolution is 1 / `stride` of the image's.
struct Tensor {
    int channels;
    int stride;
};

struct Step {
    Op op;
    std::vector<int> inputs;              // tensors; none for pixels
    std::vector<int> input_channels;      // channels taken of each input
    int output;                           // tensor; -1 for the head
    int channels;                         // output channels, classes of the head
    std::vector<int8_t> ternary_weights;  // kConv, kTransposedConv: [channels][taps][sum of input_channels]
    std::vector<int32_t> weights;     // kStem: [channels][3][3][3]; kHead: [classes][channels], 2 w: what a one adds
    std::vector<int32_t> thresholds;  // theta of every channel; none for a pool and the head
    std::vector<int32_t> base;        // kHead: bias - sum of w, the logit of zeros

    int taps() const { return op == Op::kTransposedConv ? 4 : 9; }
};

class Network {
  public:
    int add_tensor(int channels, int stride);
    // weights [channels][3][3][3] (row, column, color), theta [channels]
    void add_stem(int output, int channels, const int16_t* weights, const int32_t* theta);
    // ternary_weights [channels][taps][sum of input_channels] in {-1, 0, 1}, theta [channels]
    void add_convolution(Op op, std::vector<int> inputs, std::vector<int> input_channels, int output, int channels,
                         const int8_t* ternary_weights, const int32_t* theta);
    void add_pool(int input, int output, int channels);
    // weights [classes][channels], bias [classes]
    void add_head(int input, int channels, int classes, const int16_t* weights, const int32_t* bias);

    const std::vector<Step>& steps() const { return steps_; }
    const std::vector<Tensor>& tensors() const { return tensors_; }
    const Tensor& tensor(int index) const { return tensors_.at(static_cast<size_t>(index)); }
    int classes() const { return steps_.empty() ? 0 : steps_.back().channels; }
    // The largest stride: what the sides of an image must be multiples of, and the side of a tile.
    int multiple() const;

  private:
    std::vector<Tensor> tensors_;
    std::vector<Step> steps_;
};

}  // namespace mbunet
