#include "session.hpp"

#include <algorithm>

namespace mbunet {

namespace {

constexpr size_t kBoundShapes = 8;  // batch shapes kept bound

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
    const auto side = static_cast<size_t>(network_.multiple());
    const int height = static_cast<int>(round_up(static_cast<size_t>(images[0].height), side));
    const int width = static_cast<int>(round_up(static_cast<size_t>(images[0].width), side));
    const int count = static_cast<int>(images.size()), together = Grid::together(height, width, network_.multiple());
    step_seconds_.assign(network_.steps().size(), 0.0);
    const int rounds = height <= kSideBySidePixels / width ? count / together / threads() : 0;
    int done = 0;
    if (threads() > 1 && rounds >= kRounds) {
        run_side_by_side(bind(height, width, together, 1), images.data(), rounds * threads());
        done = rounds * threads() * together;
    }
    for (; done < count; done += together)
        run_together(bind(height, width, std::min(together, count - done), threads()),
                     &images[static_cast<size_t>(done)]);
}

// Memory for `threads` threads, each with a batch of its own.
void Session::prepare(const Bound& bound, int threads) {
    for (int t = 0; t < threads; ++t) arenas_[static_cast<size_t>(t)].reserve(bound.arena_bytes());
    for (Buffer& own : scratch_) own.reserve(Executor::scratch_bytes(network_, bound));
}

// All threads at work on one batch.
void Session::run_together(const Bound& bound, const Image* images) {
    prepare(bound, 1);
    Executor(kernels_, pool_, network_, bound, arenas_[0].data(), scratch_.data()).run(images, step_seconds_);
}

// `batches` batches of bound.deepest.images, each the work of one thread.
void Session::run_side_by_side(const Bound& bound, const Image* images, int batches) {
    prepare(bound, threads());
    std::vector<std::vector<double>> seconds(arenas_.size(), std::vector<double>(step_seconds_.size()));
    pool_.run(batches, [&](int batch, int thread) {
        const auto own = static_cast<size_t>(thread);
        ThreadPool alone(1);
        Executor(kernels_, alone, network_, bound, arenas_[own].data(), &scratch_[own])
            .run(images + batch * bound.deepest.images, seconds[own]);
    });
    for (const std::vector<double>& own : seconds)
        for (size_t s = 0; s < own.size(); ++s) step_seconds_[s] += own[s] / threads();
}

size_t Session::memory() const {
    size_t bytes = 0;
    for (const Buffer& arena : arenas_) bytes += arena.size();
    for (const Bound& bound : bound_) bytes += bound.memory();
    for (const Buffer& own : scratch_) bytes += own.size();
    return bytes;
}

void Session::poison(uint8_t value) {
    for (Buffer& arena : arenas_) std::fill_n(arena.data(), arena.size(), value);
}

const Bound& Session::bind(int height, int width, int images, int threads) {
    const auto known = std::find_if(bound_.begin(), bound_.end(), [&](const Bound& bound) {
        const Grid& grid = bound.deepest;
        return grid.height == height && grid.width == width && grid.images == images && bound.threads == threads;
    });
    if (known != bound_.end()) {
        bound_.splice(bound_.begin(), bound_, known);
    } else {
        bound_.emplace_front(network_, height, width, images, threads);
        if (bound_.size() > kBoundShapes) bound_.pop_back();
    }
    return bound_.front();
}

}  // namespace mbunet
