// First layer on AVX-512. Included where add_pairs(sums, pixels, weights), which adds two products to every int32, is
// defined by what the set has for it.

void pixels(const PixelArgs& args, const PixelRows& rows, uint8_t* bits, size_t stride) {
    __m512i x[kPixelPairs];
    for (int row = 0; row < 3; ++row) {
        for (int i = 0; i < 3; ++i) x[row * 5 + i] = _mm512_loadu_si512(rows.red_green[row] - 1 + i);
        x[row * 5 + 3] = _mm512_loadu_si512(rows.blue[row] - 1);
        x[row * 5 + 4] = _mm512_loadu_si512(rows.blue[row] + 1);
    }
    for (int channel = 0; channel < args.channels; ++channel, bits += stride) {
        const int32_t* weights = args.weights + channel * kPixelStride;
        __m512i sums[3] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
        for (int i = 0; i < kPixelPairs; ++i) sums[i % 3] = add_pairs(sums[i % 3], x[i], _mm512_set1_epi32(weights[i]));
        const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(sums[0], sums[1]), sums[2]);
        const unsigned fired = _mm512_cmpge_epi32_mask(sum, _mm512_set1_epi32(args.theta[channel]));
        bits[0] = static_cast<uint8_t>(fired);
        bits[kLanes] = static_cast<uint8_t>(fired >> 8);
    }
}
