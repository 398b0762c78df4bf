// The native session: a network, planned for a batch shape when that first appears, run on a thread pool.
#pragma once

#include <cstdint>
#include <list>
#include <vector>

#include "../network.hpp"
#include "../threads.hpp"
#include "buffer.hpp"
#include "execute.hpp"
#include "kernels/kernels.hpp"
#include "shape_plan.hpp"

namespace mbunet::cpu {

class Session {
  public:
    Session(const Kernels& kernels, int threads);

    Network& network() { return network_; }
    // All images have one padded shape.
    void run(const std::vector<Image>& images);

    const Kernels& kernels() const { return kernels_; }
    int threads() const { return pool_.size(); }
    // Seconds of every step in the last run, images that do not share a run added up; what threads do side by side
    // counts by their number.
    const std::vector<double>& step_seconds() const { return step_seconds_; }
    // Bytes held for activations and shape plans.
    size_t memory() const;
    // Overwrites all activations, so that a test sees what a run leaves unwritten.
    void poison(uint8_t value);

  private:
    const ShapePlan& plan_for(int height, int width, int images, int threads);
    void prepare(const ShapePlan& plan, int threads);
    void run_together(const ShapePlan& plan, const Image* images);
    void run_side_by_side(const ShapePlan& plan, const Image* images, int batches);

    const Kernels& kernels_;
    Network network_;
    PackedWeights packed_;
    ThreadPool pool_;
    std::list<ShapePlan> plans_;   // latest used first
    std::vector<Buffer> arenas_;   // by thread; all threads at work on one batch use the first
    std::vector<Buffer> scratch_;  // by thread
    std::vector<double> step_seconds_;
};

}  // namespace mbunet::cpu
