// AVX2: a carry-save addition is five logic instructions on 256 bits.
#include <immintrin.h>

#include <cstring>

#include "tables.hpp"
#include "target.hpp"

MBUNET_TARGET_BEGIN("avx2")
namespace mbunet::avx2 {
namespace {

using V = __m256i;
using H = V;
constexpr bool kWide = false;

template <class>
inline V load(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const V*>(p));
}
inline void store(uint8_t* p, V v) { _mm256_storeu_si256(reinterpret_cast<V*>(p), v); }
inline V both(V a, V b) { return _mm256_and_si256(a, b); }
inline V flip(V a, V b) { return _mm256_xor_si256(a, b); }
inline V zeros() { return _mm256_setzero_si256(); }
inline V spread(int32_t mask) { return _mm256_set1_epi32(mask); }

template <bool Inverted>
inline V add(V& sum, V x, V y) {
    const V differ = flip(x, y), old = sum;
    sum = flip(differ, old);
    // majority(old, x, y) is old where x and y differ and x elsewhere; complemented x, y and result: ~old where they do
    const V change = flip(old, x);
    return flip(Inverted ? _mm256_andnot_si256(change, differ) : both(change, differ), x);
}

inline void shuffle(void* to, const uint8_t* from, const uint8_t* order) {
    const auto load16 = [](const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); };
    _mm_storeu_si128(static_cast<__m128i*>(to), _mm_shuffle_epi8(load16(from), load16(order)));
}

#include "peak.inl"
#include "pool_halo.inl"
#include "rgb_pairs.inl"
#include "sliced.inl"
#include "table_head.inl"

void pixels(const PixelArgs& args, const uint32_t* const* taps, uint8_t* bits) {
    const PixelPairs in[4] = {{taps, 0}, {taps, 8}, {taps, 16}, {taps, 24}};
    for (int channel = 0; channel < args.channels; ++channel, bits += kLine) {
        const int32_t* weights = args.weights + channel * kPixelStride;
        const V theta = _mm256_set1_epi32(args.theta[channel]);
        for (int part = 0; part < 4; ++part) {
            V sums[3] = {zeros(), zeros(), zeros()};
            for (int i = 0; i < kPixelPairs; ++i)
                sums[i % 3] = _mm256_add_epi32(sums[i % 3],
                                               _mm256_madd_epi16((V)in[part].pairs[i], _mm256_set1_epi32(weights[i])));
            const V below = _mm256_cmpgt_epi32(theta, _mm256_add_epi32(_mm256_add_epi32(sums[0], sums[1]), sums[2]));
            bits[part] = static_cast<uint8_t>(~_mm256_movemask_ps(_mm256_castsi256_ps(below)));
        }
    }
}

}  // namespace

const Kernels kernels = {"avx2", count, count_dense, pixels, head, widen, pool, halo, peak};

}  // namespace mbunet::avx2
MBUNET_TARGET_END
