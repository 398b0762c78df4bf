#include "peak.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "../threads.hpp"
#include "buffer.hpp"

namespace mbunet::cpu {

namespace {

constexpr size_t kPerTry = size_t{512} << 20;  // bytes that every thread reads, in milliseconds
constexpr int kTries = 9;

}  // namespace

double peak(const Kernels& kernels, int threads, size_t bytes) {
    bytes = round_up(bytes, kPeakBlock);
    const int rounds = static_cast<int>(std::max<size_t>(1, kPerTry / bytes));
    ThreadPool pool(threads);
    std::vector<Buffer> data(static_cast<size_t>(threads));
    const auto each = [&](const auto& work) {
        pool.run(threads, [&](int task, int) { work(data[static_cast<size_t>(task)]); });
    };
    each([&](Buffer& own) {
        own.reserve(bytes + kLine);
        std::memset(own.data(), 0x5A, bytes);
    });
    double best = 0;
    for (int i = 0; i < kTries; ++i) {
        const auto start = std::chrono::steady_clock::now();
        each([&](Buffer& own) { kernels.peak(own.data(), bytes, rounds, own.data() + bytes); });
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        best = std::max(best, 8.0 * static_cast<double>(bytes) * rounds * threads / took.count());
    }
    return best;
}

}  // namespace mbunet::cpu
