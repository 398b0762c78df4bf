// From sums that reach thresholds to words of the planes of levels, and the highest of several levels.
#pragma once

#include "bits.hpp"

namespace mbunet::cuda {

// A word of each plane of an output of two planes, the most significant first; of one plane the first alone.
struct LevelWords {
    uint32_t high, low;
};

// The thread's word of the only plane of a level. `reached(j)` gives the thread's bytes of four words (see sign_bytes
// and exchange): whether the sums reach threshold j.
template <class Reached>
MBUNET_DEVICE LevelWords one_plane(int lane, const Reached& reached) {
    return {exchange(reached(0), lane), 0};
}

// The same of two planes: levels count three thresholds.
template <class Reached>
MBUNET_DEVICE LevelWords two_planes(int lane, const Reached& reached) {
    const uint32_t first = reached(0), second = reached(1), third = reached(2);
    return {exchange(second, lane), exchange(select(second, third, first), lane)};
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
