// What stands around the counting, in loops that every compiler vectorises for the target region they are included in.

// Calls run with the bytes of a position: a constant where they are a whole vector, as in all but small images.
template <class Run>
inline void with_bytes(size_t bytes, const Run& run) {
    if (bytes == kLine)
        run(std::integral_constant<size_t, kLine>{});
    else
        run(bytes);
}

void pool(const uint8_t* upper, const uint8_t* lower, uint8_t* out, int columns, size_t any_bytes) {
    with_bytes(any_bytes, [&](auto constant_or_not) {
        const size_t bytes = constant_or_not;
        for (int c = 0; c < columns; ++c, upper += 2 * bytes, lower += 2 * bytes, out += bytes)
            for (size_t b = 0; b < bytes; b += 8) {
                uint64_t or_of[4];
                memcpy(&or_of[0], upper + b, 8);
                memcpy(&or_of[1], upper + bytes + b, 8);
                memcpy(&or_of[2], lower + b, 8);
                memcpy(&or_of[3], lower + bytes + b, 8);
                or_of[0] |= or_of[1] | or_of[2] | or_of[3];
                memcpy(out + b, or_of, 8);
            }
    });
}

// out = lanes moved down by `by`, where `mask` lets them through. `lanes` may be read beyond its ends.
inline __attribute__((always_inline)) void move_lanes(const uint8_t* lanes, int by, const uint8_t* mask, uint8_t* out,
                                                      size_t bytes) {
    const int down = by & 7;
    const uint8_t* from = lanes + (by - down) / 8;
    for (size_t b = 0; b < bytes; b += 8) {
        uint64_t low, high, let;
        memcpy(&low, from + b, 8);
        memcpy(&high, from + b + 8, 8);
        memcpy(&let, mask + b, 8);
        low = (low >> down | high << 1 << (63 - down)) & let;
        memcpy(out + b, &low, 8);
    }
}

// The border positions on one side or in one corner, at most `side` of them: what stands `side` positions further in,
// moved by the way from a lane to its neighbour there.
template <class Bytes>
inline void halo_part(const Grid& grid, const Plane& plane, int dy, int dx, uint8_t* first, size_t group_bytes,
                      uint8_t* lanes, Bytes constant_or_not) {
    const size_t bytes = constant_or_not;
    const int side = plane.side, positions = dy && dx ? 1 : side;
    uint8_t* to = first + plane.at(dy < 0 ? -1 : dy * side, dx < 0 ? -1 : dx * side);
    const ptrdiff_t step = static_cast<ptrdiff_t>(dx ? plane.row : plane.bytes),
                    back = dy * side * static_cast<ptrdiff_t>(plane.row) + dx * side * static_cast<ptrdiff_t>(bytes);
    const uint8_t* mask = grid.has[dy + 1][dx + 1].data();
    for (int i = 0; i < positions; ++i, to += step) {
        for (int g = 0; g < grid.groups; ++g) memcpy(lanes + g * bytes, to - back + g * group_bytes, bytes);
        for (int g = 0; g < grid.groups; ++g)
            move_lanes(lanes + g * bytes, dy * grid.columns + dx, mask + g * bytes, to + g * group_bytes, bytes);
    }
}

void halo(const Grid& grid, const Plane& plane, uint8_t* first, size_t group_bytes, uint8_t* scratch) {
    with_bytes(grid.bytes, [&](auto bytes) {
        for (int dy = -1; dy <= 1; ++dy)
            for (int dx = -1; dx <= 1; ++dx)
                if (dy || dx) halo_part(grid, plane, dy, dx, first, group_bytes, scratch + halo_margin(grid), bytes);
    });
}
