#include "threads.hpp"

namespace mbunet {

namespace {

constexpr int kSpins = 200;  // some microseconds: most gaps between two tasks

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waits until `value` differs from `old`; returns what it then is.
template <class T>
T wait_for_change(const std::atomic<T>& value, T old, int yields) {
    for (int i = 0; i < kSpins + yields; ++i) {
        const T now = value.load(std::memory_order_acquire);
        if (now != old) return now;
        if (i < kSpins)
            pause();
        else
            std::this_thread::yield();  // the one waited for may itself be waiting for this core
    }
    value.wait(old, std::memory_order_acquire);
    return value.load(std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads, int yields) : yields_(yields), shares_(static_cast<size_t>(threads)) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { serve(i); });
}

ThreadPool::~ThreadPool() {
    stop_.store(true, std::memory_order_release);
    loop_.fetch_add(1, std::memory_order_release);
    loop_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int tasks, const std::function<void(int, int)>& work) {
    work_ = &work;
    left_.store(tasks, std::memory_order_relaxed);
    const auto count = static_cast<uint64_t>(tasks), threads = shares_.size();
    for (uint64_t t = 0; t < threads; ++t)
        shares_[t].ticket.store(count * (t + 1) / threads << 32 | count * t / threads, std::memory_order_release);
    if (tasks > 1 && !workers_.empty()) {
        loop_.fetch_add(1, std::memory_order_release);
        loop_.notify_all();
    }
    take_tasks(0);
    for (int left = left_.load(std::memory_order_acquire); left != 0;) left = wait_for_change(left_, left, kYields);
}

void ThreadPool::serve(int thread) {
    for (uint32_t seen = 0; !stop_.load(std::memory_order_acquire);) {
        seen = wait_for_change(loop_, seen, yields_);
        take_tasks(thread);
    }
}

void ThreadPool::take_tasks(int thread) {
    const size_t own = static_cast<size_t>(thread);
    int done = 0;
    for (size_t i = 0; i < shares_.size(); ++i) done += take_share((own + i) % shares_.size(), thread);
    // once, not after every task: all threads write this line
    if (done && left_.fetch_sub(done, std::memory_order_acq_rel) == done) left_.notify_all();
}

int ThreadPool::take_share(size_t share, int thread) {
    for (int done = 0;; ++done) {
        const uint64_t ticket = shares_[share].ticket.fetch_add(1, std::memory_order_acq_rel);
        const uint32_t task = static_cast<uint32_t>(ticket), end = static_cast<uint32_t>(ticket >> 32);
        if (task >= end) return done;
        (*work_)(static_cast<int>(task), thread);
    }
}

}  // namespace mbunet
