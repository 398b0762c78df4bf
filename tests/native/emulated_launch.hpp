// What tests can set on the emulated device.
#pragma once

#include "../../csrc/cuda/kernels.hpp"

namespace mbunet::cuda {

inline int emulated_capability = 80;
inline unsigned emulated_seed = 0;  // of the last launch; the next one's is one more

}  // namespace mbunet::cuda
