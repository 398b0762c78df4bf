#include "network.hpp"

#include <algorithm>

#include "cpu/kernels/kernels.hpp"

namespace mbunet {

int Network::add_slot(int channels, int stride) {
    slots_.push_back({channels, stride});
    return static_cast<int>(slots_.size()) - 1;
}

void Network::add_pixels(int output, int channels, const int16_t* weights, const int32_t* theta) {
    Step step{Op::kPixels, {}, {}, output, channels, {}, {}, {}, {theta, theta + channels}};
    step.weights.assign(weights, weights + channels * 27);
    const auto pair = [](int16_t low, int16_t high) {
        return static_cast<int32_t>(static_cast<uint32_t>(static_cast<uint16_t>(low)) |
                                    static_cast<uint32_t>(static_cast<uint16_t>(high)) << 16);
    };
    for (int channel = 0; channel < channels; ++channel, weights += 27) {
        for (int row = 0; row < 27; row += 9) {  // [column][colour]
            for (int tap = row; tap < row + 9; tap += 3) step.tables.push_back(pair(weights[tap], weights[tap + 1]));
            step.tables.push_back(pair(weights[row + 2], weights[row + 5]));
        }
        step.tables.push_back(pair(weights[8], weights[17]));
        step.tables.push_back(pair(weights[26], 0));
        step.tables.resize(static_cast<size_t>((channel + 1) * kPixelStride));
    }
    steps_.push_back(std::move(step));
}

void Network::add_convolution(Op op, std::vector<int> inputs, std::vector<int> input_channels, int output, int channels,
                              const int8_t* signs, const int32_t* theta) {
    Step step{op, std::move(inputs),        std::move(input_channels), output, channels, {}, {},
              {}, {theta, theta + channels}};
    size_t weights = static_cast<size_t>(channels) * static_cast<size_t>(step.taps());
    int total = 0;
    for (int n : step.input_channels) total += n;
    weights *= static_cast<size_t>(total);
    step.signs.assign(signs, signs + weights);
    steps_.push_back(std::move(step));
}

void Network::add_pool(int input, int output, int channels) {
    steps_.push_back({Op::kPool, {input}, {channels}, output, channels, {}, {}, {}, {}});
}

void Network::add_head(int input, int channels, int classes, const int16_t* weights, const int32_t* bias) {
    Step step{Op::kHead, {input}, {channels}, -1, classes, {}, {}, {}, {bias, bias + classes}};
    for (int c = 0; c < classes; ++c)
        for (int i = 0; i < channels; ++i) {
            const int32_t w = weights[c * channels + i];
            step.weights.push_back(2 * w);
            step.offsets[static_cast<size_t>(c)] -= w;
        }
    for (int c = 0; c < classes; ++c)
        for (int first = 0; first < channels; first += 8)
            for (int byte = 0; byte < 256; ++byte) {
                int32_t sum = 0;
                for (int i = 0; i < 8 && first + i < channels; ++i)
                    if (byte >> i & 1) sum += step.weights[static_cast<size_t>(c * channels + first + i)];
                step.tables.push_back(sum);
            }
    steps_.push_back(std::move(step));
}

int Network::multiple() const {
    int largest = 1;
    for (const Slot& slot : slots_) largest = std::max(largest, slot.stride);
    return largest;
}

}  // namespace mbunet
