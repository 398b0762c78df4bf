// A network bound to one batch shape: geometries, slot addresses, and weights as lists of arena offsets.
#pragma once

#include <map>
#include <vector>

#include "layout.hpp"
#include "lists.hpp"
#include "network.hpp"

namespace mbunet {

struct Bound {
    int height, width, bands;        // padded image, bands per image
    std::map<int, Geometry> levels;  // by stride
    std::vector<size_t> slot_offsets;
    std::vector<Lists> lists;         // by step, empty for what is no bit convolution
    size_t zero = 0, zero_bytes = 0;  // arena offset and size of an input that is 0 at every position
    size_t arena_bytes = 0;

    // Throws std::length_error for a shape whose activations exceed what an offset can address.
    Bound(const Network& network, int height, int width, int bands);

    const Geometry& level(const Slot& slot) const { return levels.at(slot.stride); }
    // Arena offset of position 0 of a slot's first channel.
    size_t row0(const Network& network, int slot) const;
    // Bytes of the lists.
    size_t memory() const;
};

}  // namespace mbunet
