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

// A lane has so many pixels, the next one 32 further: the tables that a warp loads serve all of them.
constexpr int kHeadPixels = 4;

// What is decided of a pixel, class by class.
struct Decision {
    int best = 0;
    int32_t largest = INT32_MIN;

    MBUNET_DEVICE void add(int c, int32_t logit) {
        if (c && logit <= largest) return;  // the lowest of equal ones
        best = c;
        largest = logit;
    }
    MBUNET_DEVICE uint8_t mask(const ImageParams& params, int classes) const {
        return static_cast<uint8_t>(classes == 1 ? largest >= params.threshold : best);
    }
};

// The thread's pixels of an image.
class HeadPixels {
  public:
    MBUNET_DEVICE HeadPixels(const HeadArgs& args, const Block& block)
        : args_(args), lane_(thread_index() % 32), image_pixels_(args.height * args.width) {
        const int warp = block.x * kWarps + thread_index() / 32;
        const uint32_t* image = opaque(image_at(args.input, block.z, image_pixels_ * args.input_words));
        repeat<kHeadPixels>([&](int p) {
            at[p] = (warp * kHeadPixels + p) * 32 + lane_;
            const int real = at[p] < image_pixels_ ? at[p] : 0;  // what is behind the last is not stored
            words_[p] = image + static_cast<uint32_t>(real * args.input_words);
        });
    }

    int at[kHeadPixels];

    MBUNET_DEVICE bool has(int p) const { return at[p] < image_pixels_; }

    // Their places among the pixels of the image as it came; -1 of one that it does not have.
    MBUNET_DEVICE void find_places(int (&places)[kHeadPixels], const ImageParams& params) const {
        const int width = args_.width;
        if (width == params.width)
            return repeat<kHeadPixels>([&](int p) { places[p] = at[p] < params.height * width ? at[p] : -1; });
        repeat<kHeadPixels>([&](int p) {
            const int y = static_cast<int>(static_cast<uint32_t>(at[p]) / static_cast<uint32_t>(width));
            const int x = at[p] - y * width;
            places[p] = y < params.height && x < params.width ? y * params.width + x : -1;
        });
    }

    // Of a class.
    MBUNET_DEVICE void load_logits(int32_t (&logits)[kHeadPixels], int c) const {
        const int32_t base = load(args_.bases + c);
        repeat<kHeadPixels>([&](int p) { logits[p] = base; });
        const int32_t* tables = args_.weights + c * args_.input_words * kLookupWords + lane_;
        if (args_.input_words == 1) {
            uint32_t bits[kHeadPixels];
            repeat<kHeadPixels>([&](int p) { bits[p] = load(words_[p]); });
            return add_word(logits, bits, tables);
        }
        MBUNET_ROLLED
        for (int word = 0; word < args_.input_words; word += 2, tables += 2 * kLookupWords) {
            uint32_t first[kHeadPixels], second[kHeadPixels];
            repeat<kHeadPixels>([&](int p) {
                const Words2 words = load(reinterpret_cast<const Words2*>(words_[p] + word));
                first[p] = words.x;
                second[p] = words.y;
            });
            add_word(logits, first, tables);
            add_word(logits, second, tables + kLookupWords);
        }
    }

  private:
    // Lane l has entry l of every table.
    MBUNET_DEVICE static void add_word(int32_t (&logits)[kHeadPixels], const uint32_t (&bits)[kHeadPixels],
                                       const int32_t* tables) {
        uint32_t own[kLookups];
        repeat<kLookups>([&](int i) { own[i] = static_cast<uint32_t>(load(tables + (i << kLookupBits))); });
        repeat<kHeadPixels>([&](int p) {
            repeat<kLookups>(
                [&](int i) { logits[p] += static_cast<int32_t>(shuffle(own[i], bits[p] >> (i * kLookupBits))); });
        });
    }

    const HeadArgs& args_;
    const int lane_, image_pixels_;
    const uint32_t* words_[kHeadPixels];
};

struct Head {
    using Args = HeadArgs;

    template <BitOp>
    MBUNET_DEVICE static void run(const HeadArgs& args) {
        const Block block = block_index();
        const ImageParams params = load_params(args.batch.params + block.z);
        const HeadPixels pixels(args, block);
        const size_t first = pixel_index(block.z, 0, 0, args.height, args.width);
        uint8_t* masks = opaque(args.batch.masks + first);
        int places[kHeadPixels];
        pixels.find_places(places, params);
        Decision decisions[kHeadPixels];
        MBUNET_ROLLED
        for (int c = 0; c < args.classes; ++c) {
            int32_t logits[kHeadPixels];
            pixels.load_logits(logits, c);
            repeat<kHeadPixels>([&](int p) { decisions[p].add(c, logits[p]); });
            if (args.batch.logits)
                repeat<kHeadPixels>([&](int p) {
                    if (places[p] < 0) return;
                    const size_t to = (first + static_cast<size_t>(places[p])) * static_cast<size_t>(args.classes);
                    store(args.batch.logits + to + static_cast<size_t>(c), logits[p]);
                });
        }
        repeat<kHeadPixels>([&](int p) {
            if (places[p] >= 0)
                store(masks + static_cast<uint32_t>(places[p]), decisions[p].mask(params, args.classes));
        });
    }
};

// Logits that are still to be doubled in size.
struct CoarseHead {
    using Args = HeadArgs;

    template <BitOp>
    MBUNET_DEVICE static void run(const HeadArgs& args) {
        const Block block = block_index();
        const HeadPixels pixels(args, block);
        const size_t first = pixel_index(block.z, 0, 0, args.height, args.width);
        MBUNET_ROLLED
        for (int c = 0; c < args.classes; ++c) {
            int32_t logits[kHeadPixels];
            pixels.load_logits(logits, c);
            repeat<kHeadPixels>([&](int p) {
                if (!pixels.has(p)) return;
                const size_t to = (first + static_cast<size_t>(pixels.at[p])) * static_cast<size_t>(args.classes);
                store(args.coarse + to + static_cast<size_t>(c), logits[p]);
            });
        }
    }
};

}  // namespace mbunet::cuda
