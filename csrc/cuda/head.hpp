// The last layer: integer sums over the bits of single pixels, and the decision of the mask.
#pragma once

#include "bits.hpp"

namespace mbunet::cuda {

struct HeadArgs {
    const int32_t* weights;  // [class][input word][kLookups][1 << kLookupBits]: what the ones of five bits add
    const int32_t* bases;    // [class]: the logit of zeros
    const uint32_t* input;
    Batch batch;
    int height, width, input_words, classes;  // words of all planes of a pixel
    int32_t* coarse;                          // CoarseHead: [image][height][width][class]
};

MBUNET_DEVICE int32_t logit(const HeadArgs& args, const uint32_t* words, int c) {
    const int32_t* sums = args.weights + c * args.input_words * kLookupWords;
    int32_t sum = load(args.bases + c);
    MBUNET_ROLLED
    for (int word = 0; word < args.input_words; ++word, sums += kLookupWords) {
        const uint32_t bits = load(words + word);
        const int32_t* table = opaque(sums);
        repeat<kLookups>([&](int i) {
            const uint32_t five = bits >> (i * kLookupBits) & ((1u << kLookupBits) - 1);
            sum += load(table + five + (i << kLookupBits));
        });
    }
    return sum;
}

// Writes the logits, which logit_of(class) gives, and the mask of one pixel of an image of the batch.
template <class Logit>
MBUNET_DEVICE void decide(const Batch& batch, const ImageParams& params, size_t pixel, int classes,
                          const Logit& logit_of) {
    int best = 0;
    int32_t largest = 0;
    for (int c = 0; c < classes; ++c) {
        const int32_t value = logit_of(c);
        if (batch.logits) store(batch.logits + pixel * static_cast<size_t>(classes) + static_cast<size_t>(c), value);
        if (c == 0 || value > largest) {  // the lowest of equal ones
            best = c;
            largest = value;
        }
    }
    const int decision = classes == 1 ? largest >= params.threshold : best;
    store(batch.masks + pixel, static_cast<uint8_t>(decision));
}

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
        decide(args.batch, params, pixel, args.classes, [&](int c) { return logit(args, words, c); });
    }
};

// Logits that are still to be doubled in size.
struct CoarseHead {
    using Args = HeadArgs;

    template <BitOp>
    MBUNET_DEVICE static void run(const HeadArgs& args) {
        const Block block = block_index();
        const int image = block.z, at = block.x * kThreads + thread_index();
        const int y = at / args.width, x = at % args.width;
        if (y >= args.height) return;
        const size_t pixel = pixel_index(image, y, x, args.height, args.width);
        const uint32_t* words = word_at(args.input, pixel, args.input_words, 0);
        for (int c = 0; c < args.classes; ++c)
            store(args.coarse + pixel * static_cast<size_t>(args.classes) + static_cast<size_t>(c),
                  logit(args, words, c));
    }
};

}  // namespace mbunet::cuda
