// x AND g in every plane of x: where the gate's bit is 0, so is the level.
#pragma once

#include "bits.hpp"

namespace mbunet::cuda {

struct GateArgs {
    const uint32_t *input, *gate;
    uint32_t* output;
    int height, width, planes, words;  // of a plane of the input
    int gate_words;                    // of its pixel
    bool is_one_channel;               // the gate, whatever the input is
};

struct Gate {
    using Args = GateArgs;

    template <BitOp>
    MBUNET_DEVICE static void run(const GateArgs& args) {
        const Block block = block_index();
        const int image = block.z, at = block.x * kThreads + thread_index();
        const int word = at % args.words, pixel = at / args.words, y = pixel / args.width, x = pixel % args.width;
        if (y >= args.height) return;
        const size_t index = pixel_index(image, y, x, args.height, args.width);
        const uint32_t bits = load(word_at(args.gate, index, args.gate_words, args.is_one_channel ? 0 : word));
        const uint32_t open = args.is_one_channel ? 0 - (bits & 1) : bits;
        const uint32_t* from = word_at(args.input, index, args.planes * args.words, word);
        uint32_t* to = word_at(args.output, index, args.planes * args.words, word);
        for (int plane = 0; plane < args.planes; ++plane, from += args.words, to += args.words)
            store(to, load(from) & open);
    }
};

}  // namespace mbunet::cuda
