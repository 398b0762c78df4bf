// Bit-sliced counting, once for every instruction set. Included inside the set's own namespace and target region, which
// define the vector V (all its bits are independent) and:
//   load, store                       unaligned
//   spread(mask)                      an int32 (0 or -1) in every element
//   zeros(), flip(a, b), both(a, b)   constant, exclusive or, and
//   add<Inverted>(sum, x, y)          carry-save addition, see below
//   kWide                             whether two vectors side by side are worth their registers
//
// Carry-save addition: sum becomes the lowest bit of sum + x + y, the carry (majority) is returned. With Inverted, x, y
// and the returned carry stand complemented: two complements leave the sum bit alone, so inputs of weight -1, which
// count when they are zero, cost nothing extra, and one complement at the end of a block sets it right.

// One vector, or two side by side.
struct One {
    V a;
};
struct Two {
    V a, b;
};

template <class W>
W wide(V v) {
    if constexpr (sizeof(W) == sizeof(V))
        return {v};
    else
        return {v, v};
}
template <class W>
inline W load_wide(const uint8_t* p) {
    if constexpr (sizeof(W) == sizeof(V))
        return {load(p)};
    else
        return {load(p), load(p + sizeof(V))};
}
inline void store_wide(uint8_t* p, One x) { store(p, x.a); }
inline void store_wide(uint8_t* p, Two x) {
    store(p, x.a);
    store(p + sizeof(V), x.b);
}
inline One flip(One x, One y) { return {flip(x.a, y.a)}; }
inline Two flip(Two x, Two y) { return {flip(x.a, y.a), flip(x.b, y.b)}; }
inline One both(One x, One y) { return {both(x.a, y.a)}; }
inline Two both(Two x, Two y) { return {both(x.a, y.a), both(x.b, y.b)}; }
template <bool Inverted>
inline One add(One& sum, One x, One y) {
    return {add<Inverted>(sum.a, x.a, y.a)};
}
template <bool Inverted>
inline Two add(Two& sum, Two x, Two y) {
    const V a = add<Inverted>(sum.a, x.a, y.a);
    return {a, add<Inverted>(sum.b, x.b, y.b)};
}

#define MBUNET_INLINE inline __attribute__((always_inline))

template <class W>
MBUNET_INLINE W everywhere(bool bit) {
    return wide<W>(spread(-static_cast<int32_t>(bit)));
}
template <class W>
MBUNET_INLINE W complement(W x) {
    return flip(x, everywhere<W>(true));
}

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
            const W up = both(level[i], carry);
            level[i] = flip(level[i], carry);
            carry = up;
        }
    }
    // Adds two bits of weight 2^From; costs hardly more than one.
    template <int From>
    MBUNET_INLINE void add_bits(W x, W y) {
        add_bit<From + 1>(add<false>(level[From], x, y));
    }
    MBUNET_INLINE W top() const { return level[Levels - 1]; }
};

// Adds 4 inputs (8, 16) to the levels below; returns the carry of that weight, complemented if Inverted.
template <bool Inverted, class C>
MBUNET_INLINE auto add_4(C& c, const uint8_t* at, const uint32_t* taps) {
    using W = decltype(c.top());
    const W first = add<Inverted>(c.level[0], load_wide<W>(at + taps[0]), load_wide<W>(at + taps[1]));
    const W second = add<Inverted>(c.level[0], load_wide<W>(at + taps[2]), load_wide<W>(at + taps[3]));
    return add<Inverted>(c.level[1], first, second);
}
template <bool Inverted, class C>
MBUNET_INLINE auto add_8(C& c, const uint8_t* at, const uint32_t* taps) {
    const auto first = add_4<Inverted>(c, at, taps);
    return add<Inverted>(c.level[2], first, add_4<Inverted>(c, at, taps + 4));
}
template <bool Inverted, class C>
MBUNET_INLINE auto add_16(C& c, const uint8_t* at, const uint32_t* taps) {
    const auto first = add_8<Inverted>(c, at, taps);
    return add<Inverted>(c.level[3], first, add_8<Inverted>(c, at, taps + 8));
}

// A list being added: `positive` units of weight +1 come first, all others are of weight -1. Which it is goes the same
// way at every position of a channel, so the branch is foreseen.
struct Taps {
    const uint8_t* at;
    const uint32_t* next;

    template <class C>
    MBUNET_INLINE auto quad(C& c, int& positive) {
        const uint32_t* taps = next;
        next += 4;
        return positive-- > 0 ? add_4<false>(c, at, taps) : complement(add_4<true>(c, at, taps));
    }
    template <class C>
    MBUNET_INLINE auto block(C& c, int& positive) {
        const uint32_t* taps = next;
        next += 16;
        return positive-- > 0 ? add_16<false>(c, at, taps) : complement(add_16<true>(c, at, taps));
    }
};

// Adds all inputs of `list`.
template <class C>
MBUNET_INLINE void add_list(C& c, const uint8_t* at, const uint32_t* taps, const TapList& list) {
    Taps in{at, taps};
    int positive = list.positive_quads;
    const int quads = positive + list.negative_quads;
    if (quads & 1) c.template add_bit<2>(in.quad(c, positive));
    if (quads & 2) {
        const auto first = in.quad(c, positive);
        c.template add_bits<2>(first, in.quad(c, positive));
    }
    if (quads & 4) {
        auto first = in.quad(c, positive);
        first = add<false>(c.level[2], first, in.quad(c, positive));
        auto second = in.quad(c, positive);
        second = add<false>(c.level[2], second, in.quad(c, positive));
        c.template add_bits<3>(first, second);
    }
    positive = list.positive_blocks;
    const int blocks = positive + list.negative_blocks;
    if (blocks & 1) c.template add_bit<4>(in.block(c, positive));
    for (int i = blocks / 2; i; --i) {
        const auto first = in.block(c, positive);
        c.template add_bits<4>(first, in.block(c, positive));
    }
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
template <class W, int Levels>
MBUNET_INLINE void count_at(const CountArgs& args, const CountedChannel& channel, size_t position) {
    const unsigned start = (1u << (Levels - 1)) - static_cast<unsigned>(channel.at_least);
    Counter<W, Levels> counter;
    counter.start([&](int level) __attribute__((always_inline)) { return everywhere<W>(start >> level & 1); });
    add_list(counter, args.arena + position, args.taps + channel.list.first, channel.list);
    store_wide(args.out + static_cast<size_t>(channel.output) * args.out_plane + position,
               both(counter.top(), load_wide<W>(args.valid + position)));
}

// Calls `at` for two vectors side by side as often as they fit, then for one.
template <class At>
MBUNET_INLINE void each_position(size_t begin, size_t end, const At& at) {
    if constexpr (kWide)
        for (; begin + sizeof(Two) <= end; begin += sizeof(Two)) at(Two{}, begin);
    for (; begin < end; begin += sizeof(One)) at(One{}, begin);
}

// A channel whose bit is everywhere the same.
void constant_channel(const CountArgs& args, const CountedChannel& channel, size_t begin, size_t end) {
    uint8_t* out = args.out + static_cast<size_t>(channel.output) * args.out_plane;
    if (channel.at_least <= 0)
        memcpy(out + begin, args.valid + begin, end - begin);
    else
        memset(out + begin, 0, end - begin);
}

// Levels of a counter for `inputs` inputs: the top one is 0 for counts below `inputs`.
inline int levels_of(int inputs) { return inputs > 1 ? 33 - __builtin_clz(static_cast<unsigned>(inputs - 1)) : 1; }

void count(const CountArgs& args, size_t begin, size_t end, int channel, int channel_end) {
    // all positions of a channel before the next one: its branches go the same way each time
    for (; channel < channel_end; ++channel) {
        const CountedChannel& own = args.channels[channel];
        const int inputs = own.list.inputs();
        if (own.at_least <= 0 || own.at_least > inputs)
            constant_channel(args, own, begin, end);
        else
            with_levels(levels_of(inputs), [&](auto size) {
                each_position(begin, end, [&](auto w, size_t position) {
                    count_at<decltype(w), decltype(size)::value>(args, own, position);
                });
            });
    }
}

// Without zeros: with S the ones among the inputs of one sign and A those among all, the dot product is
// 2 (2 S - A) + const for the positive sign and its negative for the other, so the shorter list is enough:
// bit = 2 S + constant > A, that is S + floor(constant / 2) >= ceil((A + even) / 2) with even = 1 for even constants.
// The right side is the same for all channels of either kind, so counters start at floor(constant / 2) minus it.
template <class W, int Levels>
struct Totals {
    W minus[2][Levels];  // -ceil((A + even) / 2) - 1 in two's complement, by `even`

    explicit Totals(const Counter<W, Levels>& all) {
        const W carry[2] = {all.level[0], everywhere<W>(true)};  // ceil(x / 2) is floor(x / 2), and 1 where x is odd
        for (int even = 0; even < 2; ++even) {
            W up = carry[even];
#pragma GCC unroll 1
            for (int i = 0; i + 1 < Levels; ++i) {
                minus[even][i] = complement(flip(all.level[i + 1], up));
                up = both(all.level[i + 1], up);
            }
            minus[even][Levels - 1] = everywhere<W>(true);
        }
    }
};

template <class W, int Levels>
MBUNET_INLINE void dense_at(const DenseArgs& args, const DenseChannel& channel, const Totals<W, Levels>& totals,
                            size_t position) {
    const W* minus = totals.minus[~channel.constant & 1];
    const unsigned plus = static_cast<unsigned>(channel.constant >> 1) + 1;
    W carry = wide<W>(zeros());
    Counter<W, Levels> counter;
    counter.start([&](int level) __attribute__((always_inline)) {
        W sum = minus[level];
        carry = add<false>(sum, everywhere<W>(plus >> level & 1), carry);
        return sum;
    });
    add_list(counter, args.arena + position, args.taps + channel.list.first, channel.list);
    const W reached = flip(counter.top(), everywhere<W>(!channel.negated));  // the sign bit is 0 from 0 on
    store_wide(args.out + static_cast<size_t>(channel.output) * args.out_plane + position,
               both(reached, load_wide<W>(args.valid + position)));
}

void count_dense(const DenseArgs& args, size_t begin, size_t end, int channel, int channel_end) {
    with_levels(args.levels, [&](auto size) {
        constexpr int kLevels = decltype(size)::value;
        each_position(begin, end, [&](auto w, size_t position) {
            using W = decltype(w);
            Counter<W, kLevels> all;
            all.start([](int) __attribute__((always_inline)) { return wide<W>(zeros()); });
            add_list(all, args.arena + position, args.taps + args.all.first, args.all);
            const Totals<W, kLevels> totals(all);
            for (int i = channel; i < channel_end; ++i) dense_at<W, kLevels>(args, args.channels[i], totals, position);
        });
    });
}

#undef MBUNET_INLINE
