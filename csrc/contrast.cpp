#include "contrast.hpp"

#include <cstring>

namespace mbunet {

std::array<int64_t, 256> histogram(const uint8_t* values, size_t size) {
    // several counts, because neighbours are often equal and a count is not added to twice at a time
    constexpr size_t kCounts = 8;
    int64_t counts[kCounts][256] = {};
    size_t i = 0;
    for (; i + kCounts <= size; i += kCounts) {
        uint64_t some;
        std::memcpy(&some, values + i, sizeof some);
        for (size_t k = 0; k < kCounts; ++k) ++counts[k][some >> 8 * k & 255];
    }
    for (; i < size; ++i) ++counts[0][values[i]];
    std::array<int64_t, 256> sums{};
    for (const auto& count : counts)
        for (size_t value = 0; value < sums.size(); ++value) sums[value] += count[value];
    return sums;
}

void look_up(const uint8_t* values, size_t size, const uint8_t* table, uint8_t* out) {
    for (size_t i = 0; i < size; ++i) out[i] = table[values[i]];
}

}  // namespace mbunet
