// AVX-512 F, BW and VL: a carry-save addition is two ternary-logic instructions.
#include <immintrin.h>

#include <cstring>

#include "tables.hpp"
#include "target.hpp"

MBUNET_TARGET_BEGIN("avx512f,avx512bw,avx512vl")
namespace mbunet::cpu::avx512 {
namespace {

using Vec = __m512i;
using HalfVec = __m256i;  // three at a time, of whole ones two
constexpr bool kTwoAtOnce = true;

template <class U>
inline U load(const uint8_t* p) {
    U u;
    memcpy(&u, p, sizeof u);
    asm("" : "+v"(u));  // a register: compilers would read memory again for each of the two uses
    return u;
}
inline void store(uint8_t* p, Vec v) { _mm512_storeu_si512(p, v); }
inline void store(uint8_t* p, HalfVec h) { _mm256_storeu_si256(reinterpret_cast<HalfVec*>(p), h); }
inline Vec bit_and(Vec a, Vec b) { return _mm512_and_si512(a, b); }
inline HalfVec bit_and(HalfVec a, HalfVec b) { return _mm256_and_si256(a, b); }
inline Vec bit_xor(Vec a, Vec b) { return _mm512_xor_si512(a, b); }
inline HalfVec bit_xor(HalfVec a, HalfVec b) { return _mm256_xor_si256(a, b); }
inline Vec zeros() { return _mm512_setzero_si512(); }
inline Vec broadcast(int32_t mask) { return _mm512_set1_epi32(mask); }

// The carry from the new sum, in the place of x, which nobody needs any more: nothing has to be copied. It is x where
// x == y, else the complement of the sum, or (inverted) the sum.
constexpr int kSum = 0x96;
constexpr int carry(bool inverted) { return inverted ? 0xE8 : 0xD4; }

template <bool Inverted>
inline Vec add(Vec& sum, Vec x, Vec y) {
    sum = _mm512_ternarylogic_epi32(sum, x, y, kSum);
    return _mm512_ternarylogic_epi32(x, y, sum, carry(Inverted));
}
template <bool Inverted>
inline HalfVec add(HalfVec& sum, HalfVec x, HalfVec y) {
    sum = _mm256_ternarylogic_epi32(sum, x, y, kSum);
    return _mm256_ternarylogic_epi32(x, y, sum, carry(Inverted));
}

inline Vec majority(Vec a, Vec b, Vec c) { return _mm512_ternarylogic_epi32(a, b, c, 0xE8); }
inline HalfVec majority(HalfVec a, HalfVec b, HalfVec c) { return _mm256_ternarylogic_epi32(a, b, c, 0xE8); }

inline void shuffle(void* to, const uint8_t* from, const uint8_t* order) {
    const auto load16 = [](const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); };
    _mm_storeu_si128(static_cast<__m128i*>(to), _mm_shuffle_epi8(load16(from), load16(order)));
}

#include "peak.inl"
#include "pool_halo.inl"
#include "rgb_pairs.inl"
#include "sliced.inl"

inline Vec add_pairs(Vec sums, Vec pixels, Vec weights) {
    return _mm512_add_epi32(sums, _mm512_madd_epi16(pixels, weights));
}

#include "avx512_stem.inl"

void head(const HeadArgs& args, const uint8_t* bits, int32_t* logits) {
    constexpr int kParts = kHeadLanes / 16;
    for (int c = 0; c < args.classes; ++c) {
        Vec sums[kParts];
        for (Vec& sum : sums) sum = _mm512_set1_epi32(args.base[c]);
        for (int plane = 0; plane < args.planes; ++plane) {
            __mmask16 set[kParts];
            memcpy(set, bits + static_cast<size_t>(plane) * args.plane, sizeof set);
            const Vec weight = _mm512_set1_epi32(args.weights[c * args.planes + plane]);
            for (int i = 0; i < kParts; ++i) sums[i] = _mm512_mask_add_epi32(sums[i], set[i], sums[i], weight);
        }
        for (int i = 0; i < kParts; ++i) _mm512_storeu_si512(logits + c * kHeadLanes + i * 16, sums[i]);
    }
}

}  // namespace

const Kernels kernels = {"avx512",   count, count_dense, count_weighted, stem, head,
                         unpack_rgb, pool,  pool_levels, halo,           peak};

}  // namespace mbunet::cpu::avx512
MBUNET_TARGET_END

// With VNNI the first layer's products are added by the instruction that makes them; all else is the same.
MBUNET_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512vnni")
namespace mbunet::cpu::avx512vnni {
namespace {

inline __m512i add_pairs(__m512i sums, __m512i pixels, __m512i weights) {
    return _mm512_dpwssd_epi32(sums, pixels, weights);
}

using avx512::kPairedLanes;
using avx512::PixelPairs;

#include "avx512_stem.inl"

}  // namespace

const Kernels kernels = {"avx512vnni", avx512::count,      avx512::count_dense, avx512::count_weighted, stem,
                         avx512::head, avx512::unpack_rgb, avx512::pool,        avx512::pool_levels,    avx512::halo,
                         avx512::peak};

}  // namespace mbunet::cpu::avx512vnni
MBUNET_TARGET_END
