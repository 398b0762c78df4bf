// The native session: a network, bound to a batch shape when it first appears, run on a thread pool.
#pragma once

#include <cstdint>
#include <list>
#include <vector>

#include "bound.hpp"
#include "buffer.hpp"
#include "cpu/kernels.hpp"
#include "execute.hpp"
#include "network.hpp"
#include "threads.hpp"

namespace mbunet {

class Session {
  public:
    Session(const Kernels& kernels, int threads);

    Network& network() { return network_; }
    // All images have one padded shape.
    void run(const std::vector<Image>& images);

    const Kernels& kernels() const { return kernels_; }
    int threads() const { return pool_.size(); }
    // Seconds of every step in the last run, images that do not share a run added up.
    const std::vector<double>& step_seconds() const { return step_seconds_; }
    // Bytes held for activations and bound shapes.
    size_t memory() const;
    // Overwrites all activations, so that a test sees what a run leaves unwritten.
    void poison(uint8_t value);

  private:
    const Bound& bind(int height, int width, int images);

    const Kernels& kernels_;
    Network network_;
    ThreadPool pool_;
    std::list<Bound> bound_;  // latest used first
    Buffer arena_;
    std::vector<Buffer> scratch_;  // by thread
    std::vector<double> step_seconds_;
};

}  // namespace mbunet
