// A convolution of bits as a product of matrices: rows are pixels, columns output channels, and the sum runs over taps
// and input channels in K steps of 256 bits. Here are the products; what becomes of the sums say conv.hpp and
// general_conv.hpp.
//
// A block copies what its tile of pixels reads into shared memory once, all channels of it, and then streams the
// weights of its columns through the stages of a pipeline. Sums stay in registers.
#pragma once

#include "bits.hpp"
#include "heuristics.hpp"
#include "k_schedule.hpp"

namespace mbunet::cuda {

// A plane of an input.
struct Source {
    const uint32_t* words;  // of the first pixel; null if the source is not there
    int pixel_words;        // of this plane
    int pitch;              // slab_pitch
    int offset;             // of its shared tile in shared memory, bytes
};

// What every kernel with this loop is told.
template <int kCount>
struct MainLoopArgs {
    static constexpr int kSources = kCount;
    const uint32_t* weights;           // [K step][output word][plane][kSliceWords]
    const int32_t* accumulator_start;  // [output word][threshold][32]
    const uint32_t* chunks;            // [K step][2]
    Source sources[kSources];          // by input and plane
    uint32_t* output;
    uint32_t* pooled;   // or null
    int height, width;  // of the sources
    int k_steps;
    int output_words;  // words of a plane of an output pixel
    int columns;       // output words computed for one pixel of the sources: four times output_words if upsampling
    int stages;        // offset of the stages of weights in shared memory, bytes

    // Words of a pixel of the tensor that a source is a plane of.
    MBUNET_DEVICE int tensor_words(const Source& source) const { return source.pixel_words; }
};

template <bool masked, int kWords, int kernel, class Args>  // kWords: output words of a block
struct MainLoop {
    static constexpr int kPlanes = masked ? 2 : 1;  // of weights
    static constexpr int kSliceBytes = kWords * kPlanes * kSliceWords * 4;
    static constexpr SharedTile kSharedTile{kernel};

    // Begins to copy the sources' tile at (y, x), and the weights of the first stages.
    MBUNET_DEVICE static void begin(const Args& args, int image, int y, int x, int word) {
        copy_shared_tile(args, args.sources[0], image, y, x);
        repeat<Args::kSources - 1>([&](int i) {
            if (args.sources[i + 1].words) copy_shared_tile(args, args.sources[i + 1], image, y, x);
        });
        for (int k_step = 0; k_step < kStages - 1; ++k_step)
            copy_weights(args, k_step, word);  // the shared tile is in the first group of copies
    }

    // Calls add(k_step, chunks) for one K step after another, as soon as its weights are there.
    template <class Add>
    MBUNET_DEVICE static void run(const Args& args, int word, const Add& add) {
        Words2 chunks = load_chunks(args, 0);
        for (int k_step = 0; k_step < args.k_steps; ++k_step) {
            const Words2 next = load_chunks(args, k_step + 1 < args.k_steps ? k_step + 1 : k_step);
            cp_async_wait<kStages - 2>();
            barrier();  // everyone's copies of this K step are there, and nobody reads the last one's weights any more
            copy_weights(args, k_step + kStages - 1, word);
            add(k_step, chunks);
            chunks = next;
        }
    }

    // What a thread has of the sums of its warp's pixels and the block's output channels.
    template <BitOp bit_op>
    struct Sums {
        static constexpr bool kCountsOnes = bit_op == BitOp::kAnd && !masked;
        int32_t of[kFragments][kWords * 4][4];
        int32_t ones[kFragments][4];  // where needed: ones among the inputs, the same for every channel
        int warp, lane;

        MBUNET_DEVICE explicit Sums(const int32_t (&start)[kWords][8])
            : warp(thread_index() / 32), lane(thread_index() % 32) {
            set(start);
        }

        MBUNET_DEVICE void set(const int32_t (&start)[kWords][8]) {
            repeat<kFragments>([&](int f) {
                repeat<4>([&](int i) {
                    ones[f][i] = 0;
                    repeat<kWords * 4>([&](int n) { of[f][n][i] = start[n / 4][n % 4 * 2 + i % 2]; });
                });
            });
        }

        MBUNET_DEVICE void add(const Args& args, int k_step, const Words2& chunks) {
            const uint32_t pixels = shared_memory() + static_cast<uint32_t>(row_offset(warp, lane, kSharedTile.width)) +
                                    ((lane < 16 ? chunks.x : chunks.y) & ~kChunkWords);
            // all ones where the thread's word of the first and of the second chunk belongs to the layer
            const uint32_t taps[2] = {0 - (chunks.x >> lane % 4 & 1), 0 - (chunks.y >> lane % 4 & 1)};
            uint32_t a[kFragments][4];
            repeat<kFragments>([&](int f) {
                ldmatrix(a[f], pixels + static_cast<uint32_t>(f * kNextFragment));
                if constexpr (kCountsOnes) bmma_and(ones[f], a[f], taps);
                if constexpr (bit_op == BitOp::kXor && !masked) repeat<4>([&](int i) { a[f][i] &= taps[i / 2]; });
            });
            const uint32_t slice =
                shared_memory() + static_cast<uint32_t>(args.stages + k_step % kStages * kSliceBytes + lane * 16);
            multiply<0>(a, slice);
            if constexpr (masked) {
                if constexpr (bit_op == BitOp::kAnd)
                    repeat<kFragments>([&](int f) { repeat<4>([&](int i) { a[f][i] = ~a[f][i]; }); });
                multiply<1>(a, slice);
            }
        }

        template <int kPlane>
        MBUNET_DEVICE void multiply(const uint32_t (&a)[kFragments][4], uint32_t slice) {
            repeat<kWords * 2>([&](int pair) {
                const int at = (pair / 2 * kPlanes + kPlane) * 2 + pair % 2;
                const Words4 b = load_shared4(slice + static_cast<uint32_t>(at * kSliceWords * 2));
                const uint32_t even[2] = {b.x, b.y}, odd[2] = {b.z, b.w};
                repeat<kFragments>([&](int f) {
                    product(of[f][pair * 2], a[f], even);
                    product(of[f][pair * 2 + 1], a[f], odd);
                });
            });
        }

        MBUNET_DEVICE static void product(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
            if constexpr (bit_op == BitOp::kXor)
                bmma_xor(c, a, b);
            else
                bmma_and(c, a, b);
        }

        // What was counted for channel k (see sign_byte) of output word w at the upper or lower (row 0 or 1) pixel of
        // fragment f; what it means says conv_weights.hpp.
        MBUNET_DEVICE int32_t value(int f, int row, int w, int k) const {
            const int32_t sum = of[f][w * 4 + k / 2][row * 2 + k % 2];
            return kCountsOnes ? 2 * sum - ones[f][row * 2] : sum;
        }
    };

  private:
    MBUNET_DEVICE static void copy_shared_tile(const Args& args, const Source& source, int image, int y, int x) {
        switch (source.pixel_words) {
            case 1: return copy_pixels<4>(args, source, image, y, x);
            case 2: return copy_pixels<8>(args, source, image, y, x);
            default: return copy_pixels<16>(args, source, image, y, x);
        }
    }

    // Threads walk over the pieces of pixels, a pixel's pieces first, as they lie in the tensor.
    template <int kBytes>
    MBUNET_DEVICE static void copy_pixels(const Args& args, const Source& source, int image, int y, int x) {
        constexpr bool kNarrow = kBytes < 16;
        const int pieces = kNarrow ? 16 / kBytes : source.pixel_words / 4;
        const int pixels_on = kThreads / pieces, pieces_on = kThreads % pieces;
        const int from_pixel = args.tensor_words(source);
        const uint32_t* words = word_at(source.words, pixel_index(image, 0, 0, args.height, args.width), from_pixel, 0);
        const uint32_t shared_tile = shared_memory() + static_cast<uint32_t>(source.offset);
        int pixel = thread_index() / pieces, piece = thread_index() % pieces;
        while (pixel < kSharedTile.pixels) {
            const int row = y - kSharedTile.halo + pixel / kSharedTile.width;
            const int column = x - kSharedTile.halo + pixel % kSharedTile.width + (kNarrow ? piece : 0);
            const bool real = row >= 0 && row < args.height && column >= 0 && column < args.width;
            const int from = (row * args.width + column) * from_pixel + (kNarrow ? 0 : piece * 4);
            cp_async<kBytes>(
                shared_tile + static_cast<uint32_t>(piece_offset(pixel, piece, kNarrow ? kBytes / 4 : 4, source.pitch)),
                words + (real ? from : 0), real);
            pixel += pixels_on;
            piece += pieces_on;
            if (piece >= pieces) {
                piece -= pieces;
                ++pixel;
            }
        }
    }

    // One group of copies for every K step, empty behind the last.
    MBUNET_DEVICE static void copy_weights(const Args& args, int k_step, int word) {
        if (k_step < args.k_steps) {
            const uint32_t* from =
                args.weights + static_cast<size_t>(k_step * args.columns + word) * (kPlanes * kSliceWords);
            const uint32_t to = shared_memory() + static_cast<uint32_t>(args.stages + k_step % kStages * kSliceBytes);
            constexpr int kRound = kThreads * 16;
            repeat<divide_up(kSliceBytes, kRound)>([&](int round) {
                const int at = round * kRound + thread_index() * 16;
                if (kSliceBytes % kRound == 0 || at < kSliceBytes)
                    cp_async<16>(to + static_cast<uint32_t>(at), from + at / 4, true);
            });
        }
        cp_async_commit();
    }

    MBUNET_DEVICE static Words2 load_chunks(const Args& args, int k_step) {
        return load(reinterpret_cast<const Words2*>(args.chunks) + k_step);
    }
};

}  // namespace mbunet::cuda
