// Runs the steps of a bound network on the images that share the eight lanes.
#pragma once

#include <cstdint>
#include <vector>

#include "bound.hpp"
#include "buffer.hpp"
#include "cpu/kernels.hpp"
#include "network.hpp"
#include "threads.hpp"

namespace mbunet {

// One image of a batch. All images of a batch have the same padded shape.
struct Image {
    const uint8_t* pixels;  // [height][width][3]
    int height;
    int width;
    int32_t threshold;  // one class: mask = logit >= threshold
    uint8_t* mask;      // [height][width]
    int32_t* logits;    // [height][width][classes], or null
};

// Holds references only; made anew for every run.
class Executor {
  public:
    // `arena` holds bound.arena_bytes, every thread's `scratch` scratch_bytes(network, bound).
    Executor(const Kernels& kernels, ThreadPool& pool, const Network& network, const Bound& bound, uint8_t* arena,
             std::vector<Buffer>& scratch)
        : kernels_(kernels), pool_(pool), network_(network), bound_(bound), arena_(arena), scratch_(scratch) {}

    // Runs `count` images, at most kLanes / bands; adds every step's seconds to `seconds`.
    void run(const Image* images, int count, std::vector<double>& seconds);

    static size_t scratch_bytes(const Network& network, const Bound& bound);

    // Scratch of one task of the first layer: the pairs (red, green), then (blue, blue) of every lane's rows, with one
    // row more above and below, then the bits of one row of all lanes.
    struct PixelScratch {
        static constexpr int kRows = 4;  // band rows of a task
        size_t row_ints, pairs_bytes, blocks, channel_bytes, bits_bytes;

        PixelScratch(int width, int channels)
            : row_ints(static_cast<size_t>(width) + 2),
              pairs_bytes(kLanes * (kRows + 2) * 2 * row_ints * sizeof(int32_t)),
              blocks(static_cast<size_t>(width / kColumns)),
              channel_bytes(round_up(static_cast<size_t>(width), kLine) + kLine),
              bits_bytes(static_cast<size_t>(channels) * channel_bytes) {}

        // Index of column 0 of a lane's row, counted from the row above the task's first.
        size_t row(int lane, int row) const { return static_cast<size_t>(lane * (kRows + 2) + row) * 2 * row_ints + 1; }
        size_t bytes() const { return pairs_bytes + bits_bytes; }
    };

  private:
    void run_pixels(const Step& step, const Image* images, int count);
    void pair_row(const Image& image, int y, const Geometry& geometry, int32_t* red_green, int32_t* blue);
    void pixel_row(const Step& step, const PixelScratch& sizes, const int32_t* pairs, int lane, uint8_t* bits);
    void store_row(const Step& step, const PixelScratch& sizes, const uint8_t* bits, size_t position);
    void run_conv(const Step& step, const Lists& lists);
    void run_pool(const Step& step);
    void run_upconv(const Step& step, const Lists& lists);
    void run_head(const Step& step, const Image* images, int count);
    void count(const Lists& lists, const Geometry& geometry, uint8_t* out, size_t out_plane, size_t begin, size_t end,
               int channel, int channel_end);
    void fill_halos(int slot);

    const Geometry& level(int slot) const { return bound_.level(network_.slot(slot)); }
    uint8_t* row0(int slot) const { return arena_ + bound_.row0(network_, slot); }
    uint8_t* scratch(int thread) const { return scratch_[static_cast<size_t>(thread)].data(); }

    const Kernels& kernels_;
    ThreadPool& pool_;
    const Network& network_;
    const Bound& bound_;
    uint8_t* arena_;
    std::vector<Buffer>& scratch_;  // by thread
};

}  // namespace mbunet
