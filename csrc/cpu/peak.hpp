// What the machine can do at best, for the roofline.
#pragma once

#include <cstddef>

#include "kernels/kernels.hpp"

namespace mbunet::cpu {

// Bits per second that `threads` threads together count with carry-save additions, each again and again from `bytes`
// bytes of its own: those that stay in L1, in L2, or (bits / 8 being the bandwidth) come from memory. The best of
// several tries.
double peak(const Kernels& kernels, int threads, size_t bytes);

}  // namespace mbunet::cpu
