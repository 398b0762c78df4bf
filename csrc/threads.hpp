// A thread pool for short parallel loops: the caller works too, the others wait for the next loop and then sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace mbunet {

class ThreadPool {
  public:
    static constexpr int kYields = 1000;  // some hundred microseconds: longer than the gap between two layers

    // How often a thread without work offers its core to others before it sleeps. Who has no next loop soon says 0, so
    // that no core is kept busy by waiting.
    explicit ThreadPool(int threads, int yields = kYields);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int size() const { return static_cast<int>(workers_.size()) + 1; }

    // Calls work(task, thread) for every task in [0, tasks), on all threads; returns when all are done.
    // One loop at a time; `work` must not throw. Every thread begins with its own share, in order, and then helps the
    // others: loops whose tasks run over the same rows find their data in the cache of the core that wrote it.
    void run(int tasks, const std::function<void(int task, int thread)>& work);

  private:
    void serve(int thread);
    void take_tasks(int thread);
    int take_share(size_t share, int thread);  // how many tasks that were

    const int yields_;
    const std::function<void(int, int)>* work_ = nullptr;
    std::atomic<bool> stop_{false};
    alignas(64) std::atomic<uint32_t> loop_{0};  // number of the current loop: what idle workers watch
    // A thread's share: end << 32 | next task to take. Both in one word, so that a worker that comes late, when the
    // next loop is being set up, cannot take the one's index for the other's.
    struct alignas(64) Share {
        std::atomic<uint64_t> ticket{0};
    };
    std::vector<Share> shares_;
    alignas(64) std::atomic<int> left_{0};  // tasks not finished; only these are waited for, not the workers
    std::vector<std::thread> workers_;      // last: they use all of the above
};

}  // namespace mbunet
