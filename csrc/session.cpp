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
    const auto side = static_cast<size_t>(network_.multiple());
    const int height = static_cast<int>(round_up(static_cast<size_t>(images[0].height), side));
    const int width = static_cast<int>(round_up(static_cast<size_t>(images[0].width), side));
    const int count = static_cast<int>(images.size()), together = Grid::together(height, width, network_.multiple());
    step_seconds_.assign(network_.steps().size(), 0.0);
    for (int i = 0; i < count; i += together) {
        const Bound& bound = bind(height, width, std::min(together, count - i));
        arena_.reserve(bound.arena_bytes());
        for (Buffer& own : scratch_) own.reserve(Executor::scratch_bytes(network_, bound));
        Executor(kernels_, pool_, network_, bound, arena_.data(), scratch_)
            .run(&images[static_cast<size_t>(i)], step_seconds_);
    }
}

size_t Session::memory() const {
    size_t bytes = arena_.size();
    for (const Bound& bound : bound_) bytes += bound.memory();
    for (const Buffer& own : scratch_) bytes += own.size();
    return bytes;
}

void Session::poison(uint8_t value) { std::fill_n(arena_.data(), arena_.size(), value); }

const Bound& Session::bind(int height, int width, int images) {
    const auto known = std::find_if(bound_.begin(), bound_.end(), [&](const Bound& bound) {
        return bound.grid.height == height && bound.grid.width == width && bound.grid.images == images;
    });
    if (known != bound_.end()) {
        bound_.splice(bound_.begin(), bound_, known);
    } else {
        bound_.emplace_front(network_, height, width, images);
        if (bound_.size() > kBoundShapes) bound_.pop_back();
    }
    return bound_.front();
}

}  // namespace mbunet
