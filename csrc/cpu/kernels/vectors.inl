// Vectors as the counting sees them, and where they stand. Included by sliced.inl, which says what V and H are.

#define MBUNET_INLINE inline __attribute__((always_inline))

// One vector (or half of one), or two at a time.
template <class U>
struct One {
    U a;
};
struct Two {
    V a, b;
};

template <class W>
W wide(V v) {
    if constexpr (sizeof(W) > sizeof(V)) return {v, v};
    W first;
    memcpy(&first, &v, sizeof first);
    return first;
}

// Where they stand: what the offsets of taps count from.
template <class U>
struct AtOne {
    const uint8_t* a;
};
struct AtTwo {
    const uint8_t *a, *b;
};
template <class U>
inline One<U> load(AtOne<U> at, uint32_t tap) {
    return {load<U>(at.a + tap)};
}
inline Two load(AtTwo at, uint32_t tap) { return {load<V>(at.a + tap), load<V>(at.b + tap)}; }

template <class U>
inline One<U> flip(One<U> x, One<U> y) {
    return {flip(x.a, y.a)};
}
inline Two flip(Two x, Two y) { return {flip(x.a, y.a), flip(x.b, y.b)}; }
template <class U>
inline One<U> both(One<U> x, One<U> y) {
    return {both(x.a, y.a)};
}
inline Two both(Two x, Two y) { return {both(x.a, y.a), both(x.b, y.b)}; }
template <bool Inverted, class U>
inline One<U> add(One<U>& sum, One<U> x, One<U> y) {
    return {add<Inverted>(sum.a, x.a, y.a)};
}
template <bool Inverted>
inline Two add(Two& sum, Two x, Two y) {
    const V a = add<Inverted>(sum.a, x.a, y.a);
    return {a, add<Inverted>(sum.b, x.b, y.b)};
}

template <class W>
MBUNET_INLINE W everywhere(bool bit) {
    return wide<W>(spread(-static_cast<int32_t>(bit)));
}
template <class W>
MBUNET_INLINE W complement(W x) {
    return flip(x, everywhere<W>(true));
}

// A vector of some runs: where it is read, and its pieces of `bytes` bytes, which belong to one run each.
struct Spot {
    size_t input, output, bytes;
    int pieces;
};
template <class U>
struct OneSpot {
    const Spot& a;

    AtOne<U> at(const uint8_t* group) const { return {group + a.input}; }
};
struct TwoSpots {
    const Spot &a, &b;

    AtTwo at(const uint8_t* group) const { return {group + a.input, group + b.input}; }
};

// The vectors of `runs`, some at a time. Short runs that follow each other in the input share one.
class Spots {
  public:
    explicit Spots(const Runs& runs)
        : runs_(runs),
          together_(runs.input_step == runs.bytes ? std::max(1, static_cast<int>(sizeof(V) / runs.bytes)) : 1) {}

    // Holds the next ones; false where there are none left.
    bool next() {
        for (count_ = 0; count_ < kMost && run_ < runs_.count; ++count_) {
            const auto run = static_cast<size_t>(run_);
            spots_[count_] = {runs_.input + run * runs_.input_step + at_, runs_.output + run * runs_.output_step + at_,
                              std::min(sizeof(V), runs_.bytes - at_), std::min(together_, runs_.count - run_)};
            at_ += sizeof(V);
            if (at_ < runs_.bytes) continue;
            at_ = 0;
            run_ += together_;
        }
        return count_;
    }

    // Calls visit(TwoSpots) or, for what is left, visit(OneSpot<V>) or visit(OneSpot<H>) with those it holds.
    template <class Visit>
    MBUNET_INLINE void each(const Visit& visit) const {
        int i = 0;
        if constexpr (kWide)
            for (; i + 2 <= count_; i += 2) visit(TwoSpots{spots_[i], spots_[i + 1]});
        for (; i < count_; ++i) {
            if constexpr (sizeof(H) < sizeof(V))
                if (spots_[i].bytes * static_cast<size_t>(spots_[i].pieces) <= sizeof(H)) {
                    visit(OneSpot<H>{spots_[i]});
                    continue;
                }
            visit(OneSpot<V>{spots_[i]});
        }
    }

  private:
    static constexpr int kMost = 2048 / sizeof(V);  // no fewer than most tasks have

    const Runs& runs_;
    const int together_;
    int run_ = 0, count_ = 0;
    size_t at_ = 0;
    Spot spots_[kMost];
};

template <class U>
inline void store(uint8_t* out, U v, const Spot& spot, size_t step) {
    out += spot.output;
    if (spot.bytes == sizeof(U)) return store(out, v);
    const uint8_t* from = reinterpret_cast<const uint8_t*>(&v);
    if (sizeof(U) == sizeof(V) && 2 * spot.bytes == sizeof(V)) {  // most others
        memcpy(out, from, sizeof(V) / 2);
        if (spot.pieces == 2) memcpy(out + step, from + sizeof(V) / 2, sizeof(V) / 2);
        return;
    }
    for (int i = 0; i < spot.pieces; ++i, out += step, from += spot.bytes)
        for (size_t b = 0; b < spot.bytes; b += 8) memcpy(out + b, from + b, 8);
}
template <class U>
inline void store(uint8_t* out, One<U> x, const OneSpot<U>& spots, size_t step) {
    store(out, x.a, spots.a, step);
}
inline void store(uint8_t* out, Two x, const TwoSpots& spots, size_t step) {
    store(out, x.a, spots.a, step);
    store(out, x.b, spots.b, step);
}
