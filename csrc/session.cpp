#include "session.hpp"

#include <algorithm>

namespace mbunet {

namespace {

constexpr size_t kBoundShapes = 8;  // batch shapes kept bound

}  // namespace

Session::Session(const Kernels& kernels, int threads)
    : kernels_(kernels), pool_(threads), scratch_(static_cast<size_t>(threads)) {}

void Session::run(const std::vector<Image>& images) {
    if (images.empty()) return;
    const auto fit = static_cast<size_t>(network_.multiple());
    const int height = static_cast<int>(round_up(static_cast<size_t>(images[0].height), fit));
    const int width = static_cast<int>(round_up(static_cast<size_t>(images[0].width), fit));
    const int count = static_cast<int>(images.size());
    bands_ = choose_bands(height, count, network_.multiple());
    const Bound& bound = bind(height, width, bands_);
    arena_.reserve(bound.arena_bytes + kLine);
    for (Buffer& own : scratch_) own.reserve(Executor::scratch_bytes(network_, bound));
    step_seconds_.assign(network_.steps().size(), 0.0);
    Executor executor(kernels_, pool_, network_, bound, arena_.data(), scratch_);
    const int together = kLanes / bands_;
    for (int i = 0; i < count; i += together)
        executor.run(&images[static_cast<size_t>(i)], std::min(together, count - i), step_seconds_);
}

size_t Session::memory() const {
    size_t bytes = arena_.size();
    for (const Bound& bound : bound_) bytes += bound.memory();
    for (const Buffer& own : scratch_) bytes += own.size();
    return bytes;
}

void Session::poison(uint8_t value) { std::fill_n(arena_.data(), arena_.size(), value); }

const Bound& Session::bind(int height, int width, int bands) {
    const auto known = std::find_if(bound_.begin(), bound_.end(), [&](const Bound& bound) {
        return bound.height == height && bound.width == width && bound.bands == bands;
    });
    if (known != bound_.end()) {
        bound_.splice(bound_.begin(), bound_, known);
    } else {
        bound_.emplace_front(network_, height, width, bands);
        if (bound_.size() > kBoundShapes) bound_.pop_back();
    }
    return bound_.front();
}

}  // namespace mbunet
