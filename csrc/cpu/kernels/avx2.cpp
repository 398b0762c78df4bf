// AVX2: a carry-save addition is five logic instructions on 256 bits.
#include <immintrin.h>

#include <cstring>

#include "tables.hpp"
#include "target.hpp"

MBUNET_TARGET_BEGIN("avx2")
namespace mbunet::cpu::avx2 {
namespace {

using Vec = __m256i;
using HalfVec = Vec;
constexpr bool kTwoAtOnce = false;

template <class>
inline Vec load(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const Vec*>(p));
}
inline void store(uint8_t* p, Vec v) { _mm256_storeu_si256(reinterpret_cast<Vec*>(p), v); }
inline Vec bit_and(Vec a, Vec b) { return _mm256_and_si256(a, b); }
inline Vec bit_xor(Vec a, Vec b) { return _mm256_xor_si256(a, b); }
inline Vec zeros() { return _mm256_setzero_si256(); }
inline Vec broadcast(int32_t mask) { return _mm256_set1_epi32(mask); }

template <bool Inverted>
inline Vec add(Vec& sum, Vec x, Vec y) {
    const Vec differ = bit_xor(x, y), old = sum;
    sum = bit_xor(differ, old);
    // majority(old, x, y) is old where x and y differ and x elsewhere; complemented x, y and result: ~old where they do
    const Vec change = bit_xor(old, x);
    return bit_xor(Inverted ? _mm256_andnot_si256(change, differ) : bit_and(change, differ), x);
}

inline Vec majority(Vec a, Vec b, Vec c) { return bit_xor(bit_and(bit_xor(a, c), bit_xor(b, c)), c); }

inline void shuffle(void* to, const uint8_t* from, const uint8_t* order) {
    const auto load16 = [](const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); };
    _mm_storeu_si128(static_cast<__m128i*>(to), _mm_shuffle_epi8(load16(from), load16(order)));
}

#include "peak.inl"
#include "pool_halo.inl"
#include "rgb_pairs.inl"
#include "sliced.inl"
#include "table_head.inl"

void stem(const StemArgs& args, const uint32_t* const* taps, uint8_t* bits) {
    const PixelPairs in[4] = {{taps, 0}, {taps, 8}, {taps, 16}, {taps, 24}};
    const int levels = args.levels;
    for (int channel = 0; channel < args.channels; ++channel, bits += static_cast<size_t>(levels) * kLine) {
        const int32_t* weights = args.weights + channel * kStemStride;
        for (int part = 0; part < 4; ++part) {
            Vec sums[3] = {zeros(), zeros(), zeros()};
            for (int i = 0; i < kStemPairs; ++i)
                sums[i % 3] = _mm256_add_epi32(
                    sums[i % 3], _mm256_madd_epi16((Vec)in[part].pairs[i], _mm256_set1_epi32(weights[i])));
            const Vec sum = _mm256_add_epi32(_mm256_add_epi32(sums[0], sums[1]), sums[2]);
            for (int level = 0; level < levels; ++level) {
                const Vec below = _mm256_cmpgt_epi32(_mm256_set1_epi32(args.theta[channel * levels + level]), sum);
                bits[static_cast<size_t>(level) * kLine + static_cast<size_t>(part)] =
                    static_cast<uint8_t>(~_mm256_movemask_ps(_mm256_castsi256_ps(below)));
            }
        }
    }
}

}  // namespace

const Kernels kernels = {"avx2",     count, count_dense, count_weighted, stem, head,
                         unpack_rgb, pool,  pool_levels, halo,           peak};

}  // namespace mbunet::cpu::avx2
MBUNET_TARGET_END
