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

  private:
    void run_pixels(const Step& step, const Image* images, int count);
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
