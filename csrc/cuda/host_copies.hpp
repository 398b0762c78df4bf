// Copies between the caller's memory and pinned memory, by several threads: one alone is slower than the way to a GPU.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../threads.hpp"

namespace mbunet::cuda {

// What is copied together.
class HostCopies {
  public:
    void add(void* to, const void* from, size_t bytes) {
        for (size_t at = 0; at < bytes; at += kPiece)
            pieces_.push_back(
                {static_cast<uint8_t*>(to) + at, static_cast<const uint8_t*>(from) + at, std::min(kPiece, bytes - at)});
    }

    // Calls copied(to, bytes) for every piece when it is there, on the thread that has copied it; must not throw.
    template <class Copied>
    void run(ThreadPool& threads, const Copied& copied) const {
        threads.run(static_cast<int>(pieces_.size()), [&](int i, int) {
            const Piece& piece = pieces_[static_cast<size_t>(i)];
            std::memcpy(piece.to, piece.from, piece.bytes);
            copied(piece.to, piece.bytes);
        });
    }

  private:
    static constexpr size_t kPiece = size_t{1} << 20;  // bytes: some 100 us, longer than it takes to wake a thread

    struct Piece {
        uint8_t* to;
        const uint8_t* from;
        size_t bytes;
    };

    std::vector<Piece> pieces_;
};

}  // namespace mbunet::cuda
