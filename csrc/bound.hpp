// A network bound to one batch shape: planes, slot addresses, and weights as lists of distances.
#pragma once

#include <map>
#include <vector>

#include "layout.hpp"
#include "lists.hpp"
#include "network.hpp"

namespace mbunet {

struct Bound {
    Grid grid;
    std::map<int, Plane> planes;       // by stride
    std::vector<size_t> slot_offsets;  // of a slot's first channel within a group
    std::vector<Lists> lists;          // by step, empty for what is no bit convolution
    std::vector<bool> needs_halo;      // by step: a 3x3 convolution reads its output
    size_t zero = 0, zero_bytes = 0;   // offset and size of an input that is 0 at every position
    size_t edges = 0;                  // offset of a copy of the edges of the slot that is written
    size_t group_bytes = 0;            // from one group to the next

    // Throws std::length_error for a network whose activations exceed what an offset can address.
    Bound(const Network& network, int height, int width, int images);

    const Plane& plane(const Slot& slot) const { return planes.at(slot.stride); }
    size_t arena_bytes() const { return group_bytes * static_cast<size_t>(grid.groups); }
    // Bytes of the lists.
    size_t memory() const;
};

}  // namespace mbunet
