// Byte-planes: how the CPU engine holds a tensor of bits.
//
// A channel is a plane with one byte per (row, column) of a horizontal band of the image; bit k of every byte is lane
// k. The eight lanes are shared by `bands` bands of up to 8 / bands images: lane k is band k % bands of image k /
// bands. Rows of a plane follow each other with one zero byte between them, which is the right border of the one and
// the left border of the next. A halo row stands above and below: the neighbouring bands' edge rows, zero outside the
// image.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mbunet {

constexpr int kLanes = 8;
constexpr size_t kLine = 64;  // cache line, and the widest vector

constexpr size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// The planes of one resolution level of one batch shape.
struct Geometry {
    int height = 0;              // rows of the image at this level
    int width = 0;               // columns
    int bands = 8;               // bands per image: 1, 2, 4 or 8
    int rows = 0;                // rows of a band
    size_t stride = 0;           // bytes from one row to the next: width + 1
    size_t front = 0;            // bytes before row 0: the upper halo row and one border byte
    size_t plane = 0;            // bytes from one channel to the next
    std::vector<uint8_t> valid;  // [span()] bits of lanes that hold image at a position, 0 on borders

    Geometry() = default;
    Geometry(int height, int width, int bands, int rows);

    // Bytes of a plane that kernels compute, a multiple of kLine; all behind the last row is invalid.
    size_t span() const { return valid.size(); }
    // Lanes of row `row` that lie inside their image.
    uint8_t lanes_of_row(int row) const;
    // Lanes whose upper (or lower) neighbour row belongs to the lane before (after) them.
    uint8_t lanes_with_upper() const;
    uint8_t lanes_with_lower() const;
};

// Bands per image that process `images` images of `height` rows with the fewest plane rows; ties go to more bands,
// which finish one image sooner and keep its planes small. `multiple` is what a band's rows must be a multiple of.
int choose_bands(int height, int images, int multiple);

// Rows of a band at full resolution.
int band_rows(int height, int bands, int multiple);

}  // namespace mbunet
