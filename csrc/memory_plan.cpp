#include "memory_plan.hpp"

#include <algorithm>
#include <numeric>

namespace mbunet {

namespace {

struct Lifetime {
    int first, last;  // steps

    bool meets(const Lifetime& other) const { return first <= other.last && other.first <= last; }
};

std::vector<Lifetime> lifetimes(const Network& network) {
    std::vector<Lifetime> found;
    for (const Tensor& tensor : network.tensors()) found.push_back({tensor.first, tensor.last});
    for (const Step& step : network.steps())  // the step before may pool what it writes
        if (step.op == Op::kPool) --found[static_cast<size_t>(step.output)].first;
    return found;
}

}  // namespace

// The largest first, each at the lowest place that no tensor needed at the same time has taken.
MemoryPlan::MemoryPlan(const Network& network, const std::vector<size_t>& sizes) : offsets(sizes.size()) {
    const std::vector<Lifetime> needed = lifetimes(network);
    std::vector<size_t> order(sizes.size()), placed;
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return sizes[a] > sizes[b]; });
    for (size_t tensor : order) {
        size_t at = 0;
        for (size_t other : placed)  // by offset
            if (at + sizes[tensor] > offsets[other] && needed[tensor].meets(needed[other]))
                at = std::max(at, offsets[other] + sizes[other]);
        offsets[tensor] = at;
        bytes = std::max(bytes, at + sizes[tensor]);
        placed.insert(std::upper_bound(placed.begin(), placed.end(), tensor,
                                       [&](size_t a, size_t b) { return offsets[a] < offsets[b]; }),
                      tensor);
    }
}

}  // namespace mbunet
