// Pooling by itself: the highest level of every 2x2 square.
#pragma once

#include "levels.hpp"

namespace mbunet::cuda {

struct PoolArgs {
    const uint32_t* input;
    uint32_t* output;
    int height, width, words;  // of a plane of the output
};

template <int kPlanes>
struct Pool {
    using Args = PoolArgs;

    template <BitOp>
    MBUNET_DEVICE static void run(const PoolArgs& args) {
        const Block block = block_index();
        const int image = block.z, at = block.x * kThreads + thread_index();
        const int word = at % args.words, pixel = at / args.words, y = pixel / args.width, x = pixel % args.width;
        if (y >= args.height) return;
        const auto input = [&](int plane, int i, int j) {
            const size_t at = pixel_index(image, 2 * y + i, 2 * x + j, 2 * args.height, 2 * args.width);
            return load(word_at(args.input, at, kPlanes * args.words, plane * args.words + word));
        };
        const auto levels = [&](int i, int j) -> LevelWords {
            return {input(0, i, j), kPlanes > 1 ? input(1, i, j) : 0};
        };
        const LevelWords words = highest(highest(levels(0, 0), levels(0, 1)), highest(levels(1, 0), levels(1, 1)));
        store_levels(args.output, pixel_index(image, y, x, args.height, args.width), kPlanes, args.words, word, words);
    }
};

}  // namespace mbunet::cuda
