// NEON: a carry-save addition is two exclusive ors and one bit select.
#include <arm_neon.h>

#include <cstring>

#include "tables.hpp"

namespace mbunet::cpu::neon {
namespace {

using Vec = uint8x16_t;
using HalfVec = Vec;
constexpr bool kTwoAtOnce = true;

template <class>
inline Vec load(const uint8_t* p) {
    return vld1q_u8(p);
}
inline void store(uint8_t* p, Vec v) { vst1q_u8(p, v); }
inline Vec bit_and(Vec a, Vec b) { return vandq_u8(a, b); }
inline Vec bit_xor(Vec a, Vec b) { return veorq_u8(a, b); }
inline Vec zeros() { return vdupq_n_u8(0); }
inline Vec broadcast(int32_t mask) { return vreinterpretq_u8_s32(vdupq_n_s32(mask)); }

template <bool Inverted>
inline Vec add(Vec& sum, Vec x, Vec y) {
    const Vec differ = bit_xor(x, y), old = sum;
    sum = bit_xor(differ, old);
    // majority(old, x, y) is old where x and y differ and x elsewhere; complemented x, y and result: ~old where they do
    if constexpr (Inverted) return bit_xor(vbicq_u8(differ, bit_xor(old, x)), x);
    return vbslq_u8(differ, old, x);
}

inline Vec majority(Vec a, Vec b, Vec c) { return vbslq_u8(bit_xor(a, b), c, a); }

inline void shuffle(void* to, const uint8_t* from, const uint8_t* order) {
    vst1q_u8(static_cast<uint8_t*>(to), vqtbl1q_u8(vld1q_u8(from), vld1q_u8(order)));
}

#include "peak.inl"
#include "pool_halo.inl"
#include "rgb_pairs.inl"
#include "sliced.inl"
#include "table_head.inl"

// Adds the two products of every pair to its sum.
inline int32x4_t add_pairs(int32x4_t sum, uint32x4_t pixels, int32_t weights) {
    const int16x8_t x = vreinterpretq_s16_u32(pixels);
    const int16x8_t w = vreinterpretq_s16_s32(vdupq_n_s32(weights));
    return vaddq_s32(sum, vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(w)), vmull_high_s16(x, w)));
}

void stem(const StemArgs& args, const uint32_t* const* taps, uint8_t* bits) {
    const PixelPairs in[8] = {{taps, 0},  {taps, 4},  {taps, 8},  {taps, 12},
                              {taps, 16}, {taps, 20}, {taps, 24}, {taps, 28}};
    static const uint32_t kBits[4] = {1, 2, 4, 8};
    for (int channel = 0; channel < args.channels; ++channel) {
        const int32_t* weights = args.weights + channel * kStemStride;
        int32x4_t sums[8];
        for (int part = 0; part < 8; ++part) {
            sums[part] = vdupq_n_s32(0);
            for (int i = 0; i < kStemPairs; ++i) sums[part] = add_pairs(sums[part], in[part].pairs[i], weights[i]);
        }
        for (int level = 0; level < args.levels; ++level, bits += kLine) {
            const int32x4_t theta = vdupq_n_s32(args.theta[channel * args.levels + level]);
            unsigned fired = 0;
            for (int part = 0; part < 8; ++part)
                fired |= vaddvq_u32(vandq_u32(vcgeq_s32(sums[part], theta), vld1q_u32(kBits))) << (4 * part);
            memcpy(bits, &fired, sizeof fired);
        }
    }
}

}  // namespace

const Kernels kernels = {"neon",     count, count_dense, count_weighted, stem, head,
                         unpack_rgb, pool,  pool_levels, halo,           peak};

}  // namespace mbunet::cpu::neon
