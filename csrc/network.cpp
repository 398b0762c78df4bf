#include "network.hpp"

#include <algorithm>
#include <utility>

namespace mbunet {

int Network::add_tensor(const Tensor& tensor) {
    tensors_.push_back(tensor);
    return static_cast<int>(tensors_.size()) - 1;
}

Step Network::step(Op op, std::vector<int> inputs, int output) const {
    std::vector<int> channels;
    for (int input : inputs) channels.push_back(tensor(input).channels);
    return {op, std::move(inputs), std::move(channels), output, output < 0 ? 0 : tensor(output).channels};
}

std::vector<int32_t> Network::thresholds(int output, const int32_t* theta) const {
    const Tensor& written = tensor(output);
    return {theta, theta + written.channels * ((1 << written.planes) - 1)};
}

void Network::add_stem(int output, const int16_t* weights, const int32_t* theta) {
    Step stem = step(Op::kStem, {}, output);
    stem.weights.assign(weights, weights + stem.channels * 27);
    stem.thresholds = thresholds(output, theta);
    steps_.push_back(std::move(stem));
}

void Network::add_convolution(std::vector<int> inputs, int output, Convolution conv, const int32_t* theta) {
    Step added = step(Op::kConv, std::move(inputs), output);
    added.conv = std::move(conv);
    added.thresholds = thresholds(output, theta);
    steps_.push_back(std::move(added));
}

void Network::add_pool(int input, int output) { steps_.push_back(step(Op::kPool, {input}, output)); }

void Network::add_gate(int input, int gate, int output) { steps_.push_back(step(Op::kGate, {input, gate}, output)); }

void Network::add_head(int input, int classes, const int16_t* weights, const int32_t* bias, int doublings) {
    Step head = step(Op::kHead, {input}, -1);
    const Tensor& read = tensor(input);
    head.channels = classes;
    head.doublings = doublings;
    head.base.assign(bias, bias + classes);
    for (int c = 0; c < classes; ++c, weights += read.channels)
        for (int plane = read.planes; plane--;)  // a sign is 2 * bit - 1, a level the sum of its bits' worth
            for (int i = 0; i < read.channels; ++i) {
                head.weights.push_back(weights[i] * (read.is_signed ? 2 : 1 << plane));
                if (read.is_signed) head.base[static_cast<size_t>(c)] -= weights[i];
            }
    steps_.push_back(std::move(head));
}

int Network::multiple() const {
    int largest = 1;
    for (const Tensor& tensor : tensors_) largest = std::max(largest, tensor.stride);
    return largest;
}

}  // namespace mbunet
