// Pixels as the first layer multiplies them. Included where shuffle(to, from, order), which writes from[order[i]] (0
// where order[i] is 255) to to[i] for 16 bytes, is defined.

// Four at a time.
void unpack_rgb(const uint8_t* row, int columns, uint32_t* pixels) {
    constexpr uint8_t o = 255;
    static constexpr uint8_t kOrder[16] = {0, 1, 2, o, 3, 4, 5, o, 6, 7, 8, o, 9, 10, 11, o};
    int x = 0;
    for (; 3 * x + 16 <= 3 * columns; x += 4) shuffle(pixels + x, row + 3 * x, kOrder);
    for (; x < columns; ++x) pixels[x] = static_cast<uint32_t>(row[3 * x] | row[3 * x + 1] << 8 | row[3 * x + 2] << 16);
}

// As many lanes as a vector holds.
typedef uint32_t PixelLanes __attribute__((vector_size(sizeof(Vec))));
constexpr int kPairedLanes = sizeof(Vec) / sizeof(uint32_t);

// The pairs of int16 that the weights of StemArgs multiply, of the lanes from `lane` on.
struct PixelPairs {
    PixelLanes pairs[kStemPairs];

    PixelPairs(const uint32_t* const* taps, int lane) {
        PixelLanes x[9], *next = pairs;
        for (int tap = 0; tap < 9; ++tap) memcpy(&x[tap], taps[tap] + lane, sizeof x[tap]);
        for (int row = 0; row < 9; row += 3) {
            for (int tap = row; tap < row + 3; ++tap) *next++ = (x[tap] & 0xFF) | (x[tap] & 0xFF00) << 8;
            *next++ = blue(x[row], x[row + 1]);
        }
        *next++ = blue(x[2], x[5]);
        *next = x[8] >> 16;
    }

  private:
    static PixelLanes blue(PixelLanes low, PixelLanes high) { return low >> 16 | (high & 0xFF0000); }
};
