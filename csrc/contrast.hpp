// What stretching an image's contrast takes (engine/preprocess.py): how often each value occurs, and one table for all.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace mbunet {

// How many of `size` values are 0, 1, ... 255.
std::array<int64_t, 256> histogram(const uint8_t* values, size_t size);

// Writes table[value] for each of `size` values.
void look_up(const uint8_t* values, size_t size, const uint8_t* table, uint8_t* out);

}  // namespace mbunet
