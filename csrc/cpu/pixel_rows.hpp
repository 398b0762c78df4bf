// The pixels that the first layer reads: of a group's lanes, at every column of one row of the tiles.
#pragma once

#include <cstdint>

#include "../image.hpp"
#include "kernels/kernels.hpp"
#include "layout.hpp"

namespace mbunet::cpu {

// Rows of pixels in a thread's scratch, each [side + 2 columns][lanes] of R | G << 8 | B << 16, 0 outside the image.
class PixelRows {
  public:
    static constexpr int kRows = 3;  // held at a time: those of the taps

    PixelRows(const Kernels& kernels, const Grid& grid, const Image* images, int group, uint8_t* scratch);

    // Reads row `r` of the tiles, -1 ... side; it takes the place of row r - kRows.
    void read(int r);
    // Points at the pixels under the nine taps at position (r, c), of the lanes from `lane` of the group on.
    void point(int r, int c, int lane, const uint32_t** taps) const;

    static size_t bytes(const Grid& grid);

  private:
    uint32_t* row(int r) const { return rows_ + static_cast<size_t>((r + kRows) % kRows) * row_size_; }
    void read_line(const Image& image, int y);
    void deal(uint32_t* row, int lane, int lanes, int column) const;

    const Kernels& kernels_;
    const Grid& grid_;
    const Image* images_;
    int first_, lanes_;  // lanes of the group, the last ones of which may be nobody's
    size_t row_size_;
    uint32_t* line_;  // column 0 of a whole image row, with one column more on either side
    uint32_t* rows_;
};

}  // namespace mbunet::cpu
