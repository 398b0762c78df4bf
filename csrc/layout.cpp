#include "layout.hpp"

namespace mbunet {

Geometry::Geometry(int height, int width, int bands, int rows)
    : height(height), width(width), bands(bands), rows(rows) {
    stride = static_cast<size_t>(width) + 1;
    front = round_up(stride + 1, kLine);
    const size_t span = round_up(stride * static_cast<size_t>(rows), kLine);
    // an odd number of lines: planes a multiple of 4 KB apart would share L1 sets
    const size_t lines = (front + span + round_up(stride + 1, kLine)) / kLine;
    plane = (lines | 1) * kLine;
    valid.assign(span, 0);
    for (int row = 0; row < rows; ++row) {
        const uint8_t lanes = lanes_of_row(row);
        for (int x = 0; x < width; ++x) valid[static_cast<size_t>(row) * stride + static_cast<size_t>(x)] = lanes;
    }
}

uint8_t Geometry::lanes_of_row(int row) const {
    unsigned lanes = 0;
    for (int k = 0; k < kLanes; ++k)
        if (k % bands * rows + row < height) lanes |= 1u << k;
    return static_cast<uint8_t>(lanes);
}

uint8_t Geometry::lanes_with_upper() const {
    unsigned lanes = 0;
    for (int k = 0; k < kLanes; ++k)
        if (k % bands != 0) lanes |= 1u << k;
    return static_cast<uint8_t>(lanes);
}

uint8_t Geometry::lanes_with_lower() const { return static_cast<uint8_t>(lanes_with_upper() >> 1); }

int band_rows(int height, int bands, int multiple) {
    return static_cast<int>(round_up(static_cast<size_t>((height + bands - 1) / bands), static_cast<size_t>(multiple)));
}

int choose_bands(int height, int images, int multiple) {
    int best = kLanes;
    long fewest = -1;
    for (int bands = kLanes; bands >= 1; bands /= 2) {
        const int together = kLanes / bands;
        const long passes = (images + together - 1) / together;
        const long rows = passes * band_rows(height, bands, multiple);
        if (fewest < 0 || rows < fewest) {
            fewest = rows;
            best = bands;
        }
    }
    return best;
}

}  // namespace mbunet
