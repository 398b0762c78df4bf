// What sums.hpp does, by products of warpgroups: 64 output channels. The tile of pixels is an operand as it lies.
//
// Of masked weights a channel's positive ones and its negative ones are columns of their own, eight of these behind
// eight of those, and a thread has both sums: so nothing is complemented, and what is counted is their difference. Of
// others a channel has one column, and behind them is a block of columns that count the ones among the inputs.
#pragma once

#include "bits.hpp"

namespace mbunet::cuda {

// A fragment of 8 x 8 pixels.
template <bool masked>
struct WarpgroupFragment {
    static constexpr int kWords = 2;
    static constexpr int kColumns = warpgroup_columns(masked);
    static constexpr int kStepBytes = kColumns * 32;

    int32_t of[kColumns / 2];

    // Others may write what earlier steps have read.
    MBUNET_DEVICE static void before_barrier() { fence_proxy_async(); }

    // Begins a K step: `pixels` and `weights` are the low words of its operands' descriptors.
    MBUNET_DEVICE void add(uint32_t pixels, uint32_t weights, bool adds) {
        constexpr uint64_t kRows = SharedTile(3).width, kColumnsOn = 8;  // to the next row of pixels, and eight columns
        wgmma_and(of, kRows << 32 | pixels, kColumnsOn << 32 | weights, adds);
    }
    MBUNET_DEVICE static uint32_t low_word(uint32_t address, uint32_t half) {
        return static_cast<uint32_t>(matrix_descriptor(address, half, 0));
    }
    MBUNET_DEVICE static uint32_t of_weights(uint32_t address) { return low_word(address, kColumns * 16); }

    // What was counted for channel k (see sign_bytes) of output word w at the upper or lower (row 0 or 1) pixel.
    MBUNET_DEVICE int32_t value(int row, int w, int k) const {
        const int i = first(w, k) + row * kLower;
        return masked ? of[i] - of[i + kNegative] : of[i] * 2 - of[kOnes + row * kLower];
    }

    // The thread's bytes (see sign_bytes) of word i % 2 at the upper or lower (i / 2) pixel. What both pixels count of
    // a channel, and its start, have 16 bits each of one sum (see pair_start).
    MBUNET_DEVICE uint32_t sign_bits(const uint32_t (&starts)[kWords][8]) const {
        uint32_t bytes = 0;
        const uint32_t ones = masked ? 0 : at(kOnes) + (at(kOnes + kLower) << 16);
        repeat<8>([&](int k) {
            uint32_t sums[kWords];
            repeat<kWords>([&](int w) {
                const int i = first(w, k);
                const uint32_t lower = multiply_add(at(i + kLower), masked ? 1 << 16 : 2 << 16, starts[w][k]);
                if constexpr (masked)
                    sums[w] = multiply_add(at(i + kNegative + kLower), ~0u << 16, lower) + at(i) - at(i + kNegative);
                else
                    sums[w] = multiply_add(at(i), 2, lower) - ones;
            });
            bytes |= permute_sign_bits(sums[0], sums[1], 0x7351) & 0x01010101u << k;
        });
        return bytes;
    }

  private:
    static constexpr int kLower = 2, kNegative = 4;  // from a sum to the lower pixel's, and to the negative column's
    static constexpr int kOnes = 8 * 4;              // where ones are counted

    // Of a channel at the upper pixel.
    MBUNET_DEVICE static int first(int w, int k) { return (w * 4 + k / 2) * (masked ? 8 : 4) + k % 2; }
    MBUNET_DEVICE uint32_t at(int i) const { return static_cast<uint32_t>(of[i]); }
};

// The tile, whose weights stream (main_loop.hpp).
template <bool masked>
struct WarpgroupSums {
    using Fragment = WarpgroupFragment<masked>;
    static constexpr int kWords = Fragment::kWords;
    static constexpr bool kStartsAtZero = true;
    static constexpr int kStepBytes = Fragment::kStepBytes;
    static constexpr int kUnderWay = 1;  // K steps whose products may run on while the next one begins

    // Where the first 128 bits of the two chunks of a K step are, in bytes from the tiles' begin.
    using Chunks = Words2;
    struct Step {
        uint32_t pixels, weights;  // see WarpgroupFragment::add
    };

    Fragment of[kFragments];

    MBUNET_DEVICE static Chunks load_chunks(const uint32_t* entry) {
        return load(reinterpret_cast<const Words2*>(entry));
    }

    // Eight rows of a fragment are eight pixels of a row of the tile; the next eight are those below.
    template <int kTileWidthInShared>
    MBUNET_DEVICE static Step step(const Chunks& chunks, uint32_t tiles, uint32_t slice) {
        return {Fragment::low_word(tiles + chunks.x, chunks.y - chunks.x), Fragment::of_weights(slice)};
    }

    MBUNET_DEVICE void first(const Step& step, const int32_t*) { add(step, false); }
    MBUNET_DEVICE void next(const Step& step) { add(step, true); }

    MBUNET_DEVICE static void before_barrier() { Fragment::before_barrier(); }

    // All sums are there.
    MBUNET_DEVICE void finish() {
        wgmma_wait<0>();
        repeat<kFragments>([&](int f) { touch(of[f].of); });
    }

    // See Sums::value.
    MBUNET_DEVICE int32_t value(int f, int row, int w, int k) const { return of[f].value(row, w, k); }

  private:
    MBUNET_DEVICE void add(const Step& step, bool adds) {
        if (!adds) repeat<kFragments>([&](int f) { touch(of[f].of); });
        wgmma_fence();
        repeat<kFragments>(
            [&](int f) { of[f].add(step.pixels + static_cast<uint32_t>(f * kNextFragment / 16), step.weights, adds); });
        wgmma_commit();
        wgmma_wait<kUnderWay>();
    }
};

}  // namespace mbunet::cuda
