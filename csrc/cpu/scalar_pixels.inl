// First layer without vector instructions of its own: every column's products stand together, so that the sum over them
// is a dot product of int16, which compilers know how to vectorise.

void pixels(const PixelArgs& args, const PixelRows& rows, uint8_t* bits, size_t stride) {
    constexpr int kProducts = 2 * kPixelStride;
    int16_t x[kColumns][kProducts] = {};
    for (int column = 0; column < kColumns; ++column)
        for (int row = 0; row < 3; ++row) {
            const int32_t* red_green = rows.red_green[row] + column;
            const int32_t* blue = rows.blue[row] + column;
            const int32_t pairs[5] = {red_green[-1], red_green[0], red_green[1], blue[-1], blue[1]};
            memcpy(&x[column][row * 10], pairs, sizeof pairs);
        }
    for (int channel = 0; channel < args.channels; ++channel, bits += stride) {
        int16_t w[kProducts];
        memcpy(w, args.weights + channel * kPixelStride, sizeof w);
        unsigned fired = 0;
        for (int column = 0; column < kColumns; ++column) {
            int32_t sum = 0;
            for (int i = 0; i < kProducts; ++i) sum += x[column][i] * w[i];
            fired |= static_cast<unsigned>(sum >= args.theta[channel]) << column;
        }
        bits[0] = static_cast<uint8_t>(fired);
        bits[kLanes] = static_cast<uint8_t>(fired >> 8);
    }
}
