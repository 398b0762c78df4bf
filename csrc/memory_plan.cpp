#include "memory_plan.hpp"

#include <algorithm>
#include <numeric>

namespace mbunet {

namespace {

using Busy = std::vector<bool>;  // by step

// The last step that reads what step `index` writes.
size_t last_use(const std::vector<Step>& steps, size_t index) {
    size_t last = index;
    for (size_t s = index + 1; s < steps.size(); ++s) {
        if (std::count(steps[s].inputs.begin(), steps[s].inputs.end(), steps[index].output)) last = s;
        if (steps[s].output == steps[index].output) break;
    }
    return last;
}

// The steps from which on until which each tensor holds what is still needed.
std::vector<Busy> busy_steps(const Network& network) {
    const std::vector<Step>& steps = network.steps();
    std::vector<Busy> busy(network.tensors().size(), Busy(steps.size()));
    for (size_t s = 0; s < steps.size(); ++s) {
        if (steps[s].output < 0) continue;
        const size_t first = steps[s].op == Op::kPool && s ? s - 1 : s;  // pooling may be done by the step before
        const auto begin = busy[static_cast<size_t>(steps[s].output)].begin();
        std::fill(begin + static_cast<ptrdiff_t>(first), begin + static_cast<ptrdiff_t>(last_use(steps, s)) + 1, true);
    }
    return busy;
}

bool meet(const Busy& a, const Busy& b) {
    for (size_t s = 0; s < a.size(); ++s)
        if (a[s] && b[s]) return true;
    return false;
}

}  // namespace

// The largest first, each at the lowest place that no tensor needed at the same time has taken.
MemoryPlan::MemoryPlan(const Network& network, const std::vector<size_t>& sizes) : offsets(sizes.size()) {
    const std::vector<Busy> busy = busy_steps(network);
    std::vector<size_t> order(sizes.size()), placed;
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return sizes[a] > sizes[b]; });
    for (size_t tensor : order) {
        size_t at = 0;
        for (size_t other : placed)  // by offset
            if (at + sizes[tensor] > offsets[other] && meet(busy[tensor], busy[other]))
                at = std::max(at, offsets[other] + sizes[other]);
        offsets[tensor] = at;
        bytes = std::max(bytes, at + sizes[tensor]);
        placed.insert(std::upper_bound(placed.begin(), placed.end(), tensor,
                                       [&](size_t a, size_t b) { return offsets[a] < offsets[b]; }),
                      tensor);
    }
}

}  // namespace mbunet
