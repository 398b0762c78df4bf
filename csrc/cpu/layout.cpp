#include "layout.hpp"

#include <algorithm>
#include <bit>

namespace mbunet::cpu {

Grid::Grid(int height, int width, int images, int side)
    : height(height),
      width(width),
      images(images),
      side(side),
      rows(height / side),
      columns(width / side),
      lanes(images * rows * columns),
      groups(divide_up(lanes, kGroupLanes)),
      bytes(std::bit_ceil(std::max(size_t{8}, static_cast<size_t>(divide_up(std::min(lanes, kGroupLanes), 8))))),
      edge(round_up(static_cast<size_t>(divide_up(columns + 1, 8)), 8)) {
    if (edge >= bytes) edge = 0;
    for (int lane = 0; lane < lanes; ++lane)
        tiles.push_back({lane / (rows * columns), lane / columns % rows * side, lane % columns * side});
    for (int dy = -1; dy <= 1; ++dy)
        for (int dx = -1; dx <= 1; ++dx) {
            std::vector<uint8_t>& mask = has[dy + 1][dx + 1];
            mask.assign(static_cast<size_t>(groups) * bytes, 0);
            for (int lane = 0; lane < lanes; ++lane) {
                const int y = tiles[static_cast<size_t>(lane)].y + dy * side,
                          x = tiles[static_cast<size_t>(lane)].x + dx * side;
                if (y >= 0 && y < height && x >= 0 && x < width)
                    mask[static_cast<size_t>(lane / 8)] |= static_cast<uint8_t>(1 << lane % 8);
            }
        }
}

int Grid::together(int height, int width, int side) {
    return std::max(1, kGroupLanes / ((height / side) * (width / side)));
}

Plane::Plane(const Grid& grid, int stride)
    : side(grid.side / stride), bytes(grid.bytes), row(static_cast<size_t>(side + 2) * grid.bytes) {
    // an odd number of lines: planes a multiple of 4 KB apart would share L1 sets
    const size_t lines = round_up(static_cast<size_t>(side + 2) * row, kLine) / kLine;
    size = (lines | 1) * kLine;
}

}  // namespace mbunet::cpu
