#include "resize.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

namespace mbunet {

namespace {

constexpr size_t kChannels = 3;
constexpr int kOne = 256;  // the distance of two neighbours, in parts

// Between which two old positions a new one lies, and how many parts it is away from the first.
struct Tap {
    size_t at, next;
    uint16_t part;
};

// Centers of new pixels lie between the centers of old ones; beyond the outermost those are repeated.
Tap tap(int position, int from, int to) {
    const int64_t center = (2 * int64_t{position} + 1) * from * kOne / (2 * int64_t{to}) - kOne / 2;
    const int64_t within = std::clamp(center, int64_t{0}, int64_t{from - 1} * kOne);
    const int64_t at = within / kOne;
    return {static_cast<size_t>(at), static_cast<size_t>(std::min(at + 1, int64_t{from - 1})),
            static_cast<uint16_t>(within % kOne)};
}

// a + (b - a) * part / 256, rounded; modulo 2^16, in which the result always fits.
uint8_t blend(uint8_t a, uint8_t b, uint16_t part) {
    return static_cast<uint8_t>(static_cast<uint16_t>(a * kOne + (b - a) * part + kOne / 2) / kOne);
}

// A pixel and a byte of the next: both rows have room for it.
void copy_pixel(uint8_t* to, const uint8_t* from) { std::memcpy(to, from, kChannels + 1); }

}  // namespace

void resize(const uint8_t* image, Size from, uint8_t* resized, Size to) {
    const size_t row = kChannels * static_cast<size_t>(from.width), own = kChannels * static_cast<size_t>(to.width);
    std::vector<Tap> columns;
    std::vector<uint16_t> parts;  // by sample
    for (int x = 0; x < to.width; ++x) {
        columns.push_back(tap(x, from.width, to.width));
        parts.insert(parts.end(), kChannels, columns.back().part);
    }
    std::vector<uint8_t> tall(row + 1), left(own + 1), right(own + 1);
    for (int y = 0; y < to.height; ++y) {
        const Tap rows = tap(y, from.height, to.height);
        const uint8_t *above = image + rows.at * row, *below = image + rows.next * row;
        for (size_t i = 0; i < row; ++i) tall[i] = blend(above[i], below[i], rows.part);
        for (size_t x = 0; x < columns.size(); ++x) {
            copy_pixel(&left[kChannels * x], &tall[kChannels * columns[x].at]);
            copy_pixel(&right[kChannels * x], &tall[kChannels * columns[x].next]);
        }
        uint8_t* out = resized + static_cast<size_t>(y) * own;
        for (size_t i = 0; i < own; ++i) out[i] = blend(left[i], right[i], parts[i]);
    }
}

}  // namespace mbunet
