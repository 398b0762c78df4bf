// What a thread counts: the sums of its warp's pixels and of some output words, K step by K step. Where the operands
// lie is the business of who calls it.
#pragma once

#include "bits.hpp"

namespace mbunet::cuda {

// Words of an output word's starts as a product takes them: for every block of eight columns and every thread of a quad
// its four sums.
constexpr int kStartWords = 4 * 4 * 4;

// The thread's four sums of a block of columns of an output word.
MBUNET_DEVICE void load_start(int32_t (&start)[4], const int32_t* starts, int block) {
    const Words4 own = load(reinterpret_cast<const Words4*>(starts) + block * 4 + thread_index() % 4);
    const uint32_t words[4] = {own.x, own.y, own.z, own.w};
    repeat<4>([&](int i) { start[i] = static_cast<int32_t>(words[i]); });
}

// Of `kWords` output words, whose weights of a K step lie in shared memory as [word][plane][kSliceWords].
template <BitOp bit_op, bool masked, int words>
struct Sums {
    static constexpr bool kCountsOnes = bit_op == BitOp::kAnd && !masked;
    static constexpr bool kStartsAtZero = kCountsOnes;  // and not at minus the threshold
    static constexpr int kWords = words;
    static constexpr int kUnderWay = 0;
    static constexpr int kPlanes = masked ? 2 : 1;  // of weights
    static constexpr int kStepBytes = kWords * kPlanes * kSliceWords * 4;

    // What a K step's two chunks are: the lane's own offset in the shared tiles, and taps as below.
    struct Chunks {
        uint32_t offset;
        Words2 taps;
    };

    // Where a K step's operands are.
    struct Step {
        uint32_t pixels;  // address of the lane's row of ldmatrix in fragment 0: row_offset and the chunk's offset
        uint32_t slice;   // address of the lane's first weights
        Words2 taps;      // by chunk: all ones where the lane's word of it belongs to the layer; not read if masked
    };

    int32_t of[kFragments][kWords * 4][4];
    int32_t ones[kFragments][4];  // where needed: ones among the inputs, the same for every channel

    MBUNET_DEVICE static Chunks load_chunks(const uint32_t* entry) {
        const int lane = thread_index() % 32;
        Chunks found{load(entry + lane / 16), {}};
        if constexpr (!masked) {
            const Words2 own = load(reinterpret_cast<const Words2*>(entry + 2));
            found.taps = {0 - (own.x >> lane % 4 & 1), 0 - (own.y >> lane % 4 & 1)};
        }
        return found;
    }

    // Of tiles and weights in shared memory.
    template <int kTileWidthInShared>
    MBUNET_DEVICE static Step step(const Chunks& chunks, uint32_t tiles, uint32_t slice) {
        const int warp = thread_index() / 32, lane = thread_index() % 32;
        return {tiles + static_cast<uint32_t>(row_offset(warp, lane, kTileWidthInShared)) + chunks.offset,
                slice + static_cast<uint32_t>(lane * 16), chunks.taps};
    }

    // What warpgroup_sums.hpp has to do here.
    MBUNET_DEVICE static void before_barrier() {}
    MBUNET_DEVICE static void finish() {}

    MBUNET_DEVICE void clear() {
        repeat<kFragments>([&](int f) {
            repeat<4>([&](int i) {
                ones[f][i] = 0;
                repeat<kWords * 4>([&](int n) { of[f][n][i] = 0; });
            });
        });
    }

    // Sets the sums to what the first K step adds to their starts, [word][kStartWords]; to zero where ones are counted.
    MBUNET_DEVICE void first(const Step& step, const int32_t* starts) {
        int32_t start[kWords * 4][4] = {};
        if constexpr (!kCountsOnes) repeat<kWords * 4>([&](int n) { load_start(start[n], starts, n); });
        add<true>(step, start);
    }

    // Adds one of the others.
    MBUNET_DEVICE void next(const Step& step) { add<false>(step, of[0]); }

    // What was counted for channel k (see sign_bytes) of output word w at the upper or lower (row 0 or 1) pixel of
    // fragment f; what it means says conv_weights.hpp.
    MBUNET_DEVICE int32_t value(int f, int row, int w, int k) const {
        const int32_t sum = of[f][w * 4 + k / 2][row * 2 + k % 2];
        return kCountsOnes ? 2 * sum - ones[f][row * 2] : sum;
    }

  private:
    using Quads = int32_t[kWords * 4][4];

    template <bool is_first>
    MBUNET_DEVICE void add(const Step& step, const Quads& start) {
        const uint32_t taps[2] = {step.taps.x, step.taps.y};
        const int32_t none[4] = {};
        uint32_t a[kFragments][4];
        repeat<kFragments>([&](int f) {
            ldmatrix(a[f], step.pixels + static_cast<uint32_t>(f * kNextFragment));
            if constexpr (kCountsOnes && is_first) bmma_and(ones[f], a[f], taps, none);
            if constexpr (kCountsOnes && !is_first) bmma_and(ones[f], a[f], taps, ones[f]);
            if constexpr (bit_op == BitOp::kXor && !masked) repeat<4>([&](int i) { a[f][i] &= taps[i / 2]; });
        });
        multiply<0, is_first>(a, step.slice, start);
        if constexpr (!masked) return;
        if constexpr (bit_op == BitOp::kAnd)
            repeat<kFragments>([&](int f) { repeat<4>([&](int i) { a[f][i] = ~a[f][i]; }); });
        multiply<kPlanes - 1, false>(a, step.slice, start);
    }

    template <int kPlane, bool is_first>
    MBUNET_DEVICE void multiply(const uint32_t (&a)[kFragments][4], uint32_t slice, const Quads& start) {
        repeat<kWords * 2>([&](int pair) {
            const int at = (pair / 2 * kPlanes + kPlane) * 2 + pair % 2;
            const Words4 b = load_shared4(slice + static_cast<uint32_t>(at * kSliceWords * 2));
            const uint32_t columns[2][2] = {{b.x, b.y}, {b.z, b.w}};
            repeat<kFragments>([&](int f) {
                repeat<2>([&](int odd) {
                    const int n = pair * 2 + odd;
                    if constexpr (is_first)
                        bmma<bit_op>(of[f][n], a[f], columns[odd], start[n]);
                    else
                        bmma<bit_op>(of[f][n], a[f], columns[odd], of[f][n]);
                });
            });
        });
    }
};

}  // namespace mbunet::cuda
