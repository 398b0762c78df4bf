// Where slots lie in one block of memory: those that are never needed at the same time share bytes.
#pragma once

#include <cstddef>
#include <vector>

#include "network.hpp"

namespace mbunet {

struct Placement {
    std::vector<size_t> offsets;  // by slot
    size_t bytes = 0;             // of all

    // `sizes` are the slots' bytes; offsets are sums of some of them.
    Placement(const Network& network, const std::vector<size_t>& sizes);
};

}  // namespace mbunet
