// Bit-sliced counting, once for every instruction set. Included inside the set's own namespace and target region, which
// define the vector Vec (all its bits are independent), HalfVec, which is half of one where such are added faster, else
// Vec, and for both:
//   load<Vec>, store                       unaligned
//   broadcast(mask)                        an int32 (0 or -1) in every element
//   zeros(), bit_xor(a, b), bit_and(a, b)  constant, exclusive or, and
//   add<Inverted>(sum, x, y)               carry-save addition, see below
//   majority(a, b, c)                      what two of them at least are
//   kTwoAtOnce                             whether two vectors at a time are worth their registers
//
// Carry-save addition: sum becomes the lowest bit of sum + x + y, the carry (majority) is returned. With Inverted, x, y
// and the returned carry stand complemented: two complements leave the sum bit alone, so inputs of weight -1, which
// count when they are zero, cost nothing extra, and one complement at the end of a block sets it right.

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"  // alignment, which vectors lose as arguments of templates

#include "vectors.inl"

// A bit of each of the inputs' planes, the least significant first: that of the second plane weighs twice as much.
template <class W, int Planes>
struct PlaneBits {
    W plane[Planes];
};

// The count of the inputs at W's positions: bit i of the count is level[i].
template <class W, int Levels>
struct Counter {
    W level[Levels];

    // Sets every level to a function of its number.
    template <class Value>
    MBUNET_INLINE void start(const Value& value) {
#pragma GCC unroll 32
        for (int i = 0; i < Levels; ++i) level[i] = value(i);
    }
    // Adds one bit of weight 2^From.
    template <int From>
    MBUNET_INLINE void add_bit(W carry) {
#pragma GCC unroll 32
        for (int i = From; i < Levels; ++i) {
            const W up = bit_and(level[i], carry);
            level[i] = bit_xor(level[i], carry);
            carry = up;
        }
    }
    // Adds a bit of every plane, that of the first weighing 2^From.
    template <int From>
    MBUNET_INLINE void add_planes(const PlaneBits<W, 1>& bits) {
        add_bit<From>(bits.plane[0]);
    }
    template <int From>
    MBUNET_INLINE void add_planes(const PlaneBits<W, 2>& bits) {
        const W up = bit_and(level[From], bits.plane[0]);
        level[From] = bit_xor(level[From], bits.plane[0]);
        add_bit<From + 2>(add<false>(level[From + 1], up, bits.plane[1]));
    }
    MBUNET_INLINE W top() const { return level[Levels - 1]; }
};

// Adds 4 inputs (8, 16) to the levels from From on; returns the carry of that weight, complemented if Inverted.
template <bool Inverted, int From, class C, class At>
MBUNET_INLINE auto add_4(C& c, At at, const uint32_t* taps) {
    const auto first = add<Inverted>(c.level[From], load(at, taps[0]), load(at, taps[1]));
    const auto second = add<Inverted>(c.level[From], load(at, taps[2]), load(at, taps[3]));
    return add<Inverted>(c.level[From + 1], first, second);
}
template <bool Inverted, int From, class C, class At>
MBUNET_INLINE auto add_8(C& c, At at, const uint32_t* taps) {
    const auto first = add_4<Inverted, From>(c, at, taps);
    return add<Inverted>(c.level[From + 2], first, add_4<Inverted, From>(c, at, taps + 4));
}
template <bool Inverted, int From, class C, class At>
MBUNET_INLINE auto add_16(C& c, At at, const uint32_t* taps) {
    const auto first = add_8<Inverted, From>(c, at, taps);
    return add<Inverted>(c.level[From + 3], first, add_8<Inverted, From>(c, at, taps + 8));
}

// A list being added: `positive` quads or blocks of weight +1 come first, all others are of weight -1. Which it is goes
// the same way at every position of a channel, so the branch is foreseen.
template <int Planes, class At>
struct Taps {
    At at[Planes];  // by plane, the least significant first
    const uint32_t* next;

    // Of inputs whose less significant plane stands `below` behind the other.
    MBUNET_INLINE Taps(At most, const uint32_t* taps, size_t below) : next(taps) {
        at[Planes - 1] = most;
        if constexpr (Planes > 1) at[0] = behind(most, below);
    }

    // Adds one quad (of Count = 4 inputs) or block (16); returns the carries.
    template <int Count, class C>
    MBUNET_INLINE auto one(C& c, int& positive) {
        PlaneBits<decltype(load(at[0], 0)), Planes> carries;
        const uint32_t* taps = next;
        const bool plus = positive-- > 0;
        next += Count;
        carries.plane[0] = add_inputs<Count, 0>(c, plus, taps);
        if constexpr (Planes > 1) carries.plane[1] = add_inputs<Count, 1>(c, plus, taps);
        return carries;
    }
    // Adds two of them, plane by plane, so that few carries wait at a time.
    template <int Count, class C>
    MBUNET_INLINE auto two(C& c, int& positive) {
        PlaneBits<decltype(load(at[0], 0)), Planes> carries;
        const uint32_t* taps = next;
        const bool plus = positive-- > 0, then_plus = positive-- > 0;
        next += 2 * Count;
        carries.plane[0] = add_two<Count, 0>(c, plus, then_plus, taps);
        if constexpr (Planes > 1) carries.plane[1] = add_two<Count, 1>(c, plus, then_plus, taps);
        return carries;
    }

  private:
    template <int Count, int Plane, class C>
    MBUNET_INLINE auto add_inputs(C& c, bool plus, const uint32_t* taps) {
        if constexpr (Count == 4)
            return plus ? add_4<false, Plane>(c, at[Plane], taps) : complement(add_4<true, Plane>(c, at[Plane], taps));
        else
            return plus ? add_16<false, Plane>(c, at[Plane], taps)
                        : complement(add_16<true, Plane>(c, at[Plane], taps));
    }
    template <int Count, int Plane, class C>
    MBUNET_INLINE auto add_two(C& c, bool plus, bool then_plus, const uint32_t* taps) {
        constexpr int kFrom = (Count == 4 ? 2 : 4) + Plane;
        const auto first = add_inputs<Count, Plane>(c, plus, taps);
        return add<false>(c.level[kFrom], first, add_inputs<Count, Plane>(c, then_plus, taps + Count));
    }
};

// Adds all inputs of `list`.
template <int Planes, class C, class At>
MBUNET_INLINE void add_list(C& c, At at, const uint32_t* taps, const TapList& list, size_t below = 0) {
    Taps<Planes, At> in(at, taps, below);
    int positive = list.positive_quads;
    const int quads = positive + list.negative_quads;
    if (quads & 1) c.template add_planes<2>(in.template one<4>(c, positive));
    if (quads & 2) c.template add_planes<3>(in.template two<4>(c, positive));
    if (quads & 4) {
        auto carries = in.template two<4>(c, positive);
        const auto others = in.template two<4>(c, positive);
#pragma GCC unroll 2
        for (int p = 0; p < Planes; ++p)
            carries.plane[p] = add<false>(c.level[3 + p], carries.plane[p], others.plane[p]);
        c.template add_planes<4>(carries);
    }
    positive = list.positive_blocks;
    const int blocks = positive + list.negative_blocks;
    if (blocks & 1) c.template add_planes<4>(in.template one<16>(c, positive));
    for (int i = blocks / 2; i; --i) c.template add_planes<5>(in.template two<16>(c, positive));
}

// Calls `run` with the smallest size of a counter, of the few there are, that has `levels` levels.
template <class Run>
inline void with_levels(int levels, const Run& run) {
    if (levels <= 7)
        run(std::integral_constant<int, 7>{});
    else if (levels <= 9)
        run(std::integral_constant<int, 9>{});
    else if (levels <= 11)
        run(std::integral_constant<int, 11>{});
    else
        run(std::integral_constant<int, 18>{});
}

// The counter starts at 2^top - at_least, so that its top bit says whether the count has reached at_least.
template <int Levels, class At>
MBUNET_INLINE auto count_at(const CountArgs& args, const CountedChannel& channel, At at) {
    using W = decltype(load(at, 0));
    const unsigned start = (1u << (Levels - 1)) - static_cast<unsigned>(channel.at_least);
    Counter<W, Levels> counter;
    counter.start([&](int level) __attribute__((always_inline)) { return broadcast_bit<W>(start >> level & 1); });
    add_list<1>(counter, at, args.taps + channel.list.first, channel.list);
    return counter.top();
}

// Levels of a counter for `inputs` inputs: the top one is 0 for counts below `inputs`.
inline int levels_of(int inputs) { return inputs > 1 ? 33 - __builtin_clz(static_cast<unsigned>(inputs - 1)) : 1; }

void count_channel(const CountArgs& args, const CountedChannel& channel, const VectorSegments& segments,
                   size_t stride) {
    const int inputs = channel.list.inputs();
    uint8_t* out = args.group + channel.output;
    if (channel.at_least <= 0 || channel.at_least > inputs) {
        const bool bit = channel.at_least <= 0;
        segments.each<false>(
            [&](auto some) { store(out, broadcast_bit<decltype(load(some.at(out), 0))>(bit), some, stride); });
        return;
    }
    with_levels(levels_of(inputs), [&](auto size) {
        segments.each<kTwoAtOnce>([&](auto some) __attribute__((always_inline)) {
            store(out, count_at<decltype(size)::value>(args, channel, some.at(args.group)), some, stride);
        });
    });
}

void count(const CountArgs& args, const StridedRanges& ranges, int channel, int channel_end) {
    // all positions of a channel before the next one: its branches go the same way each time
    for (VectorSegments segments(ranges); segments.next();)
        for (int c = channel; c < channel_end; ++c)
            count_channel(args, args.channels[c], segments, ranges.output_stride);
}

// Without zeros: with S the ones among the inputs of one sign and A those among all, the dot product is
// 2 (2 S - A) + const for the positive sign and its negative for the other, so the shorter list is enough:
// bit = 2 S + constant > A, that is S + floor(constant / 2) >= ceil((A + even) / 2) with even = 1 for even constants.
// The right side is the same for all channels of either kind, so counters start at floor(constant / 2) minus it.
template <class W, int Levels>
struct Totals {
    W minus[2][Levels];  // -ceil((A + even) / 2) - 1 in two's complement, by `even`

    explicit Totals(const Counter<W, Levels>& all) {
        const W carry[2] = {all.level[0], broadcast_bit<W>(true)};  // ceil(x / 2) is floor(x / 2), and 1 where x is odd
        for (int even = 0; even < 2; ++even) {
            W up = carry[even];
#pragma GCC unroll 1
            for (int i = 0; i + 1 < Levels; ++i) {
                minus[even][i] = complement(bit_xor(all.level[i + 1], up));
                up = bit_and(all.level[i + 1], up);
            }
            minus[even][Levels - 1] = broadcast_bit<W>(true);
        }
    }
};

template <class W, int Levels, class At>
MBUNET_INLINE W dense_at(const DenseArgs& args, const DenseChannel& channel, const Totals<W, Levels>& totals, At at) {
    const W* minus = totals.minus[~channel.constant & 1];
    const unsigned plus = static_cast<unsigned>(channel.constant >> 1) + 1;
    W carry = widen<W>(zeros());
    Counter<W, Levels> counter;
    counter.start([&](int level) __attribute__((always_inline)) {
        W sum = minus[level];
        carry = add<false>(sum, broadcast_bit<W>(plus >> level & 1), carry);
        return sum;
    });
    add_list<1>(counter, at, args.taps + channel.list.first, channel.list);
    return bit_xor(counter.top(), broadcast_bit<W>(!channel.negated));  // the sign bit is 0 from 0 on
}

// All channels at one position after another: what they share is counted once.
template <int Levels, class Some>
inline void dense_channels(const DenseArgs& args, const Some& segments, size_t stride, int channel, int channel_end) {
    const auto at = segments.at(args.group);
    using W = decltype(load(at, 0));
    Counter<W, Levels> all;
    all.start([](int) __attribute__((always_inline)) { return widen<W>(zeros()); });
    add_list<1>(all, at, args.taps + args.all.first, args.all);
    const Totals<W, Levels> totals(all);
    for (; channel < channel_end; ++channel) {
        const DenseChannel& own = args.channels[channel];
        store(args.group + own.output, dense_at<W, Levels>(args, own, totals, at), segments, stride);
    }
}

void count_dense(const DenseArgs& args, const StridedRanges& ranges, int channel, int channel_end) {
    with_levels(args.levels, [&](auto size) {
        for (VectorSegments segments(ranges); segments.next();)
            segments.each<kTwoAtOnce>([&](auto some) {
                dense_channels<decltype(size)::value>(args, some, ranges.output_stride, channel, channel_end);
            });
    });
}

// -- any convolution: terms of several weights, several thresholds ---------------------------------------------------

// Calls `run` with the smallest size of a weighted counter, of the few there are, that has `levels` levels.
template <class Run>
inline void with_weighted_levels(int levels, const Run& run) {
    if (levels <= 7)
        run(std::integral_constant<int, 7>{});
    else if (levels <= 9)
        run(std::integral_constant<int, 9>{});
    else if (levels <= 11)
        run(std::integral_constant<int, 11>{});
    else if (levels <= 13)
        run(std::integral_constant<int, 13>{});
    else
        run(std::integral_constant<int, 26>{});
}

// Adds `count` terms to a counter that starts at `start`. The heaviest come first and the count is doubled on the way
// (Horner's rule), which renames its levels; the bits of `start` enter where they belong.
template <int Planes, class W, int Levels, class At>
MBUNET_INLINE void add_terms(Counter<W, Levels>& counter, unsigned start, At at, const WeightedArgs& args,
                             const Term* terms, int count) {
    int exponent = count ? terms[0].exponent : 0;
    counter.start([&](int level) __attribute__((always_inline)) {
        return broadcast_bit<W>(static_cast<uint64_t>(start) >> exponent >> level & 1);
    });
    const auto double_down_to = [&](int least) __attribute__((always_inline)) {
#pragma GCC unroll 1
        while (exponent > least) {
            --exponent;
#pragma GCC unroll 32
            for (int i = Levels - 1; i > 0; --i) counter.level[i] = counter.level[i - 1];
            counter.level[0] = broadcast_bit<W>(start >> exponent & 1);
        }
    };
#pragma GCC unroll 1
    for (int i = 0; i < count; ++i) {
        double_down_to(terms[i].exponent);
        add_list<Planes>(counter, at, args.taps + terms[i].list.first, terms[i].list, args.input_below);
    }
    double_down_to(0);
}

// The top bit of counter + (set where `upper` is one, clear elsewhere): how the count compares with another threshold.
template <class W, int Levels>
MBUNET_INLINE W compare_other(const Counter<W, Levels>& counter, W upper, unsigned set, unsigned clear) {
    const W addend[4] = {widen<W>(zeros()), complement(upper), upper, broadcast_bit<W>(true)};  // by a bit of either
    W carry = addend[0];
#pragma GCC unroll 32
    for (int i = 0; i + 1 < Levels; ++i)
        carry = majority(counter.level[i], addend[(set >> i & 1) << 1 | (clear >> i & 1)], carry);
    const unsigned top = Levels - 1;
    return bit_xor(bit_xor(counter.top(), carry), addend[(set >> top & 1) << 1 | (clear >> top & 1)]);
}

// One channel at one position, less `all`, the count of all inputs, where there is one. A function of its own: together
// they would be too large to be compiled well.
template <int Planes, int Levels, class W, class Some>
__attribute__((noinline)) void weighted_at(const WeightedArgs& args, const WeightedChannel& channel,
                                           const Some& segments, size_t stride, const Counter<W, Levels>* all) {
    Counter<W, Levels> counter;
    const unsigned start = (1u << (Levels - 1)) - static_cast<unsigned>(channel.at_least);
    add_terms<Planes>(counter, start, segments.at(args.group), args, args.terms + channel.first_term, channel.terms);
    if (all) {  // plus its complement and one
        W carry = broadcast_bit<W>(true);
#pragma GCC unroll 32
        for (int i = 0; i < Levels; ++i) carry = add<false>(counter.level[i], complement(all->level[i]), carry);
    }
    const W negated = broadcast_bit<W>(channel.negated), upper = counter.top();
    uint8_t* out = args.group + channel.output;
    store(out, bit_xor(upper, negated), segments, stride);
    if (args.planes == 1) return;
    const W lower =
        compare_other(counter, upper, static_cast<unsigned>(channel.to_upper), static_cast<unsigned>(channel.to_lower));
    store(out + args.below, bit_xor(lower, negated), segments, stride);
}

// All positions of a channel before the next one, or, less all inputs, which are counted once for a position, all
// channels at a position before the next one.
template <int Planes, int Levels>
inline void weighted_channels(const WeightedArgs& args, const VectorSegments& segments, size_t stride, int channel,
                              int channel_end) {
    constexpr bool kTwo = kTwoAtOnce && Levels <= 13;  // of larger counters the registers hold one
    segments.each<kTwo>([&](auto some) __attribute__((always_inline)) {
        using W = decltype(load(some.at(args.group), 0));
        Counter<W, Levels> all;
        if (args.all_terms) add_terms<Planes>(all, 0, some.at(args.group), args, args.all, args.all_terms);
        for (int c = channel; c < channel_end; ++c)
            weighted_at<Planes, Levels, W>(args, args.channels[c], some, stride, args.all_terms ? &all : nullptr);
    });
}

template <int Planes>
inline void count_planes(const WeightedArgs& args, const StridedRanges& ranges, int channel, int channel_end) {
    const int together = args.all_terms ? channel_end - channel : 1;  // channels at a position
    for (VectorSegments segments(ranges); segments.next();)
        for (int first = channel; first < channel_end; first += together) {
            int most = 0;
            for (int c = first; c < first + together; ++c) most = std::max<int>(most, args.channels[c].levels);
            with_weighted_levels(most, [&](auto size) {
                weighted_channels<Planes, decltype(size)::value>(args, segments, ranges.output_stride, first,
                                                                 first + together);
            });
        }
}

void count_weighted(const WeightedArgs& args, const StridedRanges& ranges, int channel, int channel_end) {
    if (args.input_planes == 1)
        count_planes<1>(args, ranges, channel, channel_end);
    else
        count_planes<2>(args, ranges, channel, channel_end);
}

#pragma GCC diagnostic pop
#undef MBUNET_INLINE
