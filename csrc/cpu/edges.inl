// What stands around the counting, in loops that every compiler vectorises for the target region they are included in.

void columns(const uint8_t* bits, uint8_t* out, int count) {
    for (int x = 0; x < count; x += 8) {
        uint64_t lanes;
        memcpy(&lanes, bits + x, 8);
        lanes = transpose8x8(lanes);
        memcpy(out + x, &lanes, 8);
    }
}

void pool(const uint8_t* upper, const uint8_t* lower, uint8_t* out, int columns) {
    for (int x = 0; x < columns; ++x) {
        uint16_t a, b;
        memcpy(&a, upper + 2 * x, 2);
        memcpy(&b, lower + 2 * x, 2);
        a |= b;
        out[x] = static_cast<uint8_t>(a | a >> 8);
    }
}

void interleave(const uint8_t* a, const uint8_t* b, uint8_t* out, int columns) {
    for (int x = 0; x < columns; ++x) {
        const uint16_t pair = static_cast<uint16_t>(a[x] | b[x] << 8);
        memcpy(out + 2 * x, &pair, 2);
    }
}

void halo(const Geometry& geometry, uint8_t* rows) {
    const size_t stride = geometry.stride;
    const uint8_t* first = rows;
    const uint8_t* last = rows + static_cast<size_t>(geometry.rows - 1) * stride;
    uint8_t* above = rows - stride;
    uint8_t* below = rows + static_cast<size_t>(geometry.rows) * stride;
    const uint8_t with_upper = geometry.lanes_with_upper();
    const uint8_t with_lower = geometry.lanes_with_lower();
    for (size_t x = 0; x < stride; ++x) above[x] = static_cast<uint8_t>(last[x] << 1) & with_upper;
    for (size_t x = 0; x < stride; ++x) below[x] = static_cast<uint8_t>(first[x] >> 1) & with_lower;
    above[-1] = 0;  // left border of the upper halo row
}
