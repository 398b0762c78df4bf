#include "pixel_rows.hpp"

#include <algorithm>

namespace mbunet::cpu {

namespace {

size_t line_size(const Grid& grid) { return static_cast<size_t>(grid.width) + 2; }
size_t row_size(const Grid& grid) { return static_cast<size_t>(grid.side + 2) * grid.bytes * 8; }

}  // namespace

PixelRows::PixelRows(const Kernels& kernels, const Grid& grid, const Image* images, int group, uint8_t* scratch)
    : kernels_(kernels),
      grid_(grid),
      images_(images),
      first_(group * static_cast<int>(grid.bytes) * 8),
      lanes_(static_cast<int>(grid.bytes) * 8),
      row_size_(row_size(grid)),
      line_(reinterpret_cast<uint32_t*>(scratch) + 1),
      rows_(line_ + line_size(grid) - 1) {}

size_t PixelRows::bytes(const Grid& grid) { return (line_size(grid) + kRows * row_size(grid)) * sizeof(uint32_t); }

// One image row: edges replicated to the padded shape, zero outside it.
void PixelRows::read_line(const Image& image, int y) {
    if (y < 0 || y >= grid_.height) {
        std::fill(line_ - 1, line_ + grid_.width + 1, 0);
        return;
    }
    const size_t stride = static_cast<size_t>(image.width) * 3;
    kernels_.unpack_rgb(image.pixels + static_cast<size_t>(std::min(y, image.height - 1)) * stride, image.width, line_);
    std::fill(line_ + image.width, line_ + grid_.width, line_[image.width - 1]);
    line_[-1] = line_[grid_.width] = 0;
}

// Deals the line out to `lanes` lanes from `lane` of the group on, which are the tiles from `column` on.
void PixelRows::deal(uint32_t* row, int lane, int lanes, int column) const {
    for (int c = -1; c <= grid_.side; ++c) {
        uint32_t* to = row + (c + 1) * lanes_ + lane;
        const uint32_t* from = line_ + column * grid_.side + c;
        for (int i = 0; i < lanes; ++i) to[i] = from[i * grid_.side];
    }
}

void PixelRows::read(int r) {
    const int end = std::min(first_ + lanes_, grid_.lanes);
    for (int lane = first_; lane < end;) {
        const Tile& tile = grid_.tiles[static_cast<size_t>(lane)];
        const int column = tile.x / grid_.side, lanes = std::min(grid_.columns - column, end - lane);
        read_line(images_[tile.image], tile.y + r);
        deal(row(r), lane - first_, lanes, column);
        lane += lanes;
    }
}

void PixelRows::point(int r, int c, int lane, const uint32_t** taps) const {
    for (int tap = 0; tap < 9; ++tap) *taps++ = row(r - 1 + tap / 3) + (c + tap % 3) * lanes_ + lane;
}

}  // namespace mbunet::cpu
