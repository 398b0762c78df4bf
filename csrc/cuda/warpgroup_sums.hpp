// What sums.hpp does, by products of warpgroups: 64 output channels of masked weights. A channel's positive weights
// and its negative ones are columns of their own, eight of these behind eight of those, and a thread has both sums: so
// nothing is complemented, and what is counted is their difference. The tile of pixels is an operand as it lies.
#pragma once

#include "bits.hpp"

namespace mbunet::cuda {

struct WarpgroupConvSums {
    static constexpr int kWords = 2;
    static constexpr bool kStartsAtZero = true;
    static constexpr int kPlanes = 2;  // of weights
    static constexpr int kStepBytes = kWords * kPlanes * kSliceWords * 4;
    static constexpr int kUnderWay = 1;  // K steps whose products may run on while the next one begins
    static constexpr int kColumns = 128;

    // Where the first 128 bits of the two chunks of a K step are, in bytes from the tiles' begin.
    using Chunks = Words2;
    struct Step {
        uint64_t pixels, weights;  // descriptors
    };

    WarpgroupSums of[kFragments];

    MBUNET_DEVICE static Chunks load_chunks(const uint32_t* entry) {
        return load(reinterpret_cast<const Words2*>(entry));
    }

    // Eight rows of a fragment are eight pixels of a row of the tile; the next eight are those below.
    template <int kTileWidthInShared>
    MBUNET_DEVICE static Step step(const Chunks& chunks, uint32_t tiles, uint32_t slice) {
        return {matrix_descriptor(tiles + chunks.x, chunks.y - chunks.x, kTileWidthInShared * 16),
                matrix_descriptor(slice, kColumns * 16, 8 * 16)};
    }

    MBUNET_DEVICE void first(const Step& step, const int32_t*) { add(step, false); }
    MBUNET_DEVICE void next(const Step& step) { add(step, true); }

    // Others may write what earlier steps have read.
    MBUNET_DEVICE static void before_barrier() { fence_proxy_async(); }

    // All sums are there.
    MBUNET_DEVICE void finish() {
        wgmma_wait<0>();
        repeat<kFragments>([&](int f) { touch(of[f]); });
    }

    // See Sums::value.
    MBUNET_DEVICE int32_t value(int f, int row, int w, int k) const {
        const int at = (w * 4 + k / 2) * 8 + row * 2 + k % 2;
        return of[f][at] - of[f][at + 4];
    }

  private:
    MBUNET_DEVICE void add(const Step& step, bool adds) {
        if (!adds) repeat<kFragments>([&](int f) { touch(of[f]); });
        wgmma_fence();
        repeat<kFragments>([&](int f) {
            constexpr uint64_t kOn = kNextFragment / 16;  // of a descriptor's address
            wgmma_m64n128k256_and(of[f], step.pixels + static_cast<uint64_t>(f) * kOn, step.weights, adds);
        });
        wgmma_commit();
        wgmma_wait<kUnderWay>();
    }
};

}  // namespace mbunet::cuda
