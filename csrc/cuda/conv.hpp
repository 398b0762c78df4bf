// 3x3 convolution of one segment on one plane to one plane: what MBU-Net is made of, beside the transposed ones of
// up_conv.hpp.
//
// What is stored are the signs of sums. Sums start at minus the threshold where the bit operation allows it
// (conv_weights.cpp), so the sign is the comparison.
#pragma once

#include "main_loop.hpp"
#include "warpgroup_sums.hpp"

namespace mbunet::cuda {

struct ConvArgs : MainLoopArgs<kMostInputs> {
    const int32_t* starts;  // [output word][kStartWords]: accumulator_start, as Sums takes them
    int output_image_words, pooled_image_words;
};

// Writes the signs of sums.
template <class Sums, int kWords>
struct SignOutput {
    // Of the tile at (y, x) of an image: output words from `word` on.
    MBUNET_DEVICE static void store_tile(const ConvArgs& args, const Sums& sums, int image, int y, int x, int word) {
        const int lane = thread_index() % 32;
        const Pixel pixel = pixel_of(thread_index() / 32, lane);
        y += pixel.y;
        x += pixel.x;
        int32_t thresholds[kWords][8] = {};
        if constexpr (Sums::kStartsAtZero)
            repeat<kWords>([&](int w) { load_starts(thresholds[w], args.accumulator_start + (word + w) * 32, lane); });
        uint32_t bits[kWords], pooled[kWords];
        repeat<kWords>([&](int w) {  // lanes part only after the last exchange
            bits[w] = exchange(
                sign_bytes([&](int i, int k) { return sums.value(i / 2, i % 2, w, k) + thresholds[w][k]; }), lane);
            pooled[w] = pool(bits[w]);
        });
        const Extent& extent = args.extent;
        if (y >= extent.height || x >= extent.width) return;
        uint32_t* output = image_at(args.output, image, args.output_image_words);
        store_words(output, (y * extent.width + x) * args.output_words + word, bits);
        if (!args.pooled || y % 2 || x % 2) return;
        const int at = (y / 2 * (extent.width / 2) + x / 2) * args.output_words + word;
        store_words(image_at(args.pooled, image, args.pooled_image_words), at, pooled);
    }

  private:
    // Within an image 32 bits are enough of an offset.
    MBUNET_DEVICE static void store_words(uint32_t* image, int at, const uint32_t (&bits)[kWords]) {
        uint32_t* to = opaque(image) + static_cast<uint32_t>(at);
        if constexpr (kWords == 2)
            store(reinterpret_cast<Words2*>(to), Words2{bits[0], bits[1]});
        else
            store(to, bits[0]);
    }
};

// A block computes one tile of pixels and some output words of it; its weights stream through.
template <class Words, int kWords>
struct StreamedConv {
    MBUNET_DEVICE static void run(const ConvArgs& args) {
        const Block block = block_index();
        const int word = block.y * kWords, image = block.z;
        const Pixel origin = origin_of(block.x, args.extent.width);
        MainLoop<Words, 3, ConvArgs> loop(args, image, origin.y, origin.x, word);
        Words sums;
        loop.run([&](const typename Words::Step& step) { sums.first(step, args.starts + word * kStartWords); },
                 [&](const typename Words::Step& step) { sums.next(step); });
        sums.finish();
        SignOutput<Words, kWords>::store_tile(args, sums, image, origin.y, origin.x, word);
    }
};

template <bool masked, int kWords>
struct Conv {
    using Args = ConvArgs;
    static constexpr bool kBeginsEarly = true;

    template <BitOp bit_op>
    MBUNET_DEVICE static void run(const ConvArgs& args) {
        StreamedConv<Sums<bit_op, masked, kWords>, kWords>::run(args);
    }
};

// 3x3 by products of warpgroups, where weights are too large to stay (warpgroup_conv.hpp): sm_90a's own.
template <bool masked>
struct StreamedWarpgroupConv {
    using Args = ConvArgs;
    static constexpr bool kBeginsEarly = true;
    static constexpr int kBlocks = kStreamedWarpgroupBlocks;

    template <BitOp>
    MBUNET_DEVICE static void run(const ConvArgs& args) {
        if constexpr (has_warpgroups()) StreamedConv<WarpgroupSums<masked>, 2>::run(args);
    }
};

}  // namespace mbunet::cuda
