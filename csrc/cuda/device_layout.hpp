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

// Offsets in bytes. Parameters go to the device in one copy, pixels image by image; masks and logits that are copied
// on the host come back in one.
struct DeviceLayout {
    size_t pixels, masks, logits;  // in the staging memory, behind the images' parameters at 0
    size_t staging_bytes;
    std::vector<size_t> tensors;  // in the arena
    size_t coarse;                // behind them: the head's logits before their doublings
    size_t arena_bytes;

    DeviceLayout(const Network& network, const Shape& shape);
};

}  // namespace mbunet::cuda
