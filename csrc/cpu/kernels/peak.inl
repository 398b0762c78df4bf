// The ceiling of bit-sliced counting: about one carry-save addition for every vector read, in the order in which they
// lie, for counters that do not wait for each other. Included like sliced.inl, with Vec, load, store, zeros, bit_xor
// and add.

// Adds 2^(Level + 1) vectors to the levels up to `Level`; returns the carry.
template <int Level>
inline __attribute__((always_inline)) Vec peak_tree(Vec* level, const uint8_t* at) {
    if constexpr (Level == 0) {
        return add<false>(level[0], load<Vec>(at), load<Vec>(at + sizeof(Vec)));
    } else {
        const Vec first = peak_tree<Level - 1>(level, at);
        return add<false>(level[Level], first, peak_tree<Level - 1>(level, at + (sizeof(Vec) << Level)));
    }
}

// See Kernels::peak.
void peak(const uint8_t* data, size_t bytes, int rounds, uint8_t* sink) {
    constexpr int kLevels = 4;
    constexpr size_t kBlock = sizeof(Vec) << kLevels;
    Vec even[kLevels], odd[kLevels], top = zeros();
    for (int i = 0; i < kLevels; ++i) even[i] = odd[i] = zeros();
    for (; rounds; --rounds)
        for (size_t at = 0; at < bytes; at += 2 * kBlock) {
            const Vec first = peak_tree<kLevels - 1>(even, data + at);
            top = bit_xor(top, add<false>(even[0], first, peak_tree<kLevels - 1>(odd, data + at + kBlock)));
        }
    for (int i = 0; i < kLevels; ++i) top = bit_xor(top, bit_xor(even[i], odd[i]));
    store(sink, top);
}
