// Runs the steps of a bound network on a batch of images.
#pragma once

#include <cstdint>
#include <vector>

#include "../image.hpp"
#include "../network.hpp"
#include "buffer.hpp"
#include "kernels/kernels.hpp"
#include "shape_plan.hpp"
#include "threads.hpp"

namespace mbunet {

// Holds references only; made anew for every run. Tasks go group by group and row by row in every step, so that a
// thread finds in its core's cache what it wrote in the step before.
class Executor {
  public:
    // `arena` holds bound.arena_bytes(), every thread's `scratch` scratch_bytes(network, bound).
    Executor(const Kernels& kernels, ThreadPool& pool, const Network& network, const Bound& bound, uint8_t* arena,
             Buffer* scratch)
        : kernels_(kernels), pool_(pool), network_(network), bound_(bound), arena_(arena), scratch_(scratch) {}

    // Runs bound.deepest.images images; adds every step's seconds to `seconds`.
    void run(const Image* images, std::vector<double>& seconds);

    static size_t scratch_bytes(const Network& network, const Bound& bound);

  private:
    void run_pixels(const Step& step, const Image* images);
    void run_conv(const Step& step, const Lists& lists);
    void run_pool(const Step& step);
    void run_upconv(const Step& step, const Lists& lists);
    void run_head(const Step& step, const Image* images);
    void pool_across(const Step& step);
    void join(const Step& step);
    void fill_halos(const Step& step);
    template <class Work>
    void each_channels(const Step& step, int tasks, const Work& work);
    void count(const Lists& lists, int group, const Runs& runs, int part, int parts);

    const Grid& grid_of(int slot) const { return bound_.grid(network_.slot(slot).stride); }
    const Plane& plane(int slot) const { return bound_.plane(network_.slot(slot)); }
    uint8_t* group(int index) const { return arena_ + static_cast<size_t>(index) * bound_.group_bytes; }
    // A group's position (r, c) of a slot's first channel.
    uint8_t* at(int group_index, int slot, int r, int c) const {
        return group(group_index) + bound_.slot_offsets[static_cast<size_t>(slot)] + plane(slot).at(r, c);
    }
    uint8_t* scratch(int thread) const { return scratch_[thread].data(); }

    const Kernels& kernels_;
    ThreadPool& pool_;
    const Network& network_;
    const Bound& bound_;
    uint8_t* arena_;
    Buffer* scratch_;  // by thread
};

}  // namespace mbunet
