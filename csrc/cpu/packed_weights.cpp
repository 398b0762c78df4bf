#include "packed_weights.hpp"

#include "kernels/kernels.hpp"

namespace mbunet::cpu {

namespace {

int32_t pair(int32_t low, int32_t high) {
    return static_cast<int32_t>(static_cast<uint32_t>(static_cast<uint16_t>(low)) |
                                static_cast<uint32_t>(static_cast<uint16_t>(high)) << 16);
}

std::vector<int32_t> stem_pairs(const Step& step) {
    std::vector<int32_t> pairs;
    for (int channel = 0; channel < step.channels; ++channel) {
        const int32_t* weights = &step.weights[static_cast<size_t>(channel) * 27];
        for (int row = 0; row < 27; row += 9) {  // [column][color]
            for (int tap = row; tap < row + 9; tap += 3) pairs.push_back(pair(weights[tap], weights[tap + 1]));
            pairs.push_back(pair(weights[row + 2], weights[row + 5]));
        }
        pairs.push_back(pair(weights[8], weights[17]));
        pairs.push_back(pair(weights[26], 0));
        pairs.resize(static_cast<size_t>((channel + 1) * kStemStride));
    }
    return pairs;
}

// Weights by the planes' order in memory, which is that of the channels.
std::vector<int32_t> head_weights(const Step& step) {
    const size_t channels = static_cast<size_t>(step.input_channels[0]), classes = static_cast<size_t>(step.channels),
                 planes = step.weights.size() / classes / channels;
    std::vector<int32_t> weights;
    for (size_t c = 0; c < classes; ++c)
        for (size_t channel = 0; channel < channels; ++channel)
            for (size_t plane = 0; plane < planes; ++plane)
                weights.push_back(step.weights[(c * planes + plane) * channels + channel]);
    return weights;
}

// Weights, and behind them the tables of their sums.
std::vector<int32_t> head_tables(const Step& step) {
    const std::vector<int32_t> weights = head_weights(step);
    const int planes = static_cast<int>(weights.size()) / step.channels;
    std::vector<int32_t> tables = weights;
    for (int c = 0; c < step.channels; ++c)
        for (int first = 0; first < planes; first += 8)
            for (int byte = 0; byte < 256; ++byte) {
                int32_t sum = 0;
                for (int i = 0; i < 8 && first + i < planes; ++i)
                    if (byte >> i & 1) sum += weights[static_cast<size_t>(c * planes + first + i)];
                tables.push_back(sum);
            }
    return tables;
}

}  // namespace

std::vector<int32_t> packed_weights(const Step& step) {
    if (step.op == Op::kStem) return stem_pairs(step);
    if (step.op == Op::kHead) return head_tables(step);
    return {};
}

}  // namespace mbunet::cpu
