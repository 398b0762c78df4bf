// Logits at twice the size, as often as the head says: 3 * self + neighbor along either axis, edges their own
// neighbors.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mbunet::cpu {

// An image's coarse logits, [row][class][column].
struct CoarseLogits {
    const int32_t* values;
    int height, width, classes;
};

// Bytes of scratch for `fine_row`.
size_t doubling_bytes(int coarse_width, int classes, int doublings);

// Row `y` of the logits after `doublings`: [class][column], in the scratch. Nothing larger than some rows is ever held:
// a row of one size takes two of the size before it.
const int32_t* fine_row(const CoarseLogits& logits, int doublings, int y, int32_t* scratch);

}  // namespace mbunet::cpu
