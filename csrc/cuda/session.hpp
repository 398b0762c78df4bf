// The session on a GPU, as the binding sees it. Needs no CUDA: where that is not compiled, stub.cpp stands in.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../image.hpp"
#include "../network.hpp"

namespace mbunet::cuda {

// What a GPU, its driver or this build cannot do; the message says what and where.
class Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

struct Gpu {
    std::string name;
    std::string bus;  // PCI address, by which NVML knows it too
    int capability;   // 10 * major + minor
    size_t memory;    // bytes
};

// The GPUs that the driver offers; throws Error, which says why, where there is none.
std::vector<Gpu> gpus();

// A network on one GPU: build `network()`, `load()` it, then run batches. Calls must take turns.
class Session {
  public:
    virtual ~Session() = default;

    Network& network() { return network_; }

    // Prepares and uploads the weights of the finished network.
    virtual void load() = 0;
    // All images have one padded shape. The first run of a batch shape records its graph.
    virtual void run(const std::vector<Image>& images) = 0;
    // Host memory for pixels and masks that no run copies on the host; it may outlive the session. Null where there is
    // none left, or where host and GPU share theirs. May be called beside a run.
    virtual std::shared_ptr<uint8_t> host_memory(size_t bytes) = 0;
    // Device seconds of the steps [begin, end) on the last run's images, the mean of `launches` of a graph with
    // `repeats` of them, behind one launch that warms up.
    virtual double seconds(int begin, int end, int repeats, int launches) = 0;
    // Operations per second of products of bits alone, two to a multiplication and addition: what the device can reach.
    virtual double peak() = 0;
    // By step: what runs it. Empty before `load`.
    virtual std::vector<std::string> kernels() const = 0;
    // Bytes of device memory and of pinned host memory.
    virtual size_t memory() const = 0;
    // Overwrites all activations and results, so that a test sees what a run leaves unwritten.
    virtual void poison(uint8_t value) = 0;

  protected:
    Network network_;
};

std::unique_ptr<Session> make_session(int gpu);

}  // namespace mbunet::cuda
