// From sums in a product's fragments to words of output bits.
#pragma once

#include "geometry.hpp"
#include "kernels.hpp"
#include "ptx.hpp"

namespace mbunet::cuda {

// Shifts the bit "not negative" of `sum` into `bits`, inverted.
MBUNET_DEVICE uint32_t push_sign(uint32_t bits, int32_t sum) { return bits << 1 | static_cast<uint32_t>(sum) >> 31; }

// The thread's byte of an output word in place: bit k is value(k) >= 0, for the channels k of channel_of.
template <class Value>
MBUNET_DEVICE uint32_t sign_byte(int lane, Value value) {
    uint32_t bits = 0;
    repeat<8>([&](int k) { bits = push_sign(bits, value(7 - k)); });
    return (bits ^ 0xFF) << (lane % 4 * 8);
}

// The bits of `a` where `mask` has ones, those of `b` elsewhere. Not ?:, which the compiler may turn into branches
// around the exchanges of a warp.
MBUNET_DEVICE uint32_t select(uint32_t mask, uint32_t a, uint32_t b) { return (a & mask) | (b & ~mask); }

// Every thread of a quad has its byte of four words; thread t gets all of word t.
MBUNET_DEVICE uint32_t exchange(const uint32_t (&words)[4], int lane) {
    const auto t = static_cast<uint32_t>(lane);
    const uint32_t odd = 0 - (t & 1), high = 0 - (t >> 1 & 1);
    const uint32_t low_pair = select(odd, words[1], words[0]) | shuffle_xor(select(odd, words[0], words[1]), 1);
    const uint32_t high_pair = select(odd, words[3], words[2]) | shuffle_xor(select(odd, words[2], words[3]), 1);
    return select(high, high_pair, low_pair) | shuffle_xor(select(high, low_pair, high_pair), 2);
}

// OR of the 2x2 pixels that the thread's own (see pixel_of) belongs to.
MBUNET_DEVICE uint32_t pool(uint32_t word) {
    word |= shuffle_xor(word, 1);
    return word | shuffle_xor(word, 4);
}

// What the sums of the thread's eight channels of an output word start at.
MBUNET_DEVICE void load_starts(int32_t (&start)[8], const int32_t* word, int lane) {
    const auto* from = reinterpret_cast<const Words4*>(word + lane % 4 * 8);
    const Words4 low = load(from), high = load(from + 1);
    const uint32_t all[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    repeat<8>([&](int k) { start[k] = static_cast<int32_t>(all[k]); });
}

MBUNET_DEVICE ImageParams load_params(const ImageParams* params) {
    const Words4 words = load(reinterpret_cast<const Words4*>(params));
    return {static_cast<int32_t>(words.x), static_cast<int32_t>(words.y), static_cast<int32_t>(words.z), 0};
}

// Index of a pixel in a tensor of [images][height][width].
MBUNET_DEVICE size_t pixel_index(int image, int y, int x, int height, int width) {
    return (static_cast<size_t>(image) * static_cast<size_t>(height) + static_cast<size_t>(y)) *
               static_cast<size_t>(width) +
           static_cast<size_t>(x);
}

// A word of a pixel of a tensor of bits.
template <class T>
MBUNET_DEVICE T* word_at(T* tensor, size_t pixel, int pixel_words, int word) {
    return tensor + pixel * static_cast<size_t>(pixel_words) + static_cast<size_t>(word);
}

}  // namespace mbunet::cuda
