// Lane tiles: how the CPU engine holds a tensor of bits.
//
// The images of a batch are cut into square tiles, as many pixels a side as the network halves them. Every tile is a
// lane, one bit wide; lanes follow each other along the tile rows of the first image, then of the next. They are cut
// into groups of at most 512, one vector. At a position (row, column within the tile) the bits of a group's lanes stand
// together, a channel's plane holds the positions row by row, and around them one more: the edges of the tiles next to
// each lane, 0 outside the image. So a tap is a distance in bytes, the same everywhere, a whole vector at a time, with
// no border to look out for. Where a tensor has two bits, every channel has two planes, the more significant one first.
//
// Of an image with few tiles, all levels but the deepest may be cut into tiles half as wide, four times as many lanes
// (shape_plan.cpp says when): more groups for the threads, and fuller ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "../rounding.hpp"

namespace mbunet::cpu {

constexpr size_t kLine = 64;  // cache line, and the widest vector
constexpr int kGroupLanes = 512;

// Calls run with the bytes of a position, see Grid, as a constant.
template <class Run>
void with_bytes(size_t bytes, const Run& run) {
    if (bytes == 64)
        run(std::integral_constant<size_t, 64>{});
    else if (bytes == 32)
        run(std::integral_constant<size_t, 32>{});
    else if (bytes == 16)
        run(std::integral_constant<size_t, 16>{});
    else
        run(std::integral_constant<size_t, 8>{});
}

// Levels of two bits at 64 lanes: their more significant bits and the others.
struct TwoBitLevels {
    uint64_t most, less;
};

// The higher of two, lane by lane: a less significant bit counts where the other's more significant one does not outdo
// its own.
inline TwoBitLevels higher(const TwoBitLevels& a, const TwoBitLevels& b) {
    return {a.most | b.most, (a.less & (a.most | ~b.most)) | (b.less & (b.most | ~a.most))};
}

// Where a lane lies: its image, and its first pixel there.
struct Tile {
    int image, y, x;
};

// The tiles of one batch shape.
struct Grid {
    int height = 0, width = 0;  // of every image, multiples of `side`
    int images = 0;
    int side = 0;               // pixels of a tile
    int rows = 0, columns = 0;  // tiles of an image
    int lanes = 0;              // of all images
    int groups = 0;
    size_t bytes = 0;  // of a position, for the lanes of a group: 8, 16, 32 or 64, so that none crosses a cache line
    // Of a position, at its end or its beginning: the lanes that the next group or the one before has neighbours among,
    // a row of tiles apart. A multiple of 8, and 0 where it would be the whole position.
    size_t edge = 0;
    std::vector<Tile> tiles;  // by lane
    // has[dy + 1][dx + 1]: lanes of all groups, in order, that have a neighbour there in their image
    std::vector<uint8_t> has[3][3];

    Grid() = default;
    Grid(int height, int width, int images, int side);

    // Whether lanes in different groups are neighbours dy rows of tiles apart.
    bool crosses(int dy) const { return dy || static_cast<int>(bytes) * 8 % columns; }

    // Images of this size that share a run.
    static int together(int height, int width, int side);
};

// A channel's plane at one resolution: positions (row, column) of [-1, side].
struct Plane {
    int side = 0;      // positions of a tile's side
    size_t bytes = 0;  // from one column to the next
    size_t row = 0;    // from one row to the next
    size_t size = 0;   // from one channel to the next

    Plane() = default;
    Plane(const Grid& grid, int stride);

    size_t at(int r, int c) const { return static_cast<size_t>(r + 1) * row + static_cast<size_t>(c + 1) * bytes; }
    // Bytes of a copy of a channel's edges: the beginnings of its first row's positions, the ends of its last row's.
    size_t edges(const Grid& grid) const { return 2 * static_cast<size_t>(side) * grid.edge; }
    size_t row_bytes() const { return static_cast<size_t>(side) * bytes; }
};

}  // namespace mbunet::cpu
