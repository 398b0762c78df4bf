// Where things are: tiles of pixels, what they read in shared memory, and who holds what of a product's fragments.
// All of it is arithmetic that the kernels, the preparation of weights and the tests share.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define MBUNET_BOTH __host__ __device__ constexpr
#else
#define MBUNET_BOTH constexpr
#endif

namespace mbunet::cuda {

// A block computes a tile of pixels. Warp w has its rows 2 w and 2 w + 1, as two fragments of 8 x 2 pixels side by
// side: fragment row i < 8 is column i of the upper row, fragment row 8 + i of the lower. So the vertical partners of a
// 2x2 pool are in one thread and the horizontal ones four lanes apart.
constexpr int kTileWidth = 16, kTileHeight = 8, kWarps = 4, kThreads = kWarps * 32, kFragments = 2;

// The pixels that a tile reads with a kernel of so many rows and columns, in shared memory.
struct SharedTile {
    int halo, width, height, pixels;
    MBUNET_BOTH explicit SharedTile(int kernel)
        : halo(kernel / 2), width(kTileWidth + 2 * halo), height(kTileHeight + 2 * halo), pixels(width * height) {}
};

// A shared tile lies in shared memory as slabs, each with one chunk of 16 bytes of every pixel. Eight neighbouring
// pixels are then eight neighbouring chunks, which ldmatrix reads without bank conflicts, and a tap is an offset.
// Pixels of fewer than 128 bits have one slab, where a chunk also holds the bits of the pixels to the right, as many as
// fit: one product covers two taps at 64 channels and three at 32. Two inputs of 64 channels share a slab, where a
// chunk is a pixel of both.
MBUNET_BOTH int slabs_of(int pixel_words) { return pixel_words < 4 ? 1 : pixel_words / 4; }
MBUNET_BOTH int pixels_per_chunk(int pixel_words) { return pixel_words < 4 ? 4 / pixel_words : 1; }

// Chunks from one slab to the next, such that a warp that copies whole pixels writes without bank conflicts (for 1, 2,
// 4 and multiples of 8 slabs).
MBUNET_BOTH int slab_pitch(int pixels, int slabs) {
    const int wanted = slabs < 8 ? (8 + slabs - 1) / slabs : 1;
    return pixels + (wanted + 7 * pixels) % 8;  // = wanted, modulo 8
}

// Byte offset in a shared tile of one piece of a pixel: of slab `piece`, or in a narrow pixel's only chunk the
// `piece`th pixel.
MBUNET_BOTH int piece_offset(int pixel, int piece, int pixel_words, int pitch) {
    return pixel_words < 4 ? pixel * 16 + piece * 4 * pixel_words : (piece * pitch + pixel) * 16;
}

// Byte offset in a shared tile of the chunk at the first tap of the pixel that is row `lane % 8` of matrix `lane / 8`
// in fragment 0 of a warp; the next fragment is kNextFragment further. Matrices 0 and 1 are the upper and the lower row
// of pixels at one chunk of a K step, 2 and 3 at the other.
MBUNET_BOTH int row_offset(int warp, int lane, int shared_width) {
    return ((2 * warp + lane / 8 % 2) * shared_width + lane % 8) * 16;
}
constexpr int kNextFragment = 8 * 16;

// An entry of a layer's table of chunks is about the two of a K step: where the first tap of each is from the pixel's,
// in bytes, and then for each a bit for every one of its four words that holds a tap of the layer.
constexpr int kChunkEntryWords = 4;

// Output channels are computed 32 at a time, an output word, in four blocks of eight columns. Thread t of a quad has
// columns 2 t and 2 t + 1 of each block, so with these channels in the columns it has eight that follow each other:
// byte t of the word.
MBUNET_BOTH int channel_of(int block, int column) { return column / 2 * 8 + block * 2 + column % 2; }

struct Pixel {
    int y, x;
};

// The pixel of a tile whose output words the thread stores, after quads have exchanged theirs (see bits.hpp).
MBUNET_BOTH Pixel pixel_of(int warp, int lane) { return {2 * warp + lane % 2, lane / 2 % 2 * 8 + lane / 4}; }

// Words of weights of one K step, one output word and one plane: two pairs of blocks, of which every lane has 16 bytes.
constexpr int kSliceWords = 2 * 32 * 4;

// Columns of a product of a warpgroup for two output words: of masked weights two to a channel, else one, and sixteen
// for the ones among the inputs.
MBUNET_BOTH int warpgroup_columns(bool masked) { return masked ? 128 : 80; }

MBUNET_BOTH int divide_up(int n, int d) { return (n + d - 1) / d; }

// The head looks up what an input word adds five bits at a time: a table of 32 sums is a register of a warp.
constexpr int kLookupBits = 5, kLookups = divide_up(32, kLookupBits), kLookupWords = kLookups << kLookupBits;

// An image's tiles, row by row, are the first dimension of a grid: the only one that may exceed 65535.
MBUNET_BOTH int tiles_of(int height, int width) {
    return divide_up(height, kTileHeight) * divide_up(width, kTileWidth);
}

// Whether an index is one of `size`.
MBUNET_BOTH bool is_within(int index, int size) { return static_cast<uint32_t>(index) < static_cast<uint32_t>(size); }

// A tile of a batch; y and x count tiles.
struct Tile {
    int image, y, x;
};

// The tiles of a batch, and how a block goes from one of its tiles to the next: as many tiles on as there are blocks.
struct TileWalk {
    int images, down, across;
    Tile stride;

    MBUNET_BOTH TileWalk(int images, int height, int width, int blocks)
        : images(images),
          down(divide_up(height, kTileHeight)),
          across(divide_up(width, kTileWidth)),
          stride(at(blocks)) {}
    TileWalk() = default;

    MBUNET_BOTH int count() const { return images * down * across; }
    MBUNET_BOTH bool has(const Tile& tile) const { return tile.image < images; }
    MBUNET_BOTH Tile at(int index) const {
        const auto i = static_cast<uint32_t>(index), w = static_cast<uint32_t>(across), h = static_cast<uint32_t>(down);
        return {static_cast<int>(i / w / h), static_cast<int>(i / w % h), static_cast<int>(i % w)};
    }
    MBUNET_BOTH Tile after(const Tile& tile) const {
        const int x = tile.x + stride.x, y = tile.y + stride.y + (x >= across);
        return {tile.image + stride.image + (y >= down), y >= down ? y - down : y, x >= across ? x - across : x};
    }
};

// The first pixel of a tile.
MBUNET_BOTH Pixel origin_of(int tile, int width) {
    const auto across = static_cast<uint32_t>(divide_up(width, kTileWidth)), index = static_cast<uint32_t>(tile);
    return {static_cast<int>(index / across) * kTileHeight, static_cast<int>(index % across) * kTileWidth};
}

}  // namespace mbunet::cuda
