#include "session.hpp"

#include <algorithm>

#include "packed_weights.hpp"

namespace mbunet::cpu {

namespace {

constexpr size_t kShapePlans = 8;  // batch shapes whose plans are kept

// Images up to this many pixels are shared out among the threads, each running its own from the first step to the last:
// nobody waits at the end of a step, and what a thread reads is what it wrote. Larger ones would take an arena each.
constexpr int kSideBySidePixels = 1 << 20;
constexpr int kRounds = 2;  // fewer, and a thread that was held up is waited for longer than layers would cost

}  // namespace

Session::Session(const Kernels& kernels, int threads)
    : kernels_(kernels),
      pool_(threads),
      arenas_(static_cast<size_t>(threads)),
      scratch_(static_cast<size_t>(threads)) {}

void Session::run(const std::vector<Image>& images) {
    if (images.empty()) return;
    for (size_t s = packed_.size(); s < network_.steps().size(); ++s)
        packed_.push_back(packed_weights(network_.steps()[s]));
    const auto side = static_cast<size_t>(network_.multiple());
    const int height = static_cast<int>(round_up(static_cast<size_t>(images[0].height), side));
    const int width = static_cast<int>(round_up(static_cast<size_t>(images[0].width), side));
    const int count = static_cast<int>(images.size()), together = Grid::together(height, width, network_.multiple());
    step_seconds_.assign(network_.steps().size(), 0.0);
    const int rounds = height <= kSideBySidePixels / width ? count / together / threads() : 0;
    int done = 0;
    if (threads() > 1 && rounds >= kRounds) {
        run_side_by_side(plan_for(height, width, together, 1), images.data(), rounds * threads());
        done = rounds * threads() * together;
    }
    for (; done < count; done += together)
        run_together(plan_for(height, width, std::min(together, count - done), threads()),
                     &images[static_cast<size_t>(done)]);
}

// Memory for `threads` threads, each with a batch of its own.
void Session::prepare(const ShapePlan& plan, int threads) {
    for (int t = 0; t < threads; ++t) arenas_[static_cast<size_t>(t)].reserve(plan.arena_bytes());
    for (Buffer& own : scratch_) own.reserve(Executor::scratch_bytes(network_, plan));
}

// All threads at work on one batch.
void Session::run_together(const ShapePlan& plan, const Image* images) {
    prepare(plan, 1);
    Executor(kernels_, pool_, network_, packed_, plan, arenas_[0].data(), scratch_.data()).run(images, step_seconds_);
}

// `batches` batches of plan.deepest.images, each the work of one thread.
void Session::run_side_by_side(const ShapePlan& plan, const Image* images, int batches) {
    prepare(plan, threads());
    std::vector<std::vector<double>> seconds(arenas_.size(), std::vector<double>(step_seconds_.size()));
    pool_.run(batches, [&](int batch, int thread) {
        const auto own = static_cast<size_t>(thread);
        ThreadPool alone(1);
        Executor(kernels_, alone, network_, packed_, plan, arenas_[own].data(), &scratch_[own])
            .run(images + batch * plan.deepest.images, seconds[own]);
    });
    for (const std::vector<double>& own : seconds)
        for (size_t s = 0; s < own.size(); ++s) step_seconds_[s] += own[s] / threads();
}

size_t Session::memory() const {
    size_t bytes = 0;
    for (const Buffer& arena : arenas_) bytes += arena.size();
    for (const ShapePlan& plan : plans_) bytes += plan.memory();
    for (const Buffer& own : scratch_) bytes += own.size();
    return bytes;
}

void Session::poison(uint8_t value) {
    for (Buffer& arena : arenas_) std::fill_n(arena.data(), arena.size(), value);
}

const ShapePlan& Session::plan_for(int height, int width, int images, int threads) {
    const auto known = std::find_if(plans_.begin(), plans_.end(), [&](const ShapePlan& plan) {
        const Grid& grid = plan.deepest;
        return grid.height == height && grid.width == width && grid.images == images && plan.threads == threads;
    });
    if (known != plans_.end()) {
        plans_.splice(plans_.begin(), plans_, known);
    } else {
        plans_.emplace_front(network_, height, width, images, threads);
        if (plans_.size() > kShapePlans) plans_.pop_back();
    }
    return plans_.front();
}

}  // namespace mbunet::cpu
