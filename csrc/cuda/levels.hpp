// From sums that reach thresholds to words of the planes of levels, and the highest of several levels.
#pragma once

#include "bits.hpp"

namespace mbunet::cuda {

// A word of each plane of an output of two planes, the most significant first; of one plane the first alone.
struct LevelWords {
    uint32_t high, low;
};

// The thread's word of the only plane of a level. `reached(j, bytes)` sets the thread's byte of four words (see
// sign_byte and exchange) to whether the sums reach threshold j.
template <class Reached>
MBUNET_DEVICE LevelWords one_plane(int lane, const Reached& reached) {
    uint32_t bytes[4];
    reached(0, bytes);
    return {exchange(bytes, lane), 0};
}

// The same of two planes: levels count three thresholds.
template <class Reached>
MBUNET_DEVICE LevelWords two_planes(int lane, const Reached& reached) {
    uint32_t first[4], second[4], third[4];
    reached(0, first);
    reached(1, second);
    reached(2, third);
    repeat<4>([&](int i) { first[i] = select(second[i], third[i], first[i]); });
    return {exchange(second, lane), exchange(first, lane)};
}

// The higher of two levels in every channel.
MBUNET_DEVICE LevelWords highest(const LevelWords& a, const LevelWords& b) {
    return {a.high | b.high, (a.low & (a.high | ~b.high)) | (b.low & (b.high | ~a.high))};
}

// The highest level of the 2x2 pixels that the thread's own (see pixel_of) belongs to.
MBUNET_DEVICE LevelWords pool(LevelWords words) {
    words = highest(words, {shuffle_xor(words.high, 1), shuffle_xor(words.low, 1)});
    return highest(words, {shuffle_xor(words.high, 4), shuffle_xor(words.low, 4)});
}

// Writes the words of `planes` planes of a pixel; `word` counts within a plane of `plane_words`.
MBUNET_DEVICE void store_levels(uint32_t* tensor, size_t pixel, int planes, int plane_words, int word,
                                const LevelWords& words) {
    store(word_at(tensor, pixel, planes * plane_words, word), words.high);
    if (planes > 1) store(word_at(tensor, pixel, planes * plane_words, plane_words + word), words.low);
}

}  // namespace mbunet::cuda
