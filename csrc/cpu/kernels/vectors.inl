// Vectors as the counting sees them, and where they stand. Included by sliced.inl, which says what Vec and HalfVec are.

#define MBUNET_INLINE inline __attribute__((always_inline))

// One vector (or half of one), or two at a time.
template <class U>
struct One {
    U a;
};
struct Two {
    Vec a, b;
};

template <class W>
W widen(Vec v) {
    if constexpr (sizeof(W) > sizeof(Vec)) return {v, v};
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
inline Two load(AtTwo at, uint32_t tap) { return {load<Vec>(at.a + tap), load<Vec>(at.b + tap)}; }
template <class U>
inline AtOne<U> behind(AtOne<U> at, size_t bytes) {
    return {at.a + bytes};
}
inline AtTwo behind(AtTwo at, size_t bytes) { return {at.a + bytes, at.b + bytes}; }

template <class U>
inline One<U> bit_xor(One<U> x, One<U> y) {
    return {bit_xor(x.a, y.a)};
}
inline Two bit_xor(Two x, Two y) { return {bit_xor(x.a, y.a), bit_xor(x.b, y.b)}; }
template <class U>
inline One<U> bit_and(One<U> x, One<U> y) {
    return {bit_and(x.a, y.a)};
}
inline Two bit_and(Two x, Two y) { return {bit_and(x.a, y.a), bit_and(x.b, y.b)}; }
template <class U>
inline One<U> majority(One<U> x, One<U> y, One<U> z) {
    return {majority(x.a, y.a, z.a)};
}
inline Two majority(Two x, Two y, Two z) { return {majority(x.a, y.a, z.a), majority(x.b, y.b, z.b)}; }
template <bool Inverted, class U>
inline One<U> add(One<U>& sum, One<U> x, One<U> y) {
    return {add<Inverted>(sum.a, x.a, y.a)};
}
template <bool Inverted>
inline Two add(Two& sum, Two x, Two y) {
    const Vec a = add<Inverted>(sum.a, x.a, y.a);
    return {a, add<Inverted>(sum.b, x.b, y.b)};
}

template <class W>
MBUNET_INLINE W broadcast_bit(bool bit) {
    return widen<W>(broadcast(-static_cast<int32_t>(bit)));
}
template <class W>
MBUNET_INLINE W complement(W x) {
    return bit_xor(x, broadcast_bit<W>(true));
}

// A vector's worth of strided ranges: where it is read, and how many ranges of `bytes` bytes it holds.
struct VectorSegment {
    size_t input, output, bytes;
    int ranges;
};
template <class U>
struct OneSegment {
    const VectorSegment& a;

    AtOne<U> at(const uint8_t* group) const { return {group + a.input}; }
};
struct TwoSegments {
    const VectorSegment &a, &b;

    AtTwo at(const uint8_t* group) const { return {group + a.input, group + b.input}; }
};

// The vectors of `ranges`, some at a time. Short ranges that follow each other in the input share one.
class VectorSegments {
  public:
    explicit VectorSegments(const StridedRanges& ranges)
        : ranges_(ranges),
          together_(ranges.input_stride == ranges.bytes ? std::max(1, static_cast<int>(sizeof(Vec) / ranges.bytes))
                                                        : 1) {}

    // Holds the next ones; false where there are none left.
    bool next() {
        for (count_ = 0; count_ < kMost && range_ < ranges_.count; ++count_) {
            const auto range = static_cast<size_t>(range_);
            segments_[count_] = {ranges_.input + range * ranges_.input_stride + at_,
                                 ranges_.output + range * ranges_.output_stride + at_,
                                 std::min(sizeof(Vec), ranges_.bytes - at_),
                                 std::min(together_, ranges_.count - range_)};
            at_ += sizeof(Vec);
            if (at_ < ranges_.bytes) continue;
            at_ = 0;
            range_ += together_;
        }
        return count_;
    }

    // Calls visit(TwoSegments), if Pairs, or, for what is left, visit(OneSegment<Vec>) or visit(OneSegment<HalfVec>)
    // with those it holds.
    template <bool Pairs, class Visit>
    MBUNET_INLINE void each(const Visit& visit) const {
        int i = 0;
        if constexpr (Pairs)
            for (; i + 2 <= count_; i += 2) visit(TwoSegments{segments_[i], segments_[i + 1]});
        for (; i < count_; ++i) {
            if constexpr (sizeof(HalfVec) < sizeof(Vec))
                if (segments_[i].bytes * static_cast<size_t>(segments_[i].ranges) <= sizeof(HalfVec)) {
                    visit(OneSegment<HalfVec>{segments_[i]});
                    continue;
                }
            visit(OneSegment<Vec>{segments_[i]});
        }
    }

  private:
    static constexpr int kMost = 2048 / sizeof(Vec);  // no fewer than most tasks have

    const StridedRanges& ranges_;
    const int together_;
    int range_ = 0, count_ = 0;
    size_t at_ = 0;
    VectorSegment segments_[kMost];
};

template <class U>
inline void store(uint8_t* out, U v, const VectorSegment& segment, size_t stride) {
    out += segment.output;
    if (segment.bytes == sizeof(U)) return store(out, v);
    const uint8_t* from = reinterpret_cast<const uint8_t*>(&v);
    if (sizeof(U) == sizeof(Vec) && 2 * segment.bytes == sizeof(Vec)) {  // most others
        memcpy(out, from, sizeof(Vec) / 2);
        if (segment.ranges == 2) memcpy(out + stride, from + sizeof(Vec) / 2, sizeof(Vec) / 2);
        return;
    }
    for (int i = 0; i < segment.ranges; ++i, out += stride, from += segment.bytes)
        for (size_t b = 0; b < segment.bytes; b += 8) memcpy(out + b, from + b, 8);
}
template <class U>
inline void store(uint8_t* out, One<U> x, const OneSegment<U>& segments, size_t stride) {
    store(out, x.a, segments.a, stride);
}
inline void store(uint8_t* out, Two x, const TwoSegments& segments, size_t stride) {
    store(out, x.a, segments.a, stride);
    store(out, x.b, segments.b, stride);
}
