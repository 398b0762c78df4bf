// Memory that the session holds on to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "layout.hpp"

namespace mbunet::cpu {

// Bytes that start on a cache line. Grows without keeping what it held.
class Buffer {
  public:
    void reserve(size_t bytes) {
        if (bytes <= size_) return;
        bytes_.reset();
        bytes_.reset(static_cast<uint8_t*>(::operator new(bytes, std::align_val_t{kLine})));
        size_ = bytes;
    }
    uint8_t* data() const { return bytes_.get(); }
    size_t size() const { return size_; }

  private:
    struct Free {
        void operator()(uint8_t* bytes) const { ::operator delete(bytes, std::align_val_t{kLine}); }
    };
    std::unique_ptr<uint8_t, Free> bytes_;
    size_t size_ = 0;
};

}  // namespace mbunet::cpu
