// First layer on AVX-512. Included where add_pairs(sums, pixels, weights), which adds two products to every int32, is
// defined by what the set has for it.

// Channels side by side: enough chains of additions that none is waited for.
template <int Channels>
inline void pixel_channels(const __m512i* x, const int32_t* weights, const int32_t* theta, uint8_t* bits) {
    __m512i sums[Channels] = {};
#pragma GCC unroll 16
    for (int i = 0; i < kPixelPairs; ++i)
#pragma GCC unroll 16
        for (int c = 0; c < Channels; ++c)
            sums[c] = add_pairs(sums[c], x[i], _mm512_set1_epi32(weights[c * kPixelStride + i]));
#pragma GCC unroll 16
    for (int c = 0; c < Channels; ++c) {
        const __mmask16 fired = _mm512_cmpge_epi32_mask(sums[c], _mm512_set1_epi32(theta[c]));
        memcpy(bits + c * kLine, &fired, sizeof fired);
    }
}

void pixels(const PixelArgs& args, const uint32_t* const* taps, uint8_t* bits) {
    constexpr int kSide = 8;
    const PixelPairs in(taps, 0);
    __m512i x[kPixelPairs];
    for (int i = 0; i < kPixelPairs; ++i) x[i] = (__m512i)in.pairs[i];
    const int32_t *weights = args.weights, *theta = args.theta;
    int left = args.channels;
    for (; left >= kSide; left -= kSide, weights += kSide * kPixelStride, theta += kSide, bits += kSide * kLine)
        pixel_channels<kSide>(x, weights, theta, bits);
    for (; left; --left, weights += kPixelStride, ++theta, bits += kLine) pixel_channels<1>(x, weights, theta, bits);
}
