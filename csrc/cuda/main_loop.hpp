// A convolution of bits as a product of matrices: rows are pixels, columns output channels, and the sum runs over taps
// and input channels in K steps of 256 bits. Here is how a block's operands come to shared memory: the tile of pixels
// that it reads once, all channels of it, and then its weights through the stages of a pipeline, a K step after the
// other. Where all weights fit, resident_conv.hpp has another way. What becomes of the sums say conv.hpp and
// general_conv.hpp.
#pragma once

#include "copy_tile.hpp"
#include "heuristics.hpp"
#include "k_schedule.hpp"
#include "sums.hpp"

namespace mbunet::cuda {

// What every convolution is told.
template <int kCount>
struct MainLoopArgs {
    static constexpr int kSources = kCount;
    const uint32_t* weights;           // [K step][output word][slice_bytes]
    const int32_t* accumulator_start;  // [output word][threshold][32]
    const uint32_t* chunks;            // [K step][kChunkEntryWords]
    Source sources[kSources];          // by input and plane
    uint32_t* output;
    uint32_t* pooled;  // or null
    Extent extent;     // of the sources
    int k_steps;
    int output_words;  // words of a plane of an output pixel
    int columns;       // output words computed for one pixel of the sources: four times output_words if upsampling
    int stages;        // offset of the weights in shared memory, behind the shared tiles: bytes
};

template <class Sums, int kKernel, class Args>
struct MainLoop {
    static constexpr SharedTile kSharedTile{kKernel};

    // Begins to copy the tile at (y, x) of every source, and the weights of the first stages, from output word `word`
    // on.
    MBUNET_DEVICE MainLoop(const Args& args, int image, int y, int x, int word)
        : args_(args), weights_(args.weights + word * kWordWords + thread_index() * 4) {
        for (int k_step = 0; k_step < kAhead; ++k_step) copy_weights(k_step);
        copy_tiles<kKernel, kThreads>(args.sources, args.extent, shared_memory(), image, y, x,
                                      [](const void* known) { wait_for_inputs(known); });
        for (int k_step = 0; k_step < kAhead; ++k_step) cp_async_commit();  // all of it is in the first group
    }

    // Calls first(step) for the first K step and next(step) for the others, as soon as their weights are there.
    template <class First, class Next>
    MBUNET_DEVICE void run(const First& first, const Next& next) {
        Chunks chunks = Sums::load_chunks(args_.chunks);
        run_step(0, chunks, first);
        MBUNET_ROLLED
        for (int k_step = 1; k_step < args_.k_steps; ++k_step) run_step(k_step, chunks, next);
    }

  private:
    using Chunks = typename Sums::Chunks;
    static constexpr int kWordWords = Sums::kStepBytes / Sums::kWords / 4;  // of weights, of an output word
    static constexpr int kAhead = kStages - 1 - Sums::kUnderWay;  // K steps that are copied before they are needed

    // `chunks` are those of this K step, and become those of the next.
    template <class Add>
    MBUNET_DEVICE void run_step(int k_step, Chunks& chunks, const Add& add) {
        const int after = k_step + 1 < args_.k_steps ? k_step + 1 : k_step;
        const Chunks chunks_after = Sums::load_chunks(args_.chunks + after * kChunkEntryWords);
        cp_async_wait<kAhead - 1>();
        Sums::before_barrier();
        barrier();  // everyone's copies of this K step are there, and nobody reads the weights that are replaced now
        copy_weights(k_step + kAhead);
        cp_async_commit();
        add(Sums::template step<kSharedTile.width>(chunks, shared_memory(), stage(k_step)));
        chunks = chunks_after;
    }

    MBUNET_DEVICE uint32_t stage(int k_step) const {
        return shared_memory() + static_cast<uint32_t>(args_.stages + k_step % kStages * Sums::kStepBytes);
    }

    // Of a K step, if there is one.
    MBUNET_DEVICE void copy_weights(int k_step) {
        constexpr int kRound = kThreads * 16;
        if (k_step >= args_.k_steps) return;
        const uint32_t to = stage(k_step) + static_cast<uint32_t>(thread_index() * 16);
        repeat<divide_up(Sums::kStepBytes, kRound)>([&](int round) {
            const int at = round * kRound;
            if (Sums::kStepBytes % kRound == 0 || at + thread_index() * 16 < Sums::kStepBytes)
                cp_async<16>(to + static_cast<uint32_t>(at), weights_ + at / 4, true);
        });
        weights_ += args_.columns * kWordWords;
    }

    const Args& args_;
    const uint32_t* weights_;  // the thread's first of the next K step that is copied
};

}  // namespace mbunet::cuda
