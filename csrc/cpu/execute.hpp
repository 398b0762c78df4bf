// Runs the steps of a network, planned for its shape, on a batch of images.
#pragma once

#include <cstdint>
#include <vector>

#include "../image.hpp"
#include "../network.hpp"
#include "../threads.hpp"
#include "buffer.hpp"
#include "kernels/kernels.hpp"
#include "shape_plan.hpp"

namespace mbunet::cpu {

using PackedWeights = std::vector<std::vector<int32_t>>;  // by step, see packed_weights.hpp

// Holds references only; made anew for every run. Tasks go group by group and row by row in every step, so that a
// thread finds in its core's cache what it wrote in the step before.
class Executor {
  public:
    // `packed` are the steps' packed weights; `arena` holds plan.arena_bytes(), every thread's `scratch`
    // scratch_bytes(network, plan).
    Executor(const Kernels& kernels, ThreadPool& pool, const Network& network, const PackedWeights& packed,
             const ShapePlan& plan, uint8_t* arena, Buffer* scratch)
        : kernels_(kernels),
          pool_(pool),
          network_(network),
          packed_(packed),
          plan_(plan),
          arena_(arena),
          scratch_(scratch) {}

    // Runs plan.deepest.images images; adds every step's seconds to `seconds`.
    void run(const Image* images, std::vector<double>& seconds);

    static size_t scratch_bytes(const Network& network, const ShapePlan& plan);

  private:
    // Scratch of a head's logits and masks, of a block of lanes at one row of a tile's `side` positions.
    static size_t head_bytes(const Step& step, int side);
    void run_stem(const Step& step, const int32_t* packed, const Image* images);
    int conv_rows(const Step& step) const;
    void run_conv(const Step& step, const SparseLists& lists);
    void run_pool(const Step& step);
    void upsample(const Step& step, const SparseLists& lists);
    void run_gate(const Step& step);
    void run_head(const Step& step, const int32_t* packed, const Image* images);
    void run_coarse_head(const Step& step, const int32_t* packed, const Image* images);
    template <class Work>
    void each_logits(const Step& step, const int32_t* packed, const Work& work);
    void pool_across(const Step& step);
    void join(const Step& step);
    void fill_halos(const Step& step);
    template <class Work>
    void each_channels(int channels, int tasks, const Work& work);
    void count(const Step& step, const SparseLists& lists, int group, const StridedRanges& ranges, int part, int parts);

    const Grid& grid_of(int tensor) const { return plan_.grid(network_.tensor(tensor).stride); }
    int bit_planes(int tensor) const { return network_.tensor(tensor).bit_planes(); }
    const Plane& plane(int tensor) const { return plan_.plane(network_.tensor(tensor)); }
    uint8_t* group(int index) const { return arena_ + static_cast<size_t>(index) * plan_.group_bytes; }
    // A group's position (r, c) of a tensor's first channel.
    uint8_t* at(int group_index, int tensor, int r, int c) const {
        return group(group_index) + plan_.tensor_offsets[static_cast<size_t>(tensor)] + plane(tensor).at(r, c);
    }
    uint8_t* scratch(int thread) const { return scratch_[thread].data(); }

    const Kernels& kernels_;
    ThreadPool& pool_;
    const Network& network_;
    const PackedWeights& packed_;
    const ShapePlan& plan_;
    uint8_t* arena_;
    Buffer* scratch_;  // by thread
};

}  // namespace mbunet::cpu
