// Where everything of one batch shape lies in the session's memory.
#pragma once

#include <compare>
#include <cstddef>
#include <vector>

#include "../network.hpp"

namespace mbunet::cuda {

// A batch as a graph is recorded for it: padded images, and whether logits are wanted beside the masks.
struct Shape {
    int images, height, width;
    bool logits;

    auto operator<=>(const Shape&) const = default;
};

// Offsets in bytes. Frames and pixels go to the device in one copy, masks and logits come back in one.
struct Places {
    size_t pixels, masks, logits;  // in the exchange, behind the frames at 0
    size_t exchange_bytes;
    std::vector<size_t> slots;  // in the arena
    size_t arena_bytes;

    Places(const Network& network, const Shape& shape);
};

}  // namespace mbunet::cuda
