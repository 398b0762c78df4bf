#include "shape_plan.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "../memory_plan.hpp"

namespace mbunet {

namespace {

// Offsets of position (0, 0) of `step`'s input channels.
std::vector<uint32_t> input_planes(const Network& network, const Bound& bound, const Step& step) {
    std::vector<uint32_t> planes;
    for (size_t i = 0; i < step.inputs.size(); ++i) {
        const Plane& plane = bound.plane(network.slot(step.inputs[i]));
        const size_t first = bound.slot_offsets[static_cast<size_t>(step.inputs[i])] + plane.at(0, 0);
        for (int c = 0; c < step.input_channels[i]; ++c)
            planes.push_back(static_cast<uint32_t>(first + static_cast<size_t>(c) * plane.size));
    }
    return planes;
}

// What a level costs on the tiles of `grid`, to compare two: the pixels that its groups have room for; more, as
// measured, where positions are narrower than a vector, where tiles are small and have much border, and where threads
// share groups and so fetch lines from each other's caches.
double cost(const Grid& grid, int threads) {
    const double pixels = static_cast<double>(grid.groups) * static_cast<double>(grid.bytes) * grid.side * grid.side;
    const double sharing = std::max(1.0, static_cast<double>(threads) / grid.groups);
    return pixels * (1 + 8.0 / static_cast<double>(grid.bytes)) * (1 + 4.0 / grid.side) * (0.9 + 0.1 * sharing);
}

// Does a 3x3 convolution read what step `index` writes, before the slot is written again?
bool read_by_convolution(const Network& network, size_t index) {
    const int slot = network.steps()[index].output;
    for (size_t s = index + 1; s < network.steps().size(); ++s) {
        const Step& step = network.steps()[s];
        if (step.op == Op::kConv && std::count(step.inputs.begin(), step.inputs.end(), slot)) return true;
        if (step.output == slot) return false;
    }
    return false;
}

}  // namespace

Bound::Bound(const Network& network, int height, int width, int images, int threads)
    : deepest(height, width, images, network.multiple()), others(deepest), threads(threads) {
    if (deepest.side > 1) {
        const Grid half(height, width, images, deepest.side / 2);
        if (cost(half, threads) < cost(deepest, threads)) others = half;
    }
    std::vector<size_t> sizes;
    size_t edge_bytes = 0, joint_bytes = 0;
    for (const Slot& slot : network.slots()) {
        const Plane& own = planes.emplace(slot.stride, Plane(grid(slot.stride), slot.stride)).first->second;
        sizes.push_back(own.size * static_cast<size_t>(slot.channels));
        zero_bytes = std::max(zero_bytes, own.size);
        edge_bytes = std::max(edge_bytes, static_cast<size_t>(slot.channels) * own.edges(grid(slot.stride)));
    }
    Placement placement(network, sizes);
    slot_offsets = std::move(placement.offsets);
    zero = placement.bytes;
    edges = zero + zero_bytes + kLine;  // a line more: whole vectors are read at the end
    joint = round_up(edges + edge_bytes, kLine);
    for (const Step& step : network.steps())
        if (step.op == Op::kUpconv && crosses(network, step))
            joint_bytes = std::max(joint_bytes, static_cast<size_t>(step.channels) * joint_plane().size);
    group_bytes = joint + joint_bytes;
    if (group_bytes > UINT32_MAX) throw std::length_error("the network needs more than 4 GiB of activations");
    for (size_t s = 0; s < network.steps().size(); ++s) {
        const Step& step = network.steps()[s];
        lists.emplace_back();
        needs_halo.push_back(read_by_convolution(network, s));
        if (step.op != Op::kConv && step.op != Op::kUpconv) continue;
        const bool joins = crosses(network, step);  // a transposed convolution does
        const size_t output = joins ? joint : slot_offsets[static_cast<size_t>(step.output)];
        lists.back() = list_taps(
            step, {input_planes(network, *this, step), plane(network.slot(step.inputs[0])), static_cast<uint32_t>(zero),
                   static_cast<uint32_t>(output), joins ? joint_plane() : plane(network.slot(step.output))});
    }
}

size_t Bound::memory() const {
    size_t bytes = 0;
    for (const Lists& list : lists)
        bytes += list.taps.size() * sizeof(uint32_t) + list.sparse.size() * sizeof(CountedChannel) +
                 list.dense.size() * sizeof(DenseChannel);
    return bytes;
}

}  // namespace mbunet
