// First layer on AVX-512. Included where add_pairs(sums, pixels, weights), which adds two products to every int32, is
// defined by what the set has for it.

// Channels side by side: enough chains of additions that none is waited for, and each weight is read for all lanes.
template <int Channels, int Levels>
inline void stem_channels(const PixelPairs* in, const int32_t* weights, const int32_t* theta, uint8_t* bits) {
    __m512i sums[2][Channels] = {};
#pragma GCC unroll 16
    for (int i = 0; i < kStemPairs; ++i)
#pragma GCC unroll 16
        for (int c = 0; c < Channels; ++c) {
            const __m512i weight = _mm512_set1_epi32(weights[c * kStemStride + i]);
            sums[0][c] = add_pairs(sums[0][c], (__m512i)in[0].pairs[i], weight);
            sums[1][c] = add_pairs(sums[1][c], (__m512i)in[1].pairs[i], weight);
        }
#pragma GCC unroll 16
    for (int c = 0; c < Channels; ++c)
#pragma GCC unroll 3
        for (int level = 0; level < Levels; ++level, ++theta, bits += kLine) {
            const __m512i least = _mm512_set1_epi32(*theta);
            const __mmask32 fired =
                _mm512_kunpackw(_mm512_cmpge_epi32_mask(sums[1][c], least), _mm512_cmpge_epi32_mask(sums[0][c], least));
            memcpy(bits, &fired, sizeof fired);
        }
}

template <int Levels>
inline void stem_levels(const StemArgs& args, const uint32_t* const* taps, uint8_t* bits) {
    constexpr int kAtOnce = 8;
    const PixelPairs in[2] = {{taps, 0}, {taps, kPairedLanes}};
    const int32_t *weights = args.weights, *theta = args.theta;
    const auto run = [&](auto at_once) __attribute__((always_inline)) {
        constexpr int kChannels = decltype(at_once)::value;
        (stem_channels<kChannels, Levels>)(in, weights, theta, bits);  // in brackets: this namespace's own
        weights += kChannels * kStemStride;
        theta += kChannels * Levels;
        bits += static_cast<size_t>(kChannels * Levels) * kLine;
    };
    int left = args.channels;
    for (; left >= kAtOnce; left -= kAtOnce) run(std::integral_constant<int, kAtOnce>{});
    for (; left; --left) run(std::integral_constant<int, 1>{});
}

void stem(const StemArgs& args, const uint32_t* const* taps, uint8_t* bits) {
    args.levels == 1 ? (stem_levels<1>)(args, taps, bits) : (stem_levels<3>)(args, taps, bits);
}
