#include "network.hpp"

#include <algorithm>

namespace mbunet {

int Network::add_tensor(int channels, int stride) {
    tensors_.push_back({channels, stride});
    return static_cast<int>(tensors_.size()) - 1;
}

void Network::add_stem(int output, int channels, const int16_t* weights, const int32_t* theta) {
    Step step{Op::kStem, {}, {}, output, channels, {}, {}, {theta, theta + channels}, {}};
    step.weights.assign(weights, weights + channels * 27);
    steps_.push_back(std::move(step));
}

void Network::add_convolution(Op op, std::vector<int> inputs, std::vector<int> input_channels, int output, int channels,
                              const int8_t* ternary_weights, const int32_t* theta) {
    Step step{op, std::move(inputs), std::move(input_channels), output, channels, {}, {}, {theta, theta + channels},
              {}};
    size_t weights = static_cast<size_t>(channels) * static_cast<size_t>(step.taps());
    int total = 0;
    for (int n : step.input_channels) total += n;
    weights *= static_cast<size_t>(total);
    step.ternary_weights.assign(ternary_weights, ternary_weights + weights);
    steps_.push_back(std::move(step));
}

void Network::add_pool(int input, int output, int channels) {
    steps_.push_back({Op::kPool, {input}, {channels}, output, channels, {}, {}, {}, {}});
}

void Network::add_head(int input, int channels, int classes, const int16_t* weights, const int32_t* bias) {
    Step step{Op::kHead, {input}, {channels}, -1, classes, {}, {}, {}, {bias, bias + classes}};
    step.weights.assign(weights, weights + classes * channels);
    for (int c = 0; c < classes; ++c)
        for (int i = 0; i < channels; ++i) {
            int32_t& weight = step.weights[static_cast<size_t>(c * channels + i)];
            step.base[static_cast<size_t>(c)] -= weight;
            weight *= 2;
        }
    steps_.push_back(std::move(step));
}

int Network::multiple() const {
    int largest = 1;
    for (const Tensor& tensor : tensors_) largest = std::max(largest, tensor.stride);
    return largest;
}

}  // namespace mbunet
