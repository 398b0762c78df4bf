// The convolution of conv.hpp where all weights of a block's output words fit into shared memory. Blocks stay: each
// copies its weights once and then takes tile after tile, whose pixels are copied while those of the one before are
// multiplied and stored. A tile costs one barrier, and between barriers nobody waits.
#pragma once

#include "conv.hpp"

namespace mbunet::cuda {

struct ResidentConvArgs : ConvArgs {
    TileWalk walk;
    int block_words;  // output words of a block
    int tile_bytes;   // of the shared tiles of all sources: of one tile of pixels. There is room for two
};

template <bool masked, int kWords, bool upsamples>
struct ResidentConv {
    using Args = ResidentConvArgs;
    static constexpr bool kBeginsEarly = true;
    static constexpr int kKernel = upsamples ? 1 : 3;

    template <BitOp bit_op>
    MBUNET_DEVICE static void run(const ResidentConvArgs& args) {
        using Words = Sums<bit_op, masked, kWords>;
        const Block block = block_index();
        const int first_word = block.y * args.block_words;
        Tile tile = args.walk.at(block.x);
        uint32_t here = shared_memory(), there = here + static_cast<uint32_t>(args.tile_bytes);
        copy_weights(args, first_word, Words::kPlanes);
        wait_for_inputs();
        copy(args, tile, here);
        do {
            cp_async_wait<0>();
            barrier();  // everyone's copies of this tile are there, and nobody reads the last one any more
            const Tile next = args.walk.after(tile);
            if (args.walk.has(next)) copy(args, next, there);
            MBUNET_ROLLED
            for (int word = 0; word < args.block_words; word += kWords) {
                Words sums;
                multiply(args, sums, here, first_word, word);
                SignOutput<Words, kWords, upsamples>::store_tile(args, sums, tile.image, tile.y * kTileHeight,
                                                                 tile.x * kTileWidth, first_word + word);
            }
            tile = next;
            const uint32_t last = here;
            here = there;
            there = last;
        } while (args.walk.has(tile));
    }

  private:
    MBUNET_DEVICE static void copy(const ResidentConvArgs& args, const Tile& tile, uint32_t to) {
        copy_tiles<kKernel>(args.sources, args.extent, to, tile.image, tile.y * kTileHeight, tile.x * kTileWidth);
        cp_async_commit();
    }

    // [K step][output word of the block][plane][kSliceWords]; it is in the first tile's group of copies.
    MBUNET_DEVICE static void copy_weights(const ResidentConvArgs& args, int first_word, int planes) {
        const int word_bytes = planes * kSliceWords * 4, step_bytes = args.block_words * word_bytes;
        const uint32_t* from = args.weights + first_word * planes * kSliceWords;
        uint32_t to = shared_memory() + static_cast<uint32_t>(args.stages);
        MBUNET_ROLLED
        for (int k_step = 0; k_step < args.k_steps; ++k_step) {
            MBUNET_ROLLED
            for (int at = thread_index() * 16; at < step_bytes; at += kThreads * 16)
                cp_async<16>(to + static_cast<uint32_t>(at), from + at / 4, true);
            from += args.columns * planes * kSliceWords;
            to += static_cast<uint32_t>(step_bytes);
        }
    }

    template <class Words>
    MBUNET_DEVICE static void multiply(const ResidentConvArgs& args, Words& sums, uint32_t tiles, int first_word,
                                       int word) {
        constexpr int kWordBytes = Words::kStepBytes / kWords;
        uint32_t slice = shared_memory() + static_cast<uint32_t>(args.stages + word * kWordBytes);
        const auto step = [&](int k_step) {
            const auto found = Words::template step<SharedTile(kKernel).width>(
                Words::load_chunks(args.chunks + k_step * kChunkEntryWords), tiles, slice);
            slice += static_cast<uint32_t>(args.block_words * kWordBytes);
            return found;
        };
        sums.first(step(0), args.starts + (first_word + word) * kStartWords);
        MBUNET_ROLLED
        for (int k_step = 1; k_step < args.k_steps; ++k_step) sums.next(step(k_step));
    }
};

}  // namespace mbunet::cuda
