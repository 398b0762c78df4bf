// What works on single pixels: the last layer with the decision of the mask, and pooling by itself.
#pragma once

#include "bits.hpp"

namespace mbunet::cuda {

struct HeadArgs {
    const int32_t* weights;  // [class][32 * input_words]: added for a one
    const int32_t* bases;    // [class]: the logit of zeros
    const uint32_t* input;
    Batch batch;
    int height, width, input_words, classes;
};

struct Head {
    using Args = HeadArgs;

    template <BitOp>
    MBUNET_DEVICE static void run(const HeadArgs& args) {
        const Block block = block_index();
        const int image = block.z, at = block.x * kThreads + thread_index();
        const int y = at / args.width, x = at % args.width;
        const ImageParams params = load_params(args.batch.params + image);
        if (y >= params.height || x >= params.width) return;
        const size_t pixel =
            pixel_index(image, 0, 0, args.height, args.width) + pixel_index(0, y, x, params.height, params.width);
        const uint32_t* words =
            word_at(args.input, pixel_index(image, y, x, args.height, args.width), args.input_words, 0);
        int best = 0;
        int32_t largest = 0;
        for (int c = 0; c < args.classes; ++c) {
            const int32_t value = logit(args, words, c);
            if (args.batch.logits)
                store(args.batch.logits + pixel * static_cast<size_t>(args.classes) + static_cast<size_t>(c), value);
            if (c == 0 || value > largest) {  // the lowest of equal ones
                best = c;
                largest = value;
            }
        }
        const int decision = args.classes == 1 ? largest >= params.threshold : best;
        store(args.batch.masks + pixel, static_cast<uint8_t>(decision));
    }

  private:
    MBUNET_DEVICE static int32_t logit(const HeadArgs& args, const uint32_t* words, int c) {
        const auto* weights = reinterpret_cast<const Words4*>(args.weights) + c * args.input_words * 8;
        uint32_t sum = static_cast<uint32_t>(load(args.bases + c));
        for (int word = 0; word < args.input_words; ++word) {
            const uint32_t bits = load(words + word);
            repeat<8>([&](int i) {
                const Words4 w = load(weights + word * 8 + i);
                const uint32_t four[4] = {w.x, w.y, w.z, w.w};
                repeat<4>([&](int k) { sum += bits >> (4 * i + k) & 1 ? four[k] : 0; });
            });
        }
        return static_cast<int32_t>(sum);
    }
};

struct PoolArgs {
    const uint32_t* input;
    uint32_t* output;
    int height, width, words;  // of the output
};

struct Pool {
    using Args = PoolArgs;

    template <BitOp>
    MBUNET_DEVICE static void run(const PoolArgs& args) {
        const Block block = block_index();
        const int image = block.z, at = block.x * kThreads + thread_index();
        const int word = at % args.words, pixel = at / args.words, y = pixel / args.width, x = pixel % args.width;
        if (y >= args.height) return;
        const auto input = [&](int i, int j) {
            const size_t at = pixel_index(image, 2 * y + i, 2 * x + j, 2 * args.height, 2 * args.width);
            return load(word_at(args.input, at, args.words, word));
        };
        store(word_at(args.output, pixel_index(image, y, x, args.height, args.width), args.words, word),
              input(0, 0) | input(0, 1) | input(1, 0) | input(1, 1));
    }
};

}  // namespace mbunet::cuda
