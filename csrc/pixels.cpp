#include "pixels.hpp"

#include <algorithm>

namespace mbunet {

namespace {

// Pairs of columns -1 and from the row's own end on: its last pixel is repeated up to `width`, outside it is 0.
void pair_edges(int columns, int width, int32_t* red_green, int32_t* blue) {
    const int32_t last = blue[columns - 1];
    std::fill(red_green + columns, red_green + width, red_green[columns - 1]);
    std::fill(blue + columns - 1, blue + width, last | last << 16);
    blue[width - 1] = last;
    blue[-1] = static_cast<int32_t>(static_cast<uint32_t>(blue[0]) << 16);
    red_green[-1] = red_green[width] = blue[width] = 0;
}

size_t line_ints(const Grid& grid) { return static_cast<size_t>(grid.width) + 2; }
size_t row_ints(const Grid& grid) { return static_cast<size_t>(grid.side + 2) * grid.bytes * 8; }

}  // namespace

PixelRows::PixelRows(const Kernels& kernels, const Grid& grid, const Image* images, int group, uint8_t* scratch)
    : kernels_(kernels),
      grid_(grid),
      images_(images),
      first_(group * static_cast<int>(grid.bytes) * 8),
      lanes_(static_cast<int>(grid.bytes) * 8),
      row_ints_(row_ints(grid)),
      red_green_(reinterpret_cast<int32_t*>(scratch) + 1),
      blue_(red_green_ + line_ints(grid)),
      rows_(blue_ + line_ints(grid) - 1) {}

size_t PixelRows::bytes(const Grid& grid) {
    return (2 * line_ints(grid) + kRows * 2 * row_ints(grid)) * sizeof(int32_t);
}

// One image row as pairs: edges replicated to the padded shape, zero outside it.
void PixelRows::read_line(const Image& image, int y) {
    if (y < 0 || y >= grid_.height) {
        std::fill(red_green_ - 1, red_green_ + grid_.width + 1, 0);
        std::fill(blue_ - 1, blue_ + grid_.width + 1, 0);
        return;
    }
    const size_t stride = static_cast<size_t>(image.width) * 3;
    kernels_.pairs(image.pixels + static_cast<size_t>(std::min(y, image.height - 1)) * stride, image.width, red_green_,
                   blue_);
    pair_edges(image.width, grid_.width, red_green_, blue_);
}

// Deals the line out to `lanes` lanes from `lane` of the group on, which are the tiles from `column` on.
void PixelRows::deal(int32_t* row, int lane, int lanes, int column) const {
    for (int c = -1; c <= grid_.side; ++c) {
        int32_t* to = row + (c + 1) * lanes_ + lane;
        const int32_t* red_green = red_green_ + column * grid_.side + c;
        const int32_t* blue = blue_ + column * grid_.side + c;
        for (int i = 0; i < lanes; ++i) {
            to[i] = red_green[i * grid_.side];
            to[i + static_cast<int>(row_ints_)] = blue[i * grid_.side];
        }
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

void PixelRows::point(int r, int c, int lane, const int32_t** pairs) const {
    for (int i = 0; i < kRows; ++i) {
        const int32_t* red_green = row(r - 1 + i) + (c + 1) * lanes_ + lane;
        const int32_t* blue = red_green + row_ints_;
        for (int column = -1; column <= 1; ++column) *pairs++ = red_green + column * lanes_;
        *pairs++ = blue - lanes_;
        *pairs++ = blue + lanes_;
    }
}

}  // namespace mbunet
