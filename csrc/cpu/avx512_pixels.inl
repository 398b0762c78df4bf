// First layer on AVX-512. Included where add_pairs(sums, pixels, weights), which adds two products to every int32, is
// defined by what the set has for it.

void pixels(const PixelArgs& args, const int32_t* const* pairs, uint8_t* bits) {
    __m512i x[kPixelPairs];
    for (int i = 0; i < kPixelPairs; ++i) x[i] = _mm512_loadu_si512(pairs[i]);
    for (int channel = 0; channel < args.channels; ++channel, bits += kLine) {
        const int32_t* weights = args.weights + channel * kPixelStride;
        __m512i sums[3] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
        for (int i = 0; i < kPixelPairs; ++i) sums[i % 3] = add_pairs(sums[i % 3], x[i], _mm512_set1_epi32(weights[i]));
        const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(sums[0], sums[1]), sums[2]);
        const __mmask16 fired = _mm512_cmpge_epi32_mask(sum, _mm512_set1_epi32(args.theta[channel]));
        memcpy(bits, &fired, sizeof fired);
    }
}
