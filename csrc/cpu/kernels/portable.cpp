// Plain C++ on uint64: the kernels for every machine without better ones.
#include <cstring>

#include "tables.hpp"

namespace mbunet::cpu::portable {
namespace {

using Vec = uint64_t;
using HalfVec = Vec;
constexpr bool kTwoAtOnce = false;

template <class>
inline Vec load(const uint8_t* p) {
    Vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
inline void store(uint8_t* p, Vec v) { memcpy(p, &v, sizeof v); }
inline Vec bit_and(Vec a, Vec b) { return a & b; }
inline Vec bit_xor(Vec a, Vec b) { return a ^ b; }
inline Vec zeros() { return 0; }
inline Vec broadcast(int32_t mask) { return static_cast<Vec>(static_cast<int64_t>(mask)); }

template <bool Inverted>
inline Vec add(Vec& sum, Vec x, Vec y) {
    const Vec differ = x ^ y, old = sum;
    sum = differ ^ old;
    // majority(old, x, y) is old where x and y differ and x elsewhere; complemented x, y and result: ~old where they do
    return (((Inverted ? ~old : old) ^ x) & differ) ^ x;
}

inline Vec majority(Vec a, Vec b, Vec c) { return ((a ^ c) & (b ^ c)) ^ c; }

inline void shuffle(void* to, const uint8_t* from, const uint8_t* order) {
    uint8_t bytes[16];
    for (int i = 0; i < 16; ++i) bytes[i] = order[i] < 16 ? from[order[i]] : 0;
    memcpy(to, bytes, sizeof bytes);
}

#include "peak.inl"
#include "pool_halo.inl"
#include "rgb_pairs.inl"
#include "scalar_stem.inl"
#include "sliced.inl"
#include "table_head.inl"

}  // namespace

const Kernels kernels = {"portable", count, count_dense, count_weighted, stem, head,
                         unpack_rgb, pool,  pool_levels, halo,           peak};

}  // namespace mbunet::cpu::portable
