// The first and the last layer's weights as the kernels of the CPU read them.
#pragma once

#include <cstdint>
#include <vector>

#include "../network.hpp"

namespace mbunet::cpu {

// StemArgs::weights of a stem, HeadArgs::weights and then tables of a head, nothing for other steps.
std::vector<int32_t> packed_weights(const Step& step);

}  // namespace mbunet::cpu
