// Copies the pixels that a tile of a convolution reads from a tensor to shared memory.
#pragma once

#include "bits.hpp"

namespace mbunet::cuda {

// A plane of an input.
struct Source {
    const uint32_t* words;  // of the first pixel; null if the source is not there
    int pixel_words;        // of this plane
    int tensor_words;       // of a pixel of the tensor that it is a plane of
    int image_words;        // of an image of that tensor
    int pitch;              // slab_pitch
    int offset;             // of its shared tile among those of all sources, bytes
};

// Images of one size, all zero around them.
struct Extent {
    int height, width;
};

// Threads walk over the pieces of pixels, a pixel's pieces first, as they lie in the tensor: a copy takes few
// instructions because rows, columns and pieces are counted on, not divided out. kPieces: of a pixel; 0 if only the
// source knows.
template <int kKernel, int kBytes, int kPieces>
MBUNET_DEVICE void copy_pieces(const Source& source, const Extent& extent, uint32_t to, int image, int y, int x) {
    constexpr SharedTile kTile(kKernel);
    constexpr bool kNarrow = kBytes < 16;  // a piece is a pixel, and is copied behind those to its left too
    const int pieces = kPieces ? kPieces : source.pixel_words / 4;
    const int pixels_on = kThreads / pieces, pieces_on = kThreads % pieces;
    const int rows_on = pixels_on / kTile.width, columns_on = pixels_on % kTile.width;
    const uint32_t* words = opaque(image_at(source.words, image, source.image_words));
    int pixel = thread_index() / pieces, piece = thread_index() % pieces;
    int row = pixel / kTile.width, column = pixel % kTile.width;
    MBUNET_ROLLED
    while (pixel < kTile.pixels) {
        const int from_row = y - kTile.halo + row, from_column = x - kTile.halo + column + (kNarrow ? piece : 0);
        const bool real = is_within(from_row, extent.height) && is_within(from_column, extent.width);
        const int from = (from_row * extent.width + from_column) * source.tensor_words + (kNarrow ? 0 : piece * 4);
        const int at = piece_offset(pixel, piece, kNarrow ? kBytes / 4 : 4, source.pitch);
        cp_async<kBytes>(to + static_cast<uint32_t>(at), words + (real ? static_cast<uint32_t>(from) : 0), real);
        pixel += pixels_on;
        row += rows_on;
        column += columns_on;
        if ((kPieces == 0 || kThreads % (kPieces ? kPieces : 1)) && (piece += pieces_on) >= pieces) {
            piece -= pieces;
            ++pixel;
            ++column;
        }
        if (column >= kTile.width) {
            column -= kTile.width;
            ++row;
        }
    }
}

template <int kKernel>
MBUNET_DEVICE void copy_tile(const Source& source, const Extent& extent, uint32_t to, int image, int y, int x) {
    switch (source.pixel_words) {
        case 1: return copy_pieces<kKernel, 4, 4>(source, extent, to, image, y, x);
        case 2: return copy_pieces<kKernel, 8, 2>(source, extent, to, image, y, x);
        case 4: return copy_pieces<kKernel, 16, 1>(source, extent, to, image, y, x);
        default: return copy_pieces<kKernel, 16, 0>(source, extent, to, image, y, x);
    }
}

// Copies what the tile at (y, x) of an image reads of every source to the shared tiles that begin at `to`.
template <int kKernel, int kSources>
MBUNET_DEVICE void copy_tiles(const Source (&sources)[kSources], const Extent& extent, uint32_t to, int image, int y,
                              int x) {
    MBUNET_ROLLED
    for (int i = 0; i < kSources; ++i)
        if (const Source& source = sources[i]; source.words)
            copy_tile<kKernel>(source, extent, to + static_cast<uint32_t>(source.offset), image, y, x);
}

}  // namespace mbunet::cuda
