// Vectors as the counting sees them, and where they stand. Included by sliced.inl, which says what V is.

#define MBUNET_INLINE inline __attribute__((always_inline))

// One vector, or two at a time.
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

// Where they stand: what the offsets of taps count from.
struct AtOne {
    const uint8_t* a;
};
struct AtTwo {
    const uint8_t *a, *b;
};
inline One load(AtOne at, uint32_t tap) { return {load(at.a + tap)}; }
inline Two load(AtTwo at, uint32_t tap) { return {load(at.a + tap), load(at.b + tap)}; }

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
struct OneSpot {
    const Spot& a;

    AtOne at(const uint8_t* group) const { return {group + a.input}; }
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

    // Calls visit(TwoSpots) or, for what is left, visit(OneSpot) with those it holds.
    template <class Visit>
    MBUNET_INLINE void each(const Visit& visit) const {
        int i = 0;
        if constexpr (kWide)
            for (; i + 2 <= count_; i += 2) visit(TwoSpots{spots_[i], spots_[i + 1]});
        for (; i < count_; ++i) visit(OneSpot{spots_[i]});
    }

  private:
    static constexpr int kMost = 2048 / sizeof(V);  // no fewer than most tasks have

    const Runs& runs_;
    const int together_;
    int run_ = 0, count_ = 0;
    size_t at_ = 0;
    Spot spots_[kMost];
};

inline void store(uint8_t* out, V v, const Spot& spot, size_t step) {
    out += spot.output;
    if (spot.bytes == sizeof(V)) return store(out, v);
    const uint8_t* from = reinterpret_cast<const uint8_t*>(&v);
    if (2 * spot.bytes == sizeof(V)) {  // most others
        memcpy(out, from, sizeof(V) / 2);
        if (spot.pieces == 2) memcpy(out + step, from + sizeof(V) / 2, sizeof(V) / 2);
        return;
    }
    for (int i = 0; i < spot.pieces; ++i, out += step, from += spot.bytes)
        for (size_t b = 0; b < spot.bytes; b += 8) memcpy(out + b, from + b, 8);
}
inline void store(uint8_t* out, One x, const OneSpot& spots, size_t step) { store(out, x.a, spots.a, step); }
inline void store(uint8_t* out, Two x, const TwoSpots& spots, size_t step) {
    store(out, x.a, spots.a, step);
    store(out, x.b, spots.b, step);
}
