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

// Takes a block, whose weights are being copied, from tile to tile. copy(tile, to, begin) begins to copy a tile's
// pixels to the shared tiles at `to` (see copy_tiles); before_barrier() comes before the barrier behind which nobody
// reads the last one's any more. multiply(tile, tiles, await, copy_next) gets the address of the tile's shared tiles,
// calls await once before it reads them and copy_next once behind that, and reads nothing of them after it has
// returned.
template <class Copy, class BeforeBarrier, class Multiply>
MBUNET_DEVICE void take_tiles(const ResidentConvArgs& args, const Copy& copy, const BeforeBarrier& before_barrier,
                              const Multiply& multiply) {
    Tile tile = args.walk.at(block_index().x);
    uint32_t here = shared_memory(), there = here + static_cast<uint32_t>(args.tile_bytes);
    copy(tile, here, [](const void* known) { wait_for_inputs(known); });
    do {
        const Tile next = args.walk.after(tile);
        const auto await = [&] {
            cp_async_wait<0>();
            before_barrier();
            barrier();  // everyone's copies of this tile are there, and nobody reads the last one any more
        };
        multiply(tile, here, await, [&] {
            if (args.walk.has(next)) copy(next, there, [](const void*) {});
        });
        tile = next;
        const uint32_t last = here;
        here = there;
        there = last;
    } while (args.walk.has(tile));
}

// The weights of a block of kCount threads, which it copies once, and its way from tile to tile.
template <class Words, int kKernel, int kCount = kThreads, int kPixelWords = 0, bool joined = false>
struct Residence {
    const ResidentConvArgs& args;
    int first_word;  // of the block

    template <class Multiply>
    MBUNET_DEVICE void run(const Multiply& multiply) const {
        copy_weights();
        take_tiles(
            args, [&](const Tile& tile, uint32_t to, const auto& begin) { copy(tile, to, begin); },
            [] { Words::before_barrier(); }, multiply);
    }

    // Address of the weights of a K step, from an output word of the block on.
    MBUNET_DEVICE uint32_t slice(int word) const {
        return shared_memory() + static_cast<uint32_t>(args.stages + word * kWordBytes);
    }
    MBUNET_DEVICE uint32_t step_bytes() const { return static_cast<uint32_t>(args.block_words * kWordBytes); }

  private:
    static constexpr int kWordBytes = Words::kStepBytes / Words::kWords;

    template <class Begin>
    MBUNET_DEVICE void copy(const Tile& tile, uint32_t to, const Begin& begin) const {
        const int y = tile.y * kTileHeight, x = tile.x * kTileWidth;
        if constexpr (kPixelWords)
            copy_tiles_of<kKernel, kPixelWords, joined, kCount>(args.sources, args.extent, to, tile.image, y, x, begin);
        else
            copy_tiles<kKernel, kCount>(args.sources, args.extent, to, tile.image, y, x, begin);
        cp_async_commit();
    }

    // [K step][output word of the block][kWordBytes]; it is in the first tile's group of copies.
    MBUNET_DEVICE void copy_weights() const {
        MBUNET_ROLLED
        for (uint32_t at = static_cast<uint32_t>(thread_index() * 16); at < step_bytes(); at += kCount * 16) {
            const uint32_t* from = args.weights + first_word * (kWordBytes / 4) + at / 4;
            uint32_t to = slice(0) + at;
            MBUNET_UNROLLED
            for (int k_step = 0; k_step < args.k_steps; ++k_step) {
                cp_async<16>(to, from, true);
                from += args.columns * (kWordBytes / 4);
                to += step_bytes();
            }
        }
    }
};

template <bool masked, int kWords>
struct ResidentConv {
    using Args = ResidentConvArgs;
    static constexpr bool kBeginsEarly = true;
    static constexpr int kKernel = 3;

    template <BitOp bit_op>
    MBUNET_DEVICE static void run(const ResidentConvArgs& args) {
        using Words = Sums<bit_op, masked, kWords>;
        const Residence<Words, kKernel> residence{args, block_index().y * args.block_words};
        residence.run([&](const Tile& tile, uint32_t tiles, const auto& await, const auto& copy_next) {
            await();
            copy_next();
            MBUNET_ROLLED
            for (int word = 0; word < args.block_words; word += kWords) {
                Words sums;
                multiply(residence, sums, tiles, word);
                SignOutput<Words, kWords>::store_tile(args, sums, tile.image, tile.y * kTileHeight, tile.x * kTileWidth,
                                                      residence.first_word + word);
            }
        });
    }

  private:
    template <class Words>
    MBUNET_DEVICE static void multiply(const Residence<Words, kKernel>& residence, Words& sums, uint32_t tiles,
                                       int word) {
        const ResidentConvArgs& args = residence.args;
        uint32_t slice = residence.slice(word);
        const auto step = [&](int k_step) {
            const auto found = Words::template step<SharedTile(kKernel).width>(
                Words::load_chunks(args.chunks + k_step * kChunkEntryWords), tiles, slice);
            slice += residence.step_bytes();
            return found;
        };
        sums.first(step(0), args.starts + (residence.first_word + word) * kStartWords);
        MBUNET_ROLLED
        for (int k_step = 1; k_step < args.k_steps; ++k_step) sums.next(step(k_step));
    }
};

}  // namespace mbunet::cuda
