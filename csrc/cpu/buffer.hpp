// Memory that the session holds on to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include <sys/mman.h>

#include "../rounding.hpp"
#include "layout.hpp"

namespace mbunet::cpu {

// Bytes that start on a cache line, large ones on a huge page where the system has such: a convolution reads from more
// places at a time than there are entries for small pages. Grows without keeping what it held.
class Buffer {
  public:
    void reserve(size_t bytes) {
        if (bytes <= size_) return;
        bytes_.reset();
        const size_t whole = round_up(bytes, bytes < kHugePage ? kLine : kHugePage);
        bytes_.reset(static_cast<uint8_t*>(std::aligned_alloc(bytes < kHugePage ? kLine : kHugePage, whole)));
        if (!bytes_) throw std::bad_alloc();
        if (bytes >= kHugePage) madvise(bytes_.get(), whole, MADV_HUGEPAGE);  // advice: it may be refused
        size_ = bytes;
    }
    uint8_t* data() const { return bytes_.get(); }
    size_t size() const { return size_; }

  private:
    static constexpr size_t kHugePage = size_t{2} << 20;

    struct Free {
        void operator()(uint8_t* bytes) const { std::free(bytes); }
    };
    std::unique_ptr<uint8_t, Free> bytes_;
    size_t size_ = 0;
};

}  // namespace mbunet::cpu
