// Pinned memory, handed out in parts: a GPU copies from and to it by itself, so what is written there is not copied on
// the host again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

namespace mbunet::cuda {

// The first gap that is large enough is taken, so that the parts lately used come first, which caches still hold.
// Memory stays until the pool and the last of its parts are gone, on whichever thread.
class PinnedPool : public std::enable_shared_from_this<PinnedPool> {
  public:
    // Null where the host cannot pin so much.
    static std::shared_ptr<PinnedPool> make(int gpu, size_t bytes);
    PinnedPool(const PinnedPool&) = delete;
    PinnedPool& operator=(const PinnedPool&) = delete;
    ~PinnedPool();

    // A part of at least so many bytes, free again when the last who holds it lets go. Null where no gap is so large.
    std::shared_ptr<uint8_t> take(size_t bytes);
    // Whether all these bytes are the pool's.
    bool holds(const void* memory, size_t bytes) const;
    size_t size() const { return size_; }

  private:
    PinnedPool(int gpu, uint8_t* memory, size_t bytes) : gpu_(gpu), memory_(memory), size_(bytes), gaps_{{0, bytes}} {}

    // The offset of the first gap that has so many bytes; they are no gap's any more.
    std::optional<size_t> take_gap(size_t bytes);
    void give_back(size_t offset, size_t bytes);

    const int gpu_;
    uint8_t* const memory_;
    const size_t size_;
    std::mutex taking_;
    std::map<size_t, size_t> gaps_;  // bytes by offset; no two touch
};

}  // namespace mbunet::cuda
