// 3x3 convolution and transposed 2x2 convolution of one segment on one plane to one plane: what MBU-Net is made of.
//
// What is stored are the signs of sums. Sums start at minus the threshold where the bit operation allows it
// (conv_weights.cpp), so the sign is the comparison.
#pragma once

#include "main_loop.hpp"

namespace mbunet::cuda {

// No more than it needs: with more arguments the compiler makes longer code of the rest.
using ConvArgs = MainLoopArgs<kMostInputs>;

template <bool masked, int kWords, bool upsamples>  // kWords: output words of a block
struct Conv {
    using Args = ConvArgs;
    using Loop = MainLoop<masked, kWords, upsamples ? 1 : 3, Args>;
    template <BitOp bit_op>
    using Sums = typename Loop::template Sums<bit_op>;

    template <BitOp bit_op>
    MBUNET_DEVICE static void run(const ConvArgs& args) {
        const Block block = block_index();
        const int word = block.y * kWords, image = block.z;
        const Pixel origin = origin_of(block.x, args.width);
        const int y = origin.y, x = origin.x;
        Loop::begin(args, image, y, x, word);
        int32_t start[kWords][8] = {};
        if constexpr (!Sums<bit_op>::kCountsOnes) load_all(start, args, word, thread_index() % 32);
        Sums<bit_op> sums(start);
        Loop::run(args, word, [&](int k_step, const Words2& chunks) { sums.add(args, k_step, chunks); });
        store_bits(args, sums, image, y, x, word);
    }

  private:
    MBUNET_DEVICE static void load_all(int32_t (&start)[kWords][8], const ConvArgs& args, int word, int lane) {
        repeat<kWords>([&](int w) { load_starts(start[w], args.accumulator_start + (word + w) * 32, lane); });
    }

    template <BitOp bit_op>
    MBUNET_DEVICE static void store_bits(const ConvArgs& args, const Sums<bit_op>& sums, int image, int y, int x,
                                         int word) {
        const Pixel pixel = pixel_of(sums.warp, sums.lane);
        y += pixel.y;
        x += pixel.x;
        int32_t thresholds[kWords][8] = {};
        if constexpr (Sums<bit_op>::kCountsOnes) load_all(thresholds, args, word, sums.lane);
        uint32_t bits[kWords], pooled[kWords];
        repeat<kWords>([&](int w) {  // lanes part only after the last exchange
            uint32_t bytes[4];
            repeat<4>([&](int i) {
                bytes[i] =
                    sign_byte(sums.lane, [&](int k) { return sums.value(i / 2, i % 2, w, k) + thresholds[w][k]; });
            });
            bits[w] = exchange(bytes, sums.lane);
            pooled[w] = upsamples ? 0 : pool(bits[w]);
        });
        if (y >= args.height || x >= args.width) return;
        repeat<kWords>([&](int w) { store(output_word(args, image, y, x, word + w), bits[w]); });
        if (upsamples || !args.pooled || y % 2 || x % 2) return;
        const size_t at = pixel_index(image, y / 2, x / 2, args.height / 2, args.width / 2);
        repeat<kWords>([&](int w) { store(word_at(args.pooled, at, args.output_words, word + w), pooled[w]); });
    }

    MBUNET_DEVICE static uint32_t* output_word(const ConvArgs& args, int image, int y, int x, int word) {
        if constexpr (upsamples) {  // columns are [tap][output word]
            const int tap = word / args.output_words;
            const size_t at = pixel_index(image, 2 * y + tap / 2, 2 * x + tap % 2, 2 * args.height, 2 * args.width);
            return word_at(args.output, at, args.output_words, word % args.output_words);
        } else {
            return word_at(args.output, pixel_index(image, y, x, args.height, args.width), args.output_words, word);
        }
    }
};

}  // namespace mbunet::cuda
