// What stands around the counting, in loops that every compiler vectorises for the target region they are included in.

void pool(const uint8_t* upper, const uint8_t* lower, uint8_t* out, int columns, size_t position_bytes) {
    with_bytes(position_bytes, [&](auto bytes) {
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

void pool_levels(const uint8_t* upper, const uint8_t* lower, size_t below, uint8_t* out, size_t out_below, int columns,
                 size_t position_bytes) {
    with_bytes(position_bytes, [&](auto bytes) {
        for (int c = 0; c < columns; ++c, upper += 2 * bytes, lower += 2 * bytes, out += bytes)
            for (size_t b = 0; b < bytes; b += 8) {
                const auto levels = [&](const uint8_t* first) {
                    TwoBitLevels at;
                    memcpy(&at.most, first + b, 8);
                    memcpy(&at.less, first + below + b, 8);
                    return at;
                };
                const TwoBitLevels highest =
                    higher(higher(levels(upper), levels(upper + bytes)), higher(levels(lower), levels(lower + bytes)));
                memcpy(out + b, &highest.most, 8);
                memcpy(out + out_below + b, &highest.less, 8);
            }
    });
}

// out = lanes moved down by `by`, where `mask` lets them through. One line more is read than moved.
template <size_t Bytes>
inline __attribute__((always_inline)) void move_lanes(const uint8_t* lanes, int by, const uint8_t* mask, uint8_t* out) {
    constexpr size_t kWords = Bytes / 8;
    const int down = by & 7;
    const uint8_t* from = lanes + by / 8;
    uint64_t low[kWords], high[kWords], let[kWords];
    memcpy(low, from, sizeof low);
    memcpy(high, from + 8, sizeof high);
    memcpy(let, mask, sizeof let);
    for (size_t i = 0; i < kWords; ++i) low[i] = (low[i] >> down | high[i] << 1 << (63 - down)) & let[i];
    memcpy(out, low, sizeof low);
}

// Calls run(channel, position, turn) for `channels` channels of `positions` each.
template <class Run>
inline void each_halo(int channels, int positions, const Run& run) {
    int turn = 0;
    for (int channel = 0; channel < channels; ++channel)
        for (int i = 0; i < positions; ++i, ++turn) run(static_cast<size_t>(channel), static_cast<size_t>(i), turn);
}

// The border positions on one side or in one corner of a group: what stands `side` positions further in, moved by the
// way from a lane to its neighbour there. A group's neighbours lie in two groups at most; of another than its own the
// copied edges are enough, where there are any. Some channels at a time are gathered before any is moved: a load that
// takes from several stores waits for them.
template <size_t Bytes>
inline void halo_part(const Grid& grid, const Plane& plane, int dy, int dx, const HaloArgs& args, uint8_t* scratch) {
    const int group = args.group, lanes = static_cast<int>(Bytes) * 8,
              from = group * lanes + dy * grid.columns + dx;  // the neighbour of the group's first lane
    const int low = from / lanes - (from % lanes < 0);        // the first of the two
    const int side = plane.side, positions = dy && dx ? 1 : side, at_once = std::max(1, kHaloPositions / positions);
    const size_t to = plane.at(dy < 0 ? -1 : dy * side, dx < 0 ? -1 : dx * side), stride = dx ? plane.row : plane.bytes,
                 in = plane.at(dy < 0 ? side - 1 : 0, dx < 0 ? side - 1 : 0);
    const size_t edges = plane.edges(grid), edge_in = (dx < 0 ? side - 1 : 0) + (dy < 0 ? side : 0);
    const uint8_t* mask = grid.has[dy + 1][dx + 1].data() + group * Bytes;
    for (int channel = 0; channel < args.channels; channel += at_once) {
        uint8_t* first = args.first + static_cast<size_t>(channel) * plane.size;
        const int some = std::min(at_once, args.channels - channel);
        for (int other = low; other < low + 2; ++other) {
            if (other != group && (other < 0 || other >= grid.groups || !grid.crosses(dy))) continue;
            uint8_t* out = scratch + (other - low) * Bytes;
            if (other == group || !dy || !args.edges) {
                each_halo(some, positions, [&](size_t c, size_t i, int turn) {
                    memcpy(out + turn * kHaloLanes, first + other * args.group_bytes + c * plane.size + i * stride + in,
                           Bytes);
                });
                continue;
            }
            const uint8_t* edge = args.edges + other * args.group_bytes + static_cast<size_t>(channel) * edges;
            each_halo(some, positions, [&](size_t c, size_t i, int turn) {
                for (size_t b = 0; b < grid.edge; b += 8)
                    memcpy(out + turn * kHaloLanes + (dy < 0 ? Bytes - grid.edge : 0) + b,
                           edge + c * edges + (edge_in + i) * grid.edge + b, 8);
            });
        }
        each_halo(some, positions, [&](size_t c, size_t i, int turn) {
            move_lanes<Bytes>(scratch + turn * kHaloLanes, from - low * lanes, mask,
                              first + group * args.group_bytes + c * plane.size + i * stride + to);
        });
    }
}

void halo(const Grid& grid, const Plane& plane, const HaloArgs& args, uint8_t* scratch) {
    with_bytes(grid.bytes, [&](auto bytes) {
        for (int dy = -1; dy <= 1; ++dy)
            for (int dx = -1; dx <= 1; ++dx)
                if (dy || dx) halo_part<decltype(bytes)::value>(grid, plane, dy, dx, args, scratch);
    });
}
