// The kernels' own source under the emulation of emulation.hpp, on host memory.
#pragma once

#include "../../csrc/cuda/kernels.hpp"

namespace mbunet::cuda {

inline unsigned emulated_seed = 0;  // of the last launch; the next one's is one more

// What `launch` enqueues, done now. Throws std::runtime_error for what a device would do wrong, for memory that the
// launch's shape does not cover, and unless every byte of the outputs was written exactly once.
int emulate(const Launch& launch, const Device& device, Stream stream);

}  // namespace mbunet::cuda
