#include "doubling.hpp"

#include <algorithm>

namespace mbunet::cpu {

namespace {

// Values of a row after `doublings`.
size_t row_size(int coarse_width, int classes, int doublings) {
    return static_cast<size_t>(coarse_width) * static_cast<size_t>(classes) << doublings;
}

// Doubles a row [class][column] in width.
void widen(const int32_t* row, int width, int classes, int32_t* out) {
    for (int c = 0; c < classes; ++c, row += width, out += 2 * width)
        for (int x = 0; x < width; ++x) {
            out[2 * x] = 3 * row[x] + row[std::max(x - 1, 0)];
            out[2 * x + 1] = 3 * row[x] + row[std::min(x + 1, width - 1)];
        }
}

}  // namespace

// Every size has its result, the row before it is made wider, and what the row beside it takes.
size_t doubling_bytes(int coarse_width, int classes, int doublings) {
    size_t values = 0;
    for (int size = 1; size <= doublings; ++size)
        values += row_size(coarse_width, classes, size) + 2 * row_size(coarse_width, classes, size - 1);
    return values * sizeof(int32_t);
}

const int32_t* fine_row(const CoarseLogits& logits, int doublings, int y, int32_t* scratch) {
    if (!doublings) return logits.values + static_cast<size_t>(y) * row_size(logits.width, logits.classes, 0);
    const size_t before = row_size(logits.width, logits.classes, doublings - 1);
    const int last = (logits.height << (doublings - 1)) - 1;
    int32_t *out = scratch, *blend = out + 2 * before, *own = blend + before, *deeper = own + before;
    const auto row = [&](int at) { return fine_row(logits, doublings - 1, std::clamp(at, 0, last), deeper); };
    std::copy_n(row(y / 2), before, own);
    const int32_t* neighbor = row(y / 2 + (y % 2 ? 1 : -1));
    for (size_t i = 0; i < before; ++i) blend[i] = 3 * own[i] + neighbor[i];
    widen(blend, logits.width << (doublings - 1), logits.classes, out);
    return out;
}

}  // namespace mbunet::cpu
