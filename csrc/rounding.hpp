// Whole numbers rounded up.
#pragma once

#include <cstddef>

namespace mbunet {

constexpr size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }
constexpr int divide_up(int n, int d) { return (n + d - 1) / d; }

}  // namespace mbunet
