#include "sparse_lists.hpp"

#include <algorithm>
#include <stdexcept>
#include <tuple>

namespace mbunet::cpu {

namespace {

// Fills a list up to whole quads with `zero`; returns how many inputs that took.
int fill(std::vector<uint32_t>& inputs, uint32_t zero) {
    const size_t before = inputs.size();
    inputs.resize(round_up(before, 4), zero);
    return static_cast<int>(inputs.size() - before);
}

// Appends the list of inputs of weight +1 and -1, whole quads of either.
TapList append(std::vector<uint32_t>& taps, const std::vector<uint32_t>& positive,
               const std::vector<uint32_t>& negative) {
    if (positive.size() + negative.size() > UINT16_MAX)
        throw std::length_error("more than 65535 weights for one output");
    const size_t positive_rest = positive.size() % 16, negative_rest = negative.size() % 16;
    const TapList list{static_cast<uint32_t>(taps.size()), static_cast<uint8_t>(positive_rest / 4),
                       static_cast<uint8_t>(negative_rest / 4), static_cast<uint16_t>(positive.size() / 16),
                       static_cast<uint16_t>(negative.size() / 16)};
    const auto add = [&](const std::vector<uint32_t>& from, size_t begin, size_t end) {
        taps.insert(taps.end(), from.begin() + static_cast<ptrdiff_t>(begin),
                    from.begin() + static_cast<ptrdiff_t>(end));
    };
    add(positive, 0, positive_rest);
    add(negative, 0, negative_rest);
    add(positive, positive_rest, positive.size());
    add(negative, negative_rest, negative.size());
    return list;
}

auto shape(const TapList& list) {
    return std::tuple(list.positive_quads, list.negative_quads, list.positive_blocks, list.negative_blocks);
}

template <class Channel>
void sort_alike(std::vector<Channel>& channels) {
    for (size_t i = 0; i < channels.size(); i += kSorted)
        std::stable_sort(channels.begin() + static_cast<ptrdiff_t>(i),
                         channels.begin() + static_cast<ptrdiff_t>(std::min(i + kSorted, channels.size())),
                         [](const Channel& a, const Channel& b) { return shape(a.list) < shape(b.list); });
}

int bit_width(unsigned n) { return n ? 32 - __builtin_clz(n) : 0; }

// Distance of a tap from the position it belongs to. Those of a transposed convolution read the input where it is.
int64_t distance(const Step& step, const Plane& plane, int tap) {
    if (step.op == Op::kTransposedConv) return 0;
    return (tap / 3 - 1) * static_cast<int64_t>(plane.row) + (tap % 3 - 1) * static_cast<int64_t>(plane.bytes);
}

// Offset of the first position that entry `entry` of the lists writes.
uint32_t output_of(const Step& step, const Addresses& addresses, int entry) {
    const int parts = step.op == Op::kTransposedConv ? step.taps() : 1;
    const int row = entry % parts / 2, column = entry % parts % 2;
    return addresses.output + static_cast<uint32_t>(static_cast<size_t>(entry / parts) * addresses.out.size +
                                                    addresses.out.at(row, column));
}

}  // namespace

SparseLists list_taps(const Step& step, const Addresses& addresses) {
    SparseLists lists;
    const int channels = static_cast<int>(addresses.inputs.size());
    // a transposed convolution's taps are outputs of their own
    const int parts = step.op == Op::kTransposedConv ? step.taps() : 1, part_taps = step.taps() / parts;
    const auto address = [&](int tap, int channel) {
        return static_cast<uint32_t>(addresses.inputs[static_cast<size_t>(channel)] +
                                     distance(step, addresses.input, tap));
    };
    const bool dense =
        std::find(step.ternary_weights.begin(), step.ternary_weights.end(), 0) == step.ternary_weights.end();
    const int inputs = part_taps * channels;
    if (dense) {
        std::vector<uint32_t> all;
        for (int channel = 0; channel < channels; ++channel)
            for (int tap = 0; tap < part_taps; ++tap) all.push_back(address(tap, channel));
        fill(all, addresses.zero);
        lists.all = append(lists.taps, all, {});
        lists.levels = bit_width(2u * static_cast<unsigned>(inputs) + 8u) + 1;
    }
    std::vector<uint32_t> positive, negative;
    for (int entry = 0; entry < step.channels * parts; ++entry) {
        const int8_t* weights = &step.ternary_weights[static_cast<size_t>(entry) * static_cast<size_t>(inputs)];
        positive.clear();
        negative.clear();
        for (int channel = 0; channel < channels; ++channel)
            for (int tap = 0; tap < part_taps; ++tap) {
                const int8_t sign = weights[tap * channels + channel];
                if (sign) (sign > 0 ? positive : negative).push_back(address(tap, channel));
            }
        const int plus = static_cast<int>(positive.size()), minus = static_cast<int>(negative.size());
        // 2 c - (plus + minus) >= theta, rounded up for either sign of the sum
        const int32_t sum = step.thresholds[static_cast<size_t>(entry / parts)] + plus + minus;
        const int32_t at_least = (sum >> 1) + (sum & 1);
        const uint32_t output = output_of(step, addresses, entry);
        fill(positive, addresses.zero);
        const int filled = fill(negative, addresses.zero);  // zeros among -1 inputs count
        if (!dense) {
            lists.channels.push_back({append(lists.taps, positive, negative), at_least + filled, output});
        } else if (plus <= minus) {  // c = 2 S - A + minus >= at_least
            lists.dense_channels.push_back({append(lists.taps, positive, {}), minus - at_least + 1, output, false});
        } else {  // c = A - 2 S + minus >= at_least
            lists.dense_channels.push_back({append(lists.taps, negative, {}), at_least - minus, output, true});
        }
    }
    sort_alike(lists.channels);
    sort_alike(lists.dense_channels);
    return lists;
}

}  // namespace mbunet::cpu
