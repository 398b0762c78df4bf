// Where tensors lie in one block of memory: those that are never needed at the same time share bytes.
#pragma once

#include <cstddef>
#include <vector>

#include "network.hpp"

namespace mbunet {

struct MemoryPlan {
    std::vector<size_t> offsets;  // by tensor
    size_t bytes = 0;             // of all

    // `sizes` are the tensors' bytes; offsets are sums of some of them.
    MemoryPlan(const Network& network, const std::vector<size_t>& sizes);
};

}  // namespace mbunet
