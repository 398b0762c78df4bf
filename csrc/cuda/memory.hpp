// Memory that the session on a GPU holds on to. Grows without keeping what it held.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mbunet::cuda {

// Memory of the current device.
class DeviceMemory {
  public:
    DeviceMemory() = default;
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;
    ~DeviceMemory() { release(); }

    // Whether it grew, and so moved. Throws Error, and holds nothing then, where the device has too little left.
    bool reserve(size_t bytes, const char* purpose);
    void release();
    uint8_t* data() const { return data_; }
    size_t size() const { return size_; }

  private:
    uint8_t* data_ = nullptr;
    size_t size_ = 0;
};

// What goes back and forth: pinned host memory and its counterpart on the device. Where the GPU shares the host's
// memory (Jetson) both are the same bytes, and nothing needs to be copied.
class Staging {
  public:
    explicit Staging(bool shared) : shared_(shared) {}
    Staging(const Staging&) = delete;
    Staging& operator=(const Staging&) = delete;
    ~Staging() { release(); }

    bool reserve(size_t bytes);
    void release();
    bool shared() const { return shared_; }
    uint8_t* host() const { return host_; }
    uint8_t* device() const { return shared_ ? mapped_ : device_.data(); }
    size_t size() const { return size_; }
    size_t memory() const { return size_ + device_.size(); }

  private:
    const bool shared_;
    uint8_t* host_ = nullptr;
    uint8_t* mapped_ = nullptr;
    DeviceMemory device_;
    size_t size_ = 0;
};

}  // namespace mbunet::cuda
