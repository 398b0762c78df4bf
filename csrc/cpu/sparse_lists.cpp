#include "sparse_lists.hpp"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <tuple>

namespace mbunet::cpu {

namespace {

int bit_width(unsigned n) { return n ? 32 - __builtin_clz(n) : 0; }

int32_t half_up(int32_t n) { return (n >> 1) + (n & 1); }  // ceil(n / 2) for either sign

// Inputs that count once when they are one, and once when they are zero.
struct Inputs {
    std::vector<uint32_t> positive, negative;

    size_t size() const { return positive.size() + negative.size(); }
    void add(bool is_positive, uint32_t tap) { (is_positive ? positive : negative).push_back(tap); }
};

// How many inputs that are zero fill the negative ones up to whole quads: they count.
int filling(const Inputs& inputs) {
    return static_cast<int>(round_up(inputs.negative.size(), 4) - inputs.negative.size());
}

// Appends the list of `inputs`, filled up with `zero`. The positive ones go up in memory, the negative ones back down,
// so that the next channel begins where the caches have last been.
TapList append(std::vector<uint32_t>& taps, Inputs inputs, uint32_t zero) {
    auto& [positive, negative] = inputs;
    positive.resize(round_up(positive.size(), 4), zero);
    negative.resize(round_up(negative.size(), 4), zero);
    std::reverse(negative.begin(), negative.end());
    if (inputs.size() > UINT16_MAX) throw std::length_error("more than 65535 weights for one output");
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

template <class Channel, class Less>
void sort_alike(std::vector<Channel>& channels, const Less& less) {
    for (size_t i = 0; i < channels.size(); i += kSorted)
        std::stable_sort(channels.begin() + static_cast<ptrdiff_t>(i),
                         channels.begin() + static_cast<ptrdiff_t>(std::min(i + kSorted, channels.size())), less);
}

// A convolution's weights by entry, (channel, row and column among its outputs), and what they read and write.
class Entries {
  public:
    Entries(const Step& step, const Addresses& addresses)
        : step_(step),
          conv_(step.conv),
          addresses_(addresses),
          parts_(conv_.up * conv_.up),
          taps_(conv_.kernel * conv_.kernel),
          inputs_(static_cast<int>(addresses.inputs.size())) {}

    int count() const { return step_.channels * parts_; }
    int channel(int entry) const { return entry / parts_; }
    int inputs() const { return taps_ * inputs_; }  // of one segment
    int exponent(int segment, int entry) const {
        return conv_.exponents[static_cast<size_t>(segment * step_.channels + channel(entry))];
    }
    const int32_t* thresholds(int entry) const {
        return &step_.thresholds[static_cast<size_t>(channel(entry) * step_.levels())];
    }
    // Offset of the first position that an entry writes.
    uint32_t output(int entry) const {
        const int row = entry % parts_ / conv_.up, column = entry % conv_.up;
        return addresses_.output +
               static_cast<uint32_t>(static_cast<size_t>(channel(entry) * addresses_.out_planes) * addresses_.out.size +
                                     addresses_.out.at(row, column));
    }
    // Calls visit(tap, weight) for all weights of a segment.
    template <class Visit>
    void each(int segment, int entry, const Visit& visit) const {
        const int8_t* weights =
            &conv_.weights[(static_cast<size_t>(segment) * static_cast<size_t>(count()) + static_cast<size_t>(entry)) *
                           static_cast<size_t>(inputs())];
        for (int channel = 0; channel < inputs_; ++channel) {
            const uint32_t center = addresses_.inputs[static_cast<size_t>(channel)];
            for (int tap = 0; tap < taps_; ++tap)
                visit(static_cast<uint32_t>(center + distance(tap)), weights[tap * inputs_ + channel]);
        }
    }

  private:
    // Of a tap from the position that it belongs to.
    int64_t distance(int tap) const {
        const int half = conv_.kernel / 2;
        return (tap / conv_.kernel - half) * static_cast<int64_t>(addresses_.input.row) +
               (tap % conv_.kernel - half) * static_cast<int64_t>(addresses_.input.bytes);
    }

    const Step& step_;
    const Convolution& conv_;
    const Addresses& addresses_;
    const int parts_, taps_, inputs_;
};

// -- one bit an input, one list, one threshold ------------------------------------------------------------------------

// Inputs of one sign are enough where no weight is zero, see DenseChannel.
DenseChannel dense_channel(std::vector<uint32_t>& taps, Inputs& inputs, int32_t least, uint32_t output, uint32_t zero) {
    const bool negated = inputs.positive.size() > inputs.negative.size();  // 2 S - A >= least, or A - 2 S >= least
    if (negated) inputs.positive.swap(inputs.negative);
    inputs.negative.clear();
    return {append(taps, inputs, zero), negated ? least : 1 - least, output, negated};
}

void list_plain(SparseLists& lists, const Entries& entries, const Addresses& addresses, bool dense) {
    if (dense) {
        Inputs all;
        entries.each(0, 0, [&](uint32_t tap, int8_t) { all.positive.push_back(tap); });
        lists.all = append(lists.taps, all, addresses.zero);
        lists.levels = bit_width(2u * static_cast<unsigned>(entries.inputs()) + 8u) + 1;
    }
    for (int entry = 0; entry < entries.count(); ++entry) {
        Inputs inputs;
        entries.each(0, entry, [&](uint32_t tap, int8_t weight) {
            if (weight) inputs.add(weight > 0, tap);
        });
        const auto plus = static_cast<int>(inputs.positive.size()), minus = static_cast<int>(inputs.negative.size());
        const int32_t theta = *entries.thresholds(entry);
        if (dense) {
            const int32_t least = addresses.is_signed ? half_up(theta + plus - minus) : theta;
            lists.dense_channels.push_back(
                dense_channel(lists.taps, inputs, least, entries.output(entry), addresses.zero));
            continue;
        }
        // signs: 2 c - (plus + minus) >= theta; bits of 0 and 1: c - minus >= theta
        const int32_t at_least = addresses.is_signed ? half_up(theta + plus + minus) : theta + minus;
        lists.channels.push_back(
            {append(lists.taps, inputs, addresses.zero), at_least + filling(inputs), entries.output(entry)});
    }
    const auto less = [](const auto& a, const auto& b) { return shape(a.list) < shape(b.list); };
    sort_alike(lists.channels, less);
    sort_alike(lists.dense_channels, less);
}

// -- everything else --------------------------------------------------------------------------------------------------

// What is counted with different weights: the inputs by exponent, the largest first.
using ByExponent = std::map<int, Inputs, std::greater<int>>;

// The convolution as sums of bits: count + constant, the count of `inputs` less, where `dense`, that of all inputs.
struct Sum {
    ByExponent inputs;
    int64_t constant = 0;
    bool negated = false;  // what is counted is the sum's negative
};

class WeightedLists {
  public:
    WeightedLists(SparseLists& lists, const Step& step, const Entries& entries, const Addresses& addresses, bool dense)
        : lists_(lists), step_(step), entries_(entries), addresses_(addresses), dense_(dense) {}

    void list() {
        ByExponent all;
        if (dense_) each_segment(0, [&](int exponent, uint32_t tap, int8_t) { all[exponent].positive.push_back(tap); });
        all_ = most(all);
        for (int entry = 0; entry < entries_.count(); ++entry) add(entry);
        sort_alike(lists_.weighted_channels,
                   [&](const WeightedChannel& a, const WeightedChannel& b) { return shapes(a) < shapes(b); });
        lists_.all_terms = static_cast<int>(all.size());
        append_terms(all);
    }

  private:
    int highest() const { return (1 << addresses_.planes) - 1; }  // what an input counts when all its bits are ones

    // The count of `inputs` when all bits are ones.
    int64_t most(const ByExponent& inputs) const {
        int64_t sum = 0;
        for (const auto& [exponent, some] : inputs) sum += static_cast<int64_t>(some.size()) * highest() << exponent;
        return sum;
    }

    // Calls visit(exponent, tap, weight) for all weights of an entry.
    template <class Visit>
    void each_segment(int entry, const Visit& visit) const {
        for (int segment = 0; segment < step_.conv.segments; ++segment)
            entries_.each(segment, entry,
                          [&](uint32_t tap, int8_t weight) { visit(entries_.exponent(segment, entry), tap, weight); });
    }

    // With c the weighted count of ones among the inputs of weight +1 and zeros among those of weight -1, and N that of
    // the latter: the sum is c - N of levels; of signs it is 2 c - (all inputs), and half of it, rounded up, is
    // compared.
    Sum sparse_sum(int entry) const {
        Sum sum;
        each_segment(entry, [&](int exponent, uint32_t tap, int8_t weight) {
            if (weight) sum.inputs[exponent].add(weight > 0, tap);
        });
        add_residual(sum, entry);
        return sum;
    }

    // With S the weighted count of ones among the inputs of one sign and A that among all inputs, levels sum up to
    // 2 S - A (or A - 2 S), signs to twice that and a constant. So S counts twice, and A is taken away.
    Sum dense_sum(int entry) const {
        Sum sum;
        int64_t plus = 0, minus = 0;
        each_segment(entry, [&](int exponent, uint32_t, int8_t weight) {
            (weight > 0 ? plus : minus) += highest() << exponent;
        });
        sum.negated = plus > minus;
        each_segment(entry, [&](int exponent, uint32_t tap, int8_t weight) {
            if ((weight > 0) != sum.negated) sum.inputs[exponent + 1].positive.push_back(tap);
        });
        if (addresses_.is_signed) sum.constant = plus - minus;
        add_residual(sum, entry);
        return sum;
    }

    void add_residual(Sum& sum, int entry) const {
        const Residual& residual = step_.conv.residual;
        if (residual.tensor < 0) return;
        const auto channel = static_cast<size_t>(entries_.channel(entry));
        const int factor = residual.factors[channel];
        sum.inputs[residual.exponent].add((factor > 0) != sum.negated, addresses_.residual[channel]);
        if (dense_ && addresses_.is_signed)
            sum.constant += static_cast<int64_t>(factor) * highest() << residual.exponent;
    }

    void add(int entry) {
        Sum sum = dense_ ? dense_sum(entry) : sparse_sum(entry);
        const int64_t counted = most(sum.inputs);
        int64_t zeros = 0, filled = 0;  // what the inputs that count as zeros add when all are ones; the filling's own
        for (const auto& [exponent, inputs] : sum.inputs) {
            zeros += static_cast<int64_t>(inputs.negative.size()) * highest() << exponent;
            filled += static_cast<int64_t>(filling(inputs)) * highest() << exponent;
        }
        std::vector<int64_t> least;  // of the count, by level
        for (int level = 0; level < step_.levels(); ++level) {
            const int32_t theta = entries_.thresholds(entry)[level];
            if (dense_) {
                const int64_t own = addresses_.is_signed ? half_up(static_cast<int32_t>(theta + sum.constant)) : theta;
                least.push_back((sum.negated ? 1 - own : own) + zeros);
            } else if (addresses_.is_signed) {
                least.push_back(half_up(static_cast<int32_t>(theta + counted)));
            } else {
                least.push_back(theta + zeros);
            }
        }
        if (sum.negated) std::reverse(least.begin(), least.end());
        // no count lies outside [-A, counted], and thresholds beyond it need not be told apart
        for (int64_t& value : least) value = std::clamp(value, -all_, counted + 1);
        WeightedChannel channel{};
        channel.first_term = static_cast<uint32_t>(lists_.terms.size());
        channel.terms = static_cast<uint16_t>(append_terms(sum.inputs));
        // the top level is the comparison: 2^top exceeds every difference between a count and a threshold
        channel.levels = static_cast<uint8_t>(bit_width(static_cast<unsigned>(counted + filled + all_ + 1)) + 1);
        const size_t middle = least.size() / 2;
        channel.at_least = static_cast<int32_t>(least[middle] + filled);
        if (least.size() == 3) {
            channel.to_upper = static_cast<int32_t>(least[1] - least[2]);
            channel.to_lower = static_cast<int32_t>(least[1] - least[0]);
        }
        channel.output = entries_.output(entry);
        channel.negated = sum.negated;
        lists_.weighted_channels.push_back(channel);
    }

    // Appends the lists; returns how many there are.
    int append_terms(const ByExponent& inputs) {
        for (const auto& [exponent, some] : inputs)
            lists_.terms.push_back({append(lists_.taps, some, addresses_.zero), exponent});
        return static_cast<int>(inputs.size());
    }

    // What decides which way a channel's branches go.
    std::vector<std::pair<int, decltype(shape(TapList{}))>> shapes(const WeightedChannel& channel) const {
        std::vector<std::pair<int, decltype(shape(TapList{}))>> found;
        for (int i = 0; i < channel.terms; ++i) {
            const Term& term = lists_.terms[channel.first_term + static_cast<uint32_t>(i)];
            found.emplace_back(term.exponent, shape(term.list));
        }
        return found;
    }

    SparseLists& lists_;
    const Step& step_;
    const Entries& entries_;
    const Addresses& addresses_;
    const bool dense_;
    int64_t all_ = 0;  // weighted count of all inputs, where it is taken away
};

// Whether every segment is doubled as often in all channels, so that all inputs count alike for them.
bool exponents_agree(const Step& step) {
    for (int segment = 0; segment < step.conv.segments; ++segment) {
        const auto own = step.conv.exponents.begin() + segment * step.channels;
        if (std::any_of(own, own + step.channels, [&](uint8_t exponent) { return exponent != *own; })) return false;
    }
    return true;
}

}  // namespace

SparseLists list_taps(const Step& step, const Addresses& addresses) {
    SparseLists lists;
    const Entries entries(step, addresses);
    const Convolution& conv = step.conv;
    const bool no_zeros = std::find(conv.weights.begin(), conv.weights.end(), 0) == conv.weights.end();
    const bool plain = addresses.planes == 1 && conv.segments == 1 && conv.residual.tensor < 0 && step.levels() == 1;
    if (plain)
        list_plain(lists, entries, addresses, no_zeros);
    else
        WeightedLists(lists, step, entries, addresses, no_zeros && exponents_agree(step)).list();
    return lists;
}

size_t SparseLists::memory() const {
    return taps.size() * sizeof(uint32_t) + channels.size() * sizeof(CountedChannel) +
           dense_channels.size() * sizeof(DenseChannel) + weighted_channels.size() * sizeof(WeightedChannel) +
           terms.size() * sizeof(Term);
}

}  // namespace mbunet::cpu
