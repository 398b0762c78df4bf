// Pixels as the pairs that the first layer multiplies, four at a time by byte shuffles. Included where
// shuffle(to, from, order), which writes from[order[i]] (0 where order[i] is 255) to to[i] for 16 bytes, is defined.

void pairs(const uint8_t* row, int columns, int32_t* red_green, int32_t* blue) {
    constexpr uint8_t o = 255;
    static constexpr uint8_t kRedGreen[16] = {0, o, 1, o, 3, o, 4, o, 6, o, 7, o, 9, o, 10, o};
    static constexpr uint8_t kBlue[16] = {2, o, 5, o, 5, o, 8, o, 8, o, 11, o, 11, o, 14, o};
    int x = 0;
    for (; 3 * x + 16 <= 3 * columns; x += 4) {
        shuffle(red_green + x, row + 3 * x, kRedGreen);
        shuffle(blue + x, row + 3 * x, kBlue);
    }
    for (; x < columns; ++x) {
        red_green[x] = row[3 * x] | row[3 * x + 1] << 16;
        blue[x] = row[3 * x + 2] | (x + 1 < columns ? row[3 * x + 5] << 16 : 0);
    }
}
