// Transposed 2x2 convolution of one segment on one plane to one plane: a product of every pixel's channels with the
// weights of its four output pixels.
//
// A product's 256 bits are 128 of a pixel, a, and what a second plane of weights wants of the same (conv_weights.hpp):
// ~a where AND counts a & pos and ~a & neg, a itself where XOR counts a ^ neg and a ^ ~pos. So one product adds both,
// and binary weights are masked ones without a zero.
//
// Blocks stay, as in resident_conv.hpp. Output words are counted along an output row: those of both pixels that lie
// over one of the sources follow each other, and what a thread stores at once are kWords of them. Two warps share the
// tile's pixels and two the block's output words, so that weights are loaded for 64 pixels at a time.
#pragma once

#include "resident_conv.hpp"

namespace mbunet::cuda {

// A block's output words are a multiple of 2 kWords.
template <int kWords>
struct UpConv {
    using Args = ResidentConvArgs;
    static constexpr bool kBeginsEarly = true;
    static constexpr int kRowPairs = 2;  // of a warp, each of kFragments
    static constexpr SharedTile kSharedTile{1};

    template <BitOp bit_op>
    MBUNET_DEVICE static void run(const ResidentConvArgs& args) {
        copy_weights(args, first_word(args));
        take_tiles(
            args, [&](const Tile& tile, uint32_t to, const auto& begin) { copy(args, tile, to, begin); }, [] {},
            [&](const Tile& tile, uint32_t tiles, const auto& await, const auto& copy_next) {
                await();
                copy_next();
                MBUNET_ROLLED
                for (int word = thread_index() / 64 * kWords; word < args.block_words; word += 2 * kWords)
                    make_words<bit_op>(args, tiles, tile, word);
            });
    }

  private:
    using Sums = int32_t[kRowPairs][kFragments][4][4];

    MBUNET_DEVICE static int first_word(const ResidentConvArgs& args) { return block_index().y * args.block_words; }

    template <class Begin>
    MBUNET_DEVICE static void copy(const ResidentConvArgs& args, const Tile& tile, uint32_t to, const Begin& begin) {
        copy_tiles<1, kThreads>(args.sources, args.extent, to, tile.image, tile.y * kTileHeight, tile.x * kTileWidth,
                                begin);
        cp_async_commit();
    }

    // In shared memory the starts are before the weights.
    MBUNET_DEVICE static uint32_t starts_at(const ResidentConvArgs& args) {
        return shared_memory() + static_cast<uint32_t>(args.stages - args.block_words * kStartWords * 4);
    }

    // [product][output word of the block][kSliceWords], and the starts of these; it is in the first tile's group.
    MBUNET_DEVICE static void copy_weights(const ResidentConvArgs& args, int first_word) {
        uint32_t to = shared_memory() + static_cast<uint32_t>(args.stages);
        const uint32_t* from = args.weights + first_word * kSliceWords;
        MBUNET_ROLLED
        for (int k_step = 0; k_step < args.k_steps; ++k_step) {
            copy_words(to, from, args.block_words * kSliceWords);
            from += args.columns * kSliceWords;
            to += static_cast<uint32_t>(args.block_words * kSliceWords * 4);
        }
        copy_words(starts_at(args), args.starts + first_word * kStartWords, args.block_words * kStartWords);
    }

    template <class T>
    MBUNET_DEVICE static void copy_words(uint32_t to, const T* from, int count) {
        MBUNET_UNROLLED
        for (int at = thread_index() * 4; at < count; at += kThreads * 4)
            cp_async<16>(to + static_cast<uint32_t>(at * 4), from + at, true);
    }

    // Output words of the block, from `word` on, of the warp's pixels of a tile.
    template <BitOp bit_op>
    MBUNET_DEVICE static void make_words(const ResidentConvArgs& args, uint32_t tiles, const Tile& tile, int word) {
        const int rows = thread_index() / 32 % 2 * kRowPairs, lane = thread_index() % 32;
        const uint32_t pixels = tiles + static_cast<uint32_t>(row_offset(rows, lane, kSharedTile.width));
        uint32_t bits[kRowPairs][kWords];
        repeat<kWords>([&](int w) {
            Sums sums;
            multiply<bit_op>(args, sums, pixels, word + w);
            repeat<kRowPairs>([&](int pair) {
                const auto value = [&](int i, int k) { return sums[pair][i / 2][k / 2][i % 2 * 2 + k % 2]; };
                bits[pair][w] = exchange(sign_bytes(value), lane);
            });
        });
        const int row_words = 2 * args.output_words, column = first_word(args) + word, lower = column >= row_words;
        uint32_t* output = opaque(image_at(args.output, tile.image, args.output_image_words));
        repeat<kRowPairs>([&](int pair) {
            const Pixel pixel = pixel_of(rows + pair, lane);
            const int y = tile.y * kTileHeight + pixel.y, x = tile.x * kTileWidth + pixel.x;
            if (y >= args.extent.height || x >= args.extent.width) return;
            const int at = ((2 * y + lower) * args.extent.width + x - lower) * row_words + column;
            store_words(output + static_cast<uint32_t>(at), bits[pair]);
        });
    }

    MBUNET_DEVICE static void store_words(uint32_t* to, const uint32_t (&bits)[kWords]) {
        if constexpr (kWords == 4)
            store(reinterpret_cast<Words4*>(to), Words4{bits[0], bits[1], bits[2], bits[3]});
        else
            store(reinterpret_cast<Words2*>(to), Words2{bits[0], bits[1]});
    }

    template <BitOp bit_op>
    MBUNET_DEVICE static void multiply(const ResidentConvArgs& args, Sums& sums, uint32_t pixels, int word) {
        const int lane = thread_index() % 32;
        const uint32_t weights = shared_memory() + static_cast<uint32_t>(args.stages);
        const int word_bytes = args.block_words * kSliceWords * 4;
        uint32_t slice = weights + static_cast<uint32_t>(word * kSliceWords * 4 + lane * 16);
        const uint32_t starts = starts_at(args) + static_cast<uint32_t>((word * kStartWords + lane % 4 * 4) * 4);
        add<bit_op, true>(sums, pixels, slice, starts);
        MBUNET_ROLLED
        for (int k_step = 1; k_step < args.k_steps; ++k_step) {
            slice += static_cast<uint32_t>(word_bytes);
            add<bit_op, false>(sums, pixels + offset(args, k_step), slice, starts);
        }
    }

    // Of the product's 128 bits of the sources, in the shared tiles.
    MBUNET_DEVICE static uint32_t offset(const ResidentConvArgs& args, int k_step) {
        const Source &first = args.sources[0], &second = args.sources[1];
        const int own = k_step - slabs_of(first.pixel_words);
        return static_cast<uint32_t>(own < 0 ? k_step * first.pitch * 16 : second.offset + own * second.pitch * 16);
    }

    template <BitOp bit_op, bool is_first>
    MBUNET_DEVICE static void add(Sums& sums, uint32_t pixels, uint32_t slice, uint32_t starts) {
        uint32_t a[kRowPairs][kFragments][4];
        repeat<kRowPairs>([&](int pair) {
            repeat<kFragments>([&](int f) {
                load_rows<bit_op>(a[pair][f], pixels + static_cast<uint32_t>(pair * 2 * kSharedTile.width * 16) +
                                                  static_cast<uint32_t>(f * kNextFragment));
            });
        });
        repeat<2>([&](int half) {
            const Words4 b = load_shared4(slice + static_cast<uint32_t>(half * kSliceWords * 2));
            const uint32_t columns[2][2] = {{b.x, b.y}, {b.z, b.w}};
            repeat<2>([&](int odd) {
                const int block = half * 2 + odd;
                int32_t start[4];
                if constexpr (is_first) load_shared_start(start, starts + static_cast<uint32_t>(block * 64));
                repeat<kRowPairs>([&](int pair) {
                    repeat<kFragments>([&](int f) {
                        int32_t (&to)[4] = sums[pair][f][block];
                        if constexpr (is_first)
                            bmma<bit_op>(to, a[pair][f], columns[odd], start);
                        else
                            bmma<bit_op>(to, a[pair][f], columns[odd], to);
                    });
                });
            });
        });
    }

    // The thread's four sums of a block of columns.
    MBUNET_DEVICE static void load_shared_start(int32_t (&start)[4], uint32_t from) {
        const Words4 own = load_shared4(from);
        const uint32_t words[4] = {own.x, own.y, own.z, own.w};
        repeat<4>([&](int i) { start[i] = static_cast<int32_t>(words[i]); });
    }

    // A fragment: lanes 16 and up give the same addresses as those before them. Registers of a product of Ampere's lie
    // side by side, and to load some twice is cheaper than to move them there; Turing's are by themselves.
    template <BitOp bit_op>
    MBUNET_DEVICE static void load_rows(uint32_t (&a)[4], uint32_t from) {
        if (bit_op == BitOp::kXor && capability() >= 80) return ldmatrix(a, from);
        uint32_t own[2];
        ldmatrix(own, from);
        repeat<2>([&](int lower) {
            a[lower] = own[lower];
            a[2 + lower] = bit_op == BitOp::kXor ? own[lower] : ~own[lower];
        });
    }
};

}  // namespace mbunet::cuda
