// From sums in a product's fragments to words of output bits.
#pragma once

#include "geometry.hpp"
#include "kernels.hpp"
#include "ptx.hpp"

namespace mbunet::cuda {

// What every kernel does before it touches a tensor, an image or a result. The next kernel begins no sooner: so it can
// take for granted that all kernels but this one have ended.
MBUNET_DEVICE void wait_for_inputs() {
    grid_dependency_wait();
    grid_launch_dependents();
}

// The same where the address of the first access is known by then.
MBUNET_DEVICE void wait_for_inputs(const void* known) {
    grid_dependency_wait(known);
    grid_launch_dependents();
}

// Shifts the bit "not negative" of `sum` into `bits`, inverted.
MBUNET_DEVICE uint32_t push_sign(uint32_t bits, int32_t sum) { return push_highest(bits, static_cast<uint32_t>(sum)); }

// The thread's bytes of four output words, that of word i in byte i: bit k is value(i, k) >= 0, for the channels k of
// channel_of. An instruction a bit: each is shifted in behind the last. In two halves, which need not wait for each
// other.
template <class Value>
MBUNET_DEVICE uint32_t sign_bytes(const Value& value) {
    uint32_t halves[2] = {};
    repeat<16>([&](int j) {
        repeat<2>([&](int h) { halves[h] = push_sign(halves[h], value(2 * h + 1 - j / 8, 7 - j % 8)); });
    });
    return ~permute_bytes(halves[0], halves[1], 0x5410);
}

// A product of bits by the device's operation.
template <BitOp bit_op>
MBUNET_DEVICE void bmma(int32_t (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                        const int32_t (&before)[4]) {
    if constexpr (bit_op == BitOp::kXor)
        bmma_xor(sums, a, b, before);
    else
        bmma_and(sums, a, b, before);
}

// The bits of `a` where `mask` has ones, those of `b` elsewhere. Not ?:, which the compiler may turn into branches
// around the exchanges of a warp.
MBUNET_DEVICE uint32_t select(uint32_t mask, uint32_t a, uint32_t b) { return (a & mask) | (b & ~mask); }

// Every thread of a quad has its byte of four words (see sign_bytes); thread t gets all of word t. Pairs of threads
// exchange every other byte, then pairs of pairs exchange halves.
MBUNET_DEVICE uint32_t exchange(uint32_t bytes, int lane) {
    const uint32_t halves = permute_bytes(bytes, shuffle_xor(bytes, 1), lane & 1 ? 0x3715 : 0x6240);
    return permute_bytes(halves, shuffle_xor(halves, 2), lane & 2 ? 0x3276 : 0x5410);
}

// OR of the 2x2 pixels that the thread's own belongs to: its vertical partner is `below` lanes apart (see pixel_of),
// its horizontal one four.
MBUNET_DEVICE uint32_t pool(uint32_t word, int below = 1) {
    word |= shuffle_xor(word, below);
    return word | shuffle_xor(word, 4);
}

// What the sums of the thread's eight channels of an output word start at, from that of the first of them on.
template <class T>
MBUNET_DEVICE void load_own_starts(T (&start)[8], const int32_t* own) {
    const auto* from = reinterpret_cast<const Words4*>(own);
    const Words4 low = load(from), high = load(from + 1);
    const uint32_t all[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    repeat<8>([&](int k) { start[k] = static_cast<T>(all[k]); });
}

MBUNET_DEVICE void load_starts(int32_t (&start)[8], const int32_t* word, int lane) {
    load_own_starts(start, word + lane % 4 * 8);
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

// The first word of an image of a tensor of bits.
template <class T>
MBUNET_DEVICE T* image_at(T* tensor, int image, int image_words) {
    return tensor + static_cast<int64_t>(image) * image_words;
}

// A word of a pixel of a tensor of bits.
template <class T>
MBUNET_DEVICE T* word_at(T* tensor, size_t pixel, int pixel_words, int word) {
    return tensor + pixel * static_cast<size_t>(pixel_words) + static_cast<size_t>(word);
}

}  // namespace mbunet::cuda
