// Plain C++ on uint64: the kernels for every machine without better ones.
#include <cstring>

#include "tables.hpp"

namespace mbunet::portable {
namespace {

using V = uint64_t;
using H = V;
constexpr bool kWide = false;

template <class>
inline V load(const uint8_t* p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}
inline void store(uint8_t* p, V v) { memcpy(p, &v, sizeof v); }
inline V both(V a, V b) { return a & b; }
inline V flip(V a, V b) { return a ^ b; }
inline V zeros() { return 0; }
inline V spread(int32_t mask) { return static_cast<V>(static_cast<int64_t>(mask)); }

template <bool Inverted>
inline V add(V& sum, V x, V y) {
    const V differ = x ^ y, old = sum;
    sum = differ ^ old;
    // majority(old, x, y) is old where x and y differ and x elsewhere; complemented x, y and result: ~old where they do
    return (((Inverted ? ~old : old) ^ x) & differ) ^ x;
}

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

const Kernels kernels = {"portable", count, count_dense, pixels, head, widen, pool, halo, peak};

}  // namespace mbunet::portable
