// Bits in the order of an image's rows: what stands between two grids, of which one has tiles half as wide.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout.hpp"

namespace mbunet::cpu {

// A channel's bits where every tile of a grid is one position: lane by lane, which is row by row of all images. The
// words of a raster end with one that is read past the last lane.
inline size_t raster_words(const Grid& grid) { return static_cast<size_t>(grid.groups) * grid.bytes / 8 + 1; }

// The bits at a position of each group, of which the first is at `from`, as a raster, and back.
void read_raster(const Grid& grid, const uint8_t* from, size_t group_bytes, uint64_t* raster);
void write_raster(const Grid& grid, const uint64_t* raster, uint8_t* to, size_t group_bytes);

// Every level of `coarse` becomes the highest of the four of `fine` that cover its tile; `planes` rasters each, the
// most significant bits first.
void pool_raster(const Grid& coarse, const Grid& fine_grid, int planes, const uint64_t* fine, uint64_t* to);

// The bits of `parts`, four rasters of `coarse` one after another, become those of `fine` that cover each of its tiles:
// upper left and right, lower left and right.
void join_rasters(const Grid& coarse, const uint64_t* parts, const Grid& fine, uint64_t* to);

}  // namespace mbunet::cpu
