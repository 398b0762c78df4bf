// First layer: 3x3 over uint8 RGB with int16 weights, exact in int32, on integer Tensor Cores.
//
// A weight is 256 times a signed high byte plus an unsigned low byte, so two products of bytes give the sum. Its 27
// factors fit one product of K = 32: word j < 8 along K holds the colours of tap j and, in the fourth byte, for j < 3
// colour j of tap 8.
#pragma once

#include "bits.hpp"

namespace mbunet::cuda {

struct PixelArgs {
    const uint32_t* weights;  // [output word][block][lane][4]: high bytes of K words t and t + 4, then the low bytes
    const int32_t* limits;    // [output word][32]: -theta
    const Frame* frames;
    const uint8_t* pixels;
    uint32_t* output;
    int height, width, output_words;
};

struct Pixels {
    using Args = PixelArgs;
    static constexpr Patch kPatch{false};

    template <Form>
    MBUNET_DEVICE static void run(const PixelArgs& args) {
        const Block block = block_index();
        const int image = block.z;
        const Pixel origin = origin_of(block.x, args.width);
        const int y = origin.y, x = origin.x;
        const int warp = thread_index() / 32, lane = thread_index() % 32;
        copy_patch(args, image, y, x);
        barrier();
        uint32_t a[kFragments][4];
        repeat<kFragments>([&](int f) { repeat<4>([&](int i) { a[f][i] = factors(warp, lane, f, i % 2, i / 2); }); });
        const Pixel pixel = pixel_of(warp, lane);
        const bool real = y + pixel.y < args.height && x + pixel.x < args.width;
        const size_t at = pixel_index(image, y + pixel.y, x + pixel.x, args.height, args.width);
        for (int word = 0; word < args.output_words; ++word) {
            const uint32_t bits = output_word(args, a, lane, word);
            if (real) store(word_at(args.output, at, args.output_words, word), bits);
        }
    }

  private:
    // The patch is one word per pixel: red, green, blue, 0.
    MBUNET_DEVICE static void copy_patch(const PixelArgs& args, int image, int y, int x) {
        const Frame frame = load_frame(args.frames + image);
        const uint8_t* pixels = args.pixels + pixel_index(image, 0, 0, args.height, args.width) * 3;
        for (int i = thread_index(); i < kPatch.pixels; i += kThreads) {
            const int row = y - 1 + i / kPatch.width, column = x - 1 + i % kPatch.width;
            uint32_t colours = 0;
            if (row >= 0 && row < args.height && column >= 0 && column < args.width) {
                const int from_row = row < frame.height ? row : frame.height - 1;
                const int from_column = column < frame.width ? column : frame.width - 1;
                const uint8_t* from = pixels + pixel_index(0, from_row, from_column, frame.height, frame.width) * 3;
                colours = load(from) | static_cast<uint32_t>(load(from + 1)) << 8 |
                          static_cast<uint32_t>(load(from + 2)) << 16;
            }
            store_shared(shared_memory() + static_cast<uint32_t>(i * 4), colours);
        }
    }

    MBUNET_DEVICE static uint32_t patch_pixel(int row, int column, int tap) {
        const int pixel = (row + tap / 3) * kPatch.width + column + tap % 3;
        return load_shared(shared_memory() + static_cast<uint32_t>(pixel * 4));
    }

    // Word lane % 4 (+ 4 if `second`) along K of the pixel in fragment row lane / 4 (+ 8 if `lower`).
    MBUNET_DEVICE static uint32_t factors(int warp, int lane, int f, int lower, int second) {
        const int row = 2 * warp + lower, column = f * 8 + lane / 4, t = lane % 4;
        const uint32_t own = patch_pixel(row, column, t + 4 * second);
        return second ? own : own | patch_pixel(row, column, 8) >> (8 * t) << 24;
    }

    MBUNET_DEVICE static uint32_t output_word(const PixelArgs& args, const uint32_t (&a)[kFragments][4], int lane,
                                              int word) {
        int32_t high[kFragments][4][4] = {}, low[kFragments][4][4] = {};
        repeat<4>([&](int block) {
            const Words4 b = load(reinterpret_cast<const Words4*>(args.weights) + (word * 4 + block) * 32 + lane);
            const uint32_t b_high[2] = {b.x, b.y}, b_low[2] = {b.z, b.w};
            repeat<kFragments>([&](int f) {
                imma_u8s8(high[f][block], a[f], b_high);
                imma_u8u8(low[f][block], a[f], b_low);
            });
        });
        int32_t limits[8];
        load_limits(limits, args.limits + word * 32, lane);
        uint32_t bytes[4];
        repeat<4>([&](int i) {
            bytes[i] = sign_byte(lane, [&](int k) {
                const int f = i / 2, c = i % 2 * 2 + k % 2;
                return 256 * high[f][k / 2][c] + low[f][k / 2][c] + limits[k];
            });
        });
        return exchange(bytes, lane);
    }
};

}  // namespace mbunet::cuda
