// Bit-sliced counting, once for every instruction set. Included inside the set's own namespace and target region, which
// define the vector V (all its bits are independent) and:
//   load, store                       unaligned
//   spread(mask)                      an int32 (0 or -1) in every element
//   zeros(), flip(a, b), both(a, b)   constant, exclusive or, and
//   majority(a, b, c)                 of three bits
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
inline One majority(One x, One y, One z) { return {majority(x.a, y.a, z.a)}; }
inline Two majority(Two x, Two y, Two z) { return {majority(x.a, y.a, z.a), majority(x.b, y.b, z.b)}; }
template <bool Inverted>
inline One add(One& sum, One x, One y) {
    return {add<Inverted>(sum.a, x.a, y.a)};
}
template <bool Inverted>
inline Two add(Two& sum, Two x, Two y) {
    const V a = add<Inverted>(sum.a, x.a, y.a);
    return {a, add<Inverted>(sum.b, x.b, y.b)};
}

// Loops over high levels stay loops: unrolled, compilers spread the levels over registers that they do not have.
#define MBUNET_ROLLED _Pragma("GCC unroll 1")

constexpr int kHigh = 13;  // levels 16 ... 65536 of a count

// The count of the inputs at W's positions, one bit per level: 1, 2, 4 and 8 in registers, from 16 on in memory. A high
// level holds a sum and, where its bit of `sixteens` is set, a second bit that waits to be added with a third.
template <class W>
struct Counter {
    W one, two, four, eight;
    W high[kHigh], pending[kHigh];
    unsigned sixteens = 0;

    explicit Counter(int levels) : one(wide<W>(zeros())), two(one), four(one), eight(one) {
        MBUNET_ROLLED
        for (int i = 0; i < levels; ++i) high[i] = one;
    }

    // Adds one bit of weight 16; carries run up the levels as in a binary counter.
    inline __attribute__((always_inline)) void add_sixteen(W carry) {
        int level = 0;
        MBUNET_ROLLED
        for (unsigned n = sixteens++; n & 1; n >>= 1, ++level) carry = add<false>(high[level], pending[level], carry);
        pending[level] = carry;
    }
};

// Inputs at one position: taps[i] is the address of input i.
template <class W>
struct Inputs {
    const uint8_t* at;
    inline __attribute__((always_inline)) W operator()(const uint32_t* taps, int i) const {
        return load_wide<W>(at + taps[i]);
    }
};

// The same for inputs of either sign: behind their `count` addresses stand as many masks, -1 for weight -1.
template <class W>
struct SignedInputs {
    const uint8_t* at;
    int count;
    inline __attribute__((always_inline)) W operator()(const uint32_t* taps, int i) const {
        return flip(load_wide<W>(at + taps[i]), wide<W>(spread(static_cast<int32_t>(taps[i + count]))));
    }
};

template <bool Inverted, class W, class In>
inline __attribute__((always_inline)) W add_2(Counter<W>& c, const In& in, const uint32_t* taps) {
    return add<Inverted>(c.one, in(taps, 0), in(taps, 1));
}
template <bool Inverted, class W, class In>
inline __attribute__((always_inline)) W add_4(Counter<W>& c, const In& in, const uint32_t* taps) {
    const W first = add_2<Inverted>(c, in, taps);
    return add<Inverted>(c.two, first, add_2<Inverted>(c, in, taps + 2));
}
template <bool Inverted, class W, class In>
inline __attribute__((always_inline)) W add_8(Counter<W>& c, const In& in, const uint32_t* taps) {
    const W first = add_4<Inverted>(c, in, taps);
    return add<Inverted>(c.four, first, add_4<Inverted>(c, in, taps + 4));
}
template <bool Inverted, class W, class In>
inline __attribute__((always_inline)) W add_16(Counter<W>& c, const In& in, const uint32_t* taps) {
    const W first = add_8<Inverted>(c, in, taps);
    const W carry = add<Inverted>(c.eight, first, add_8<Inverted>(c, in, taps + 8));
    if constexpr (Inverted) return flip(carry, wide<W>(spread(-1)));
    return carry;
}

// The first inputs of a list, fewer than 32, of either sign. They come first because the levels are still empty: the
// carry of two inputs is the level of 2, that of four the level of 4, nothing has to run up.
template <class W>
inline __attribute__((always_inline)) void add_rest(Counter<W>& c, const uint8_t* at, const uint32_t* taps, int count) {
    const SignedInputs<W> in{at, count};
    if (count & 1) c.one = in(taps++, 0);
    if (count & 2) {
        c.two = add_2<false>(c, in, taps);
        taps += 2;
    }
    if (count & 4) {
        c.four = add_4<false>(c, in, taps);
        taps += 4;
    }
    if (count & 8) {
        c.eight = add_8<false>(c, in, taps);
        taps += 8;
    }
    if (count & 16) c.add_sixteen(add_16<false>(c, in, taps));
}

template <class W>
inline __attribute__((always_inline)) void add_all(Counter<W>& c, const uint8_t* at, const uint32_t* taps,
                                                   const TapList& list) {
    add_rest(c, at, taps, list.rest);
    taps += 2 * list.rest;
    const Inputs<W> in{at};
    for (int i = 0; i < list.positive; ++i, taps += 16) c.add_sixteen(add_16<false>(c, in, taps));
    for (int i = 0; i < list.negative; ++i, taps += 16) c.add_sixteen(add_16<true>(c, in, taps));
}

// The levels of the settled count, from the lowest up.
template <class W, class Level>
inline __attribute__((always_inline)) void each_level(Counter<W>& c, int high_levels, const Level& level) {
    level(c.one);
    level(c.two);
    level(c.four);
    level(c.eight);
    W carry = wide<W>(zeros());
    MBUNET_ROLLED
    for (int i = 0; i < high_levels; ++i) {
        W sum = c.high[i];
        const W second = c.sixteens >> i & 1 ? c.pending[i] : wide<W>(zeros());
        carry = add<false>(sum, second, carry);
        level(sum);
    }
}

// Levels from 16 on that a count of up to `inputs` needs.
inline int high_levels(int inputs) {
    const int levels = 32 - __builtin_clz(static_cast<unsigned>(inputs) | 1u);
    return levels > 4 ? levels - 4 : 0;
}

inline int list_inputs(const TapList& list) { return list.rest + 16 * (list.positive + list.negative); }

template <class W>
inline void count_channel(const CountArgs& args, const CountedChannel& channel, size_t position) {
    uint8_t* out = args.out + static_cast<size_t>(channel.output) * args.out_plane + position;
    const W valid = load_wide<W>(args.valid + position);
    const int inputs = list_inputs(channel.list);
    if (channel.at_least <= 0 || channel.at_least > inputs) {
        store_wide(out, channel.at_least <= 0 ? valid : wide<W>(zeros()));
        return;
    }
    const int levels = high_levels(inputs);
    Counter<W> counter(levels);
    add_all(counter, args.arena + position, args.taps + channel.list.first, channel.list);
    // count >= at_least, from the lowest bit up: the higher bit decides where it differs from the constant's
    W reached = wide<W>(spread(-1));
    unsigned below = ~static_cast<unsigned>(channel.at_least);
    each_level(counter, levels, [&](W sum) __attribute__((always_inline)) {
        reached = majority(sum, wide<W>(spread(-static_cast<int32_t>(below & 1))), reached);
        below >>= 1;
    });
    store_wide(out, both(reached, valid));
}

void count(const CountArgs& args, size_t begin, size_t end, int channel, int channel_end) {
    // all positions of a channel before the next one: its branches go the same way each time
    for (; channel < channel_end; ++channel) {
        size_t position = begin;
        if constexpr (kWide)
            for (; position + sizeof(Two) <= end; position += sizeof(Two))
                count_channel<Two>(args, args.channels[channel], position);
        for (; position < end; position += sizeof(One)) count_channel<One>(args, args.channels[channel], position);
    }
}

// Without zeros: with S the ones among the inputs of one sign and A those among all, the dot product is
// 2 (2 S - A) + const for the positive sign and its negative for the other, so the shorter list is enough.
template <class W>
inline void dense_channel(const DenseArgs& args, const DenseChannel& channel, const W* total, size_t position) {
    const int levels = high_levels(list_inputs(channel.list));
    Counter<W> counter(levels);
    add_all(counter, args.arena + position, args.taps + channel.list.first, channel.list);
    // sign bit of 2 S + constant - A over args.levels bits: two carry chains, one of them a level behind
    W carry = wide<W>(zeros()), chain = carry, sign = carry;
    unsigned constant = static_cast<unsigned>(channel.constant);
    int level = 0;
    const auto next = [&](W doubled) __attribute__((always_inline)) {
        W sum = flip(total[level++], wide<W>(spread(-1)));
        const W up = add<false>(sum, doubled, wide<W>(spread(-static_cast<int32_t>(constant & 1))));
        chain = add<false>(sum, carry, chain);
        carry = up;
        sign = sum;
        constant >>= 1;
    };
    next(wide<W>(zeros()));
    each_level(counter, levels, next);
    while (level < args.levels) next(wide<W>(zeros()));
    const W flipped = wide<W>(spread(channel.negated ? 0 : -1));
    store_wide(args.out + static_cast<size_t>(channel.output) * args.out_plane + position,
               both(flip(sign, flipped), load_wide<W>(args.valid + position)));
}

template <class W>
inline void dense_tile(const DenseArgs& args, size_t position, int channel, int channel_end) {
    Counter<W> counter(high_levels(list_inputs(args.all)));
    add_all(counter, args.arena + position, args.taps + args.all.first, args.all);
    W total[32];
    int level = 0;
    each_level(counter, high_levels(list_inputs(args.all)), [&](W sum) { total[level++] = sum; });
    while (level < args.levels) total[level++] = wide<W>(zeros());
    for (; channel < channel_end; ++channel) dense_channel<W>(args, args.channels[channel], total, position);
}

void count_dense(const DenseArgs& args, size_t begin, size_t end, int channel, int channel_end) {
    if constexpr (kWide)
        for (; begin + sizeof(Two) <= end; begin += sizeof(Two)) dense_tile<Two>(args, begin, channel, channel_end);
    for (; begin < end; begin += sizeof(One)) dense_tile<One>(args, begin, channel, channel_end);
}

#undef MBUNET_ROLLED
