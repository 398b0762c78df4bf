// The pixels that the first layer reads: of a group's lanes, at every column of one row of the tiles.
#pragma once

#include <cstdint>

#include "cpu/kernels.hpp"
#include "image.hpp"
#include "layout.hpp"

namespace mbunet {

// Rows of pixel pairs in a thread's scratch. A row has [side + 2 columns][lanes] of (R, G), then of (B, B).
class PixelRows {
  public:
    static constexpr int kRows = 3;  // held at a time: those of the taps

    PixelRows(const Kernels& kernels, const Grid& grid, const Image* images, int group, uint8_t* scratch);

    // Reads row `r` of the tiles, -1 ... side; it takes the place of row r - kRows.
    void read(int r);
    // Points `pairs` at the pairs of PixelArgs at position (r, c), for the lanes from `lane` of the group on.
    void point(int r, int c, int lane, const int32_t** pairs) const;

    static size_t bytes(const Grid& grid);

  private:
    int32_t* row(int r) const { return rows_ + static_cast<size_t>((r + kRows) % kRows) * 2 * row_ints_; }
    void read_line(const Image& image, int y);
    void deal(int32_t* row, int lane, int lanes, int column) const;

    const Kernels& kernels_;
    const Grid& grid_;
    const Image* images_;
    int first_, lanes_;  // lanes of the group, the last ones of which may be nobody's
    size_t row_ints_;
    int32_t *red_green_, *blue_;  // column 0 of a whole image row, with one column more on either side
    int32_t* rows_;
};

}  // namespace mbunet
