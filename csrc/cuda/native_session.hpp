// The session where CUDA is compiled: its own stream, memory that is allocated once, one graph per batch shape.
#pragma once

#include <list>
#include <span>

#include "../threads.hpp"
#include "device_layout.hpp"
#include "graph.hpp"
#include "kernels.hpp"
#include "memory.hpp"
#include "pinned_pool.hpp"
#include "session.hpp"

namespace mbunet::cuda {

class NativeSession : public Session {
  public:
    explicit NativeSession(int gpu);
    ~NativeSession() override;

    void load() override;
    void run(const std::vector<Image>& images) override;
    std::shared_ptr<uint8_t> host_memory(size_t bytes) override;
    double seconds(int begin, int end, int repeats, int launches) override;
    double peak() override;
    std::vector<std::string> kernels() const override;
    size_t memory() const override;
    void poison(uint8_t value) override;

  private:
    // What is kept of a batch shape.
    struct ShapePlan {
        Shape shape;
        DeviceLayout layout;
        Graph graph;
    };

    // Words of the largest tensor of an image of `pixels` pixels.
    int64_t words_of_largest(int64_t pixels) const;
    // All of `images` in one launch of every kernel.
    void run_together(std::span<const Image> images, const Shape& shape);
    void reserve(const DeviceLayout& layout);
    // Pixels in, what `begin` puts into the stream, masks out.
    template <class Begin>
    void call(std::span<const Image> images, const DeviceLayout& layout, const Shape& shape, Begin begin);
    void copy_in(std::span<const Image> images, const DeviceLayout& layout, const Shape& shape);
    // Begins to copy pinned memory to `offset` of the device's staging memory, from whichever thread. Returns a
    // cudaError_t.
    int send(size_t offset, const uint8_t* from, size_t bytes) const;
    // Begins to copy results to pinned memory.
    void fetch(std::span<const Image> images, const DeviceLayout& layout, const Shape& shape) const;
    void copy_out(std::span<const Image> images, const DeviceLayout& layout, const Shape& shape);
    bool is_pinned(const uint8_t* memory, size_t bytes) const { return pinned_ && pinned_->holds(memory, bytes); }
    void enqueue(const DeviceLayout& layout, const Shape& shape) const;
    void enqueue_step(size_t step, const DeviceLayout& layout, const Shape& shape) const;
    // Whether the step is a pool that the convolution before it does on the way.
    bool is_fused(size_t step) const;

    const int gpu_;
    const Gpu info_;
    const LoadedCode code_;
    const Device device_;
    OwnStream stream_;
    std::vector<Layer> layers_;    // by step
    std::vector<size_t> offsets_;  // by step: where in `weights_` the layer's begin
    DeviceMemory weights_;
    DeviceMemory arena_;
    Staging staging_;
    std::shared_ptr<PinnedPool> pinned_;  // of the callers; null where nothing needs to be copied
    ThreadPool copiers_;
    std::list<ShapePlan> plans_;  // latest used first; all are forgotten when memory grows and so moves
};

}  // namespace mbunet::cuda
