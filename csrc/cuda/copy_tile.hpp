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
    bool joined;            // with another: its chunks hold no pixels to the right
};

// Images of one size, all zero around them.
struct Extent {
    int height, width;
};

// kCount threads walk over the pieces of pixels, a pixel's pieces first, as they lie in the tensor: a copy takes few
// instructions because rows, columns and pieces are counted on, not divided out. kPieces: of a pixel; 0 if only the
// source knows. begin(address), here and below, comes before the first copy, when its address is known.
template <int kKernel, int kBytes, int kPieces, int kCount, class Begin>
MBUNET_DEVICE void copy_pieces(const Source& source, const Extent& extent, uint32_t to, int image, int y, int x,
                               const Begin& begin) {
    constexpr SharedTile kTile(kKernel);
    constexpr bool kNarrow = kBytes < 16;  // a piece is a pixel, and is copied behind those to its left too
    const int pieces = kPieces ? kPieces : source.pixel_words / 4;
    const int pixels_on = kCount / pieces, pieces_on = kCount % pieces;
    const int rows_on = pixels_on / kTile.width, columns_on = pixels_on % kTile.width;
    const uint32_t* words = opaque(image_at(source.words, image, source.image_words));
    const int thread = kKernel > 1 ? opaque(thread_index()) : thread_index();  // a loop over tiles needs its registers
    int pixel = thread / pieces, piece = thread % pieces;
    int row = pixel / kTile.width, column = pixel % kTile.width;
    begin(words + row + column);
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
        if ((kPieces == 0 || kCount % (kPieces ? kPieces : 1)) && (piece += pieces_on) >= pieces) {
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

template <int kKernel, int kCount, class Begin>
MBUNET_DEVICE void copy_tile(const Source& source, const Extent& extent, uint32_t to, int image, int y, int x,
                             const Begin& begin) {
    const auto copy = [&]<int kBytes, int kPieces>() {
        copy_pieces<kKernel, kBytes, kPieces, kCount>(source, extent, to, image, y, x, begin);
    };
    switch (source.pixel_words) {
        case 1: return copy.template operator()<4, 4>();
        case 2: return source.joined ? copy.template operator()<8, 1>() : copy.template operator()<8, 2>();
        case 4: return copy.template operator()<16, 1>();
        default: return copy.template operator()<16, 0>();
    }
}

// Copies what the tile at (y, x) of an image reads of every source to the shared tiles that begin at `to`.
template <int kKernel, int kCount, int kSources, class Begin>
MBUNET_DEVICE void copy_tiles(const Source (&sources)[kSources], const Extent& extent, uint32_t to, int image, int y,
                              int x, const Begin& begin) {
    MBUNET_ROLLED
    for (int i = 0; i < kSources; ++i)
        if (const Source& source = sources[i]; source.words)
            copy_tile<kKernel, kCount>(source, extent, to + static_cast<uint32_t>(source.offset), image, y, x, begin);
}

// Whether nothing that the tile at (y, x) copies is outside of the image.
template <int kKernel>
MBUNET_DEVICE bool is_inside(const Extent& extent, int y, int x) {
    constexpr int kHalo = SharedTile(kKernel).halo, kRight = 3;  // pixels that a chunk holds beyond its own
    return y >= kHalo && x >= kHalo && y + kTileHeight + kHalo <= extent.height &&
           x + kTileWidth + kHalo + kRight <= extent.width;
}

// What copy_pieces does, of such a tile. A thread's offsets from the tile are the same for all of them, so a loop over
// tiles keeps them in registers, and a copy takes two or three instructions.
template <int kKernel, int kBytes, int kPieces, int kCount, class Begin>
MBUNET_DEVICE void copy_pieces_inside(const Source& source, const Extent& extent, uint32_t to, int image, int y, int x,
                                      const Begin& begin) {
    constexpr SharedTile kTile(kKernel);
    constexpr bool kNarrow = kBytes < 16;
    constexpr int kPixelsOn = kCount / kPieces;
    const int first = thread_index() / kPieces, piece = thread_index() % kPieces;
    constexpr int kWords = kNarrow ? kBytes / 4 : kPieces * 4;
    const int origin = ((y - kTile.halo) * extent.width + x - kTile.halo) * kWords;
    const uint32_t* words = opaque(image_at(source.words, image, source.image_words) + origin);
    to += static_cast<uint32_t>(piece_offset(first, piece, kNarrow ? kBytes / 4 : 4, source.pitch));
    repeat<divide_up(kTile.pixels, kPixelsOn)>([&](int round) {
        const int pixel = first + round * kPixelsOn;
        const int row = pixel / kTile.width, column = pixel % kTile.width + (kNarrow ? piece : 0);
        const int from = (row * extent.width + column) * kWords + (kNarrow ? 0 : piece * 4);
        if (round == 0) begin(words + static_cast<uint32_t>(from));
        if ((round + 1) * kPixelsOn <= kTile.pixels || pixel < kTile.pixels)
            cp_async<kBytes>(to + static_cast<uint32_t>(round * kPixelsOn * 16), words + static_cast<uint32_t>(from),
                             true);
    });
}

// copy_tiles where every source is the only plane of its tensor, with pixels of kPixelWords, joined or not.
template <int kKernel, int kPixelWords, bool joined, int kCount, int kSources, class Begin>
MBUNET_DEVICE void copy_tiles_of(const Source (&sources)[kSources], const Extent& extent, uint32_t to, int image, int y,
                                 int x, const Begin& begin) {
    constexpr int kBytes = kPixelWords < 4 ? 4 * kPixelWords : 16;
    constexpr int kPieces = joined ? 1 : kPixelWords < 4 ? pixels_per_chunk(kPixelWords) : slabs_of(kPixelWords);
    const bool inside = is_inside<kKernel>(extent, y, x);
    const auto copy = [&](const Source& source) {
        const uint32_t at = to + static_cast<uint32_t>(source.offset);
        if (inside)
            copy_pieces_inside<kKernel, kBytes, kPieces, kCount>(source, extent, at, image, y, x, begin);
        else
            copy_pieces<kKernel, kBytes, kPieces, kCount>(source, extent, at, image, y, x, begin);
    };
    if constexpr (kPixelWords == 2 && !joined) return copy(sources[0]);  // two would be joined
    MBUNET_ROLLED
    for (int i = 0; i < kSources; ++i)
        if (sources[i].words) copy(sources[i]);
}

}  // namespace mbunet::cuda
