// First layer: 3x3 over uint8 RGB with int16 weights, exact in int32, on integer Tensor Cores.
//
// A weight is 256 times a signed high byte plus an unsigned low byte, so two products of bytes give the sum. Its 27
// factors fit one product of K = 32: word j < 8 along K holds the colors of tap j and, in the fourth byte, for j < 3
// color j of tap 8.
#pragma once

#include "levels.hpp"
#include "sums.hpp"

namespace mbunet::cuda {

struct StemArgs {
    const uint32_t* weights;  // [output word][block][lane][4]: high bytes of K words t and t + 4, then the low bytes
    const int32_t* accumulator_start;  // [output word][threshold][32]: -theta
    const ImageParams* params;         // by image
    const uint8_t* pixels;
    uint32_t* output;
    int height, width, output_words;
    const int32_t* starts;  // [output word][kStartWords], of one threshold
};

template <int kPlanes>  // of the output
struct Stem {
    using Args = StemArgs;
    static constexpr SharedTile kSharedTile{3};

    template <BitOp>
    MBUNET_DEVICE static void run(const StemArgs& args) {
        const Block block = block_index();
        const int image = block.z;
        const Pixel origin = origin_of(block.x, args.width);
        const int y = origin.y, x = origin.x;
        const int warp = thread_index() / 32, lane = thread_index() % 32;
        copy_shared_tile(args, image, y, x);
        barrier();
        uint32_t a[kFragments][4];
        repeat<kFragments>([&](int f) { repeat<4>([&](int i) { a[f][i] = factors(warp, lane, f, i % 2, i / 2); }); });
        const Pixel pixel = pixel_of(warp, lane);
        const bool real = y + pixel.y < args.height && x + pixel.x < args.width;
        const size_t at = pixel_index(image, y + pixel.y, x + pixel.x, args.height, args.width);
        for (int word = 0; word < args.output_words; ++word) {
            const LevelWords words = output_words(args, a, lane, word);
            if (real) store_levels(args.output, at, kPlanes, args.output_words, word, words);
        }
    }

  private:
    // The shared tile is one word per pixel: red, green, blue, 0.
    MBUNET_DEVICE static void copy_shared_tile(const StemArgs& args, int image, int y, int x) {
        const ImageParams params = load_params(args.params + image);
        const uint8_t* pixels = args.pixels + pixel_index(image, 0, 0, args.height, args.width) * 3;
        for (int i = thread_index(); i < kSharedTile.pixels; i += kThreads) {
            const int row = y - 1 + i / kSharedTile.width, column = x - 1 + i % kSharedTile.width;
            uint32_t colors = 0;
            if (row >= 0 && row < args.height && column >= 0 && column < args.width) {
                const int from_row = row < params.height ? row : params.height - 1;
                const int from_column = column < params.width ? column : params.width - 1;
                const uint8_t* from = pixels + pixel_index(0, from_row, from_column, params.height, params.width) * 3;
                colors = load(from) | static_cast<uint32_t>(load(from + 1)) << 8 |
                         static_cast<uint32_t>(load(from + 2)) << 16;
            }
            store_shared(shared_memory() + static_cast<uint32_t>(i * 4), colors);
        }
    }

    MBUNET_DEVICE static uint32_t shared_pixel(int row, int column, int tap) {
        const int pixel = (row + tap / 3) * kSharedTile.width + column + tap % 3;
        return load_shared(shared_memory() + static_cast<uint32_t>(pixel * 4));
    }

    // Word lane % 4 (+ 4 if `second`) along K of the pixel in fragment row lane / 4 (+ 8 if `lower`).
    MBUNET_DEVICE static uint32_t factors(int warp, int lane, int f, int lower, int second) {
        const int row = 2 * warp + lower, column = f * 8 + lane / 4, t = lane % 4;
        const uint32_t own = shared_pixel(row, column, t + 4 * second);
        return second ? own : own | shared_pixel(row, column, 8) >> (8 * t) << 24;
    }

    MBUNET_DEVICE static LevelWords output_words(const StemArgs& args, const uint32_t (&a)[kFragments][4], int lane,
                                                 int word) {
        const int32_t zeros[4] = {};
        int32_t high[kFragments][4][4], low[kFragments][4][4];
        repeat<4>([&](int block) {
            int32_t start[4] = {};  // the sums' too: what the low bytes add is not scaled
            if constexpr (kPlanes == 1) load_start(start, args.starts + word * kStartWords, block);
            const Words4 b = load(reinterpret_cast<const Words4*>(args.weights) + (word * 4 + block) * 32 + lane);
            const uint32_t b_high[2] = {b.x, b.y}, b_low[2] = {b.z, b.w};
            repeat<kFragments>([&](int f) {
                imma_u8s8(high[f][block], a[f], b_high, zeros);
                imma_u8u8(low[f][block], a[f], b_low, start);
            });
        });
        int32_t sums[4][8];
        repeat<4>([&](int i) {
            repeat<8>([&](int k) {
                const int f = i / 2, c = i % 2 * 2 + k % 2;
                sums[i][k] = 256 * high[f][k / 2][c] + low[f][k / 2][c];
            });
        });
        const auto reached = [&](int level) {
            int32_t start[8] = {};
            if constexpr (kPlanes > 1)
                load_starts(start, args.accumulator_start + (word * (2 * kPlanes - 1) + level) * 32, lane);
            return sign_bytes([&](int i, int k) { return sums[i][k] + start[k]; });
        };
        if constexpr (kPlanes > 1)
            return two_planes(lane, reached);
        else
            return one_plane(lane, reached);
    }
};

}  // namespace mbunet::cuda
