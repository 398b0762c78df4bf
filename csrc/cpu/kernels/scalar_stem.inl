// First layer without vector instructions of its own: every lane's products stand together, so that the sum over them
// is a dot product of int16, which compilers know how to vectorise.

void stem(const StemArgs& args, const uint32_t* const* taps, uint8_t* bits) {
    constexpr int kProducts = 2 * kStemStride;
    int16_t x[kStemLanes][kProducts] = {};
    for (int lane = 0; lane < kStemLanes; lane += kPairedLanes) {
        const PixelPairs in(taps, lane);
        for (int i = 0; i < kStemPairs; ++i)
            for (int j = 0; j < kPairedLanes; ++j) {
                const uint32_t pair = in.pairs[i][j];
                memcpy(&x[lane + j][2 * i], &pair, sizeof pair);
            }
    }
    for (int channel = 0; channel < args.channels; ++channel) {
        int16_t w[kProducts];
        memcpy(w, args.weights + channel * kStemStride, sizeof w);
        int32_t sums[kStemLanes] = {};
        for (int lane = 0; lane < kStemLanes; ++lane)
            for (int i = 0; i < kProducts; ++i) sums[lane] += x[lane][i] * w[i];
        for (int level = 0; level < args.levels; ++level, bits += kLine) {
            const int32_t theta = args.theta[channel * args.levels + level];
            unsigned fired = 0;
            for (int lane = 0; lane < kStemLanes; ++lane) fired |= static_cast<unsigned>(sums[lane] >= theta) << lane;
            for (int i = 0; i < kStemLanes / 8; ++i) bits[i] = static_cast<uint8_t>(fired >> 8 * i);
        }
    }
}
