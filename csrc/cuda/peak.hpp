// How fast the chip multiplies bits: products from registers and nothing else.
#pragma once

#include "bits.hpp"

namespace mbunet::cuda {

struct PeakArgs {
    int iterations;
};

struct Peak {
    using Args = PeakArgs;
    static constexpr int kIndependent = 8;  // products under way at once

    template <BitOp bit_op>
    MBUNET_DEVICE static void run(const PeakArgs& args) {
        const auto seed = static_cast<uint32_t>(thread_index() + 1) * 0x9E3779B9u;  // zeros would draw too little power
        const uint32_t a[4] = {seed, ~seed, seed << 7, seed >> 7}, b[2] = {seed ^ 0x55555555u, seed * 5};
        int32_t c[kIndependent][4] = {};
        for (int i = 0; i < args.iterations; ++i) repeat<kIndependent>([&](int k) { bmma<bit_op>(c[k], a, b, c[k]); });
        int32_t sum = 0;
        repeat<kIndependent>([&](int k) { sum += c[k][0] + c[k][1] + c[k][2] + c[k][3]; });
        store_shared(shared_memory() + static_cast<uint32_t>(thread_index() * 4), static_cast<uint32_t>(sum));
    }
};

}  // namespace mbunet::cuda
