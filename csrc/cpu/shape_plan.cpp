#include "shape_plan.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "../memory_plan.hpp"

namespace mbunet::cpu {

namespace {

// Offsets of position (0, 0) of `step`'s input channels.
std::vector<uint32_t> input_planes(const Network& network, const ShapePlan& plan, const Step& step) {
    std::vector<uint32_t> planes;
    for (size_t i = 0; i < step.inputs.size(); ++i) {
        const Plane& plane = plan.plane(network.tensor(step.inputs[i]));
        const size_t first = plan.tensor_offsets[static_cast<size_t>(step.inputs[i])] + plane.at(0, 0);
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

// Does a 3x3 convolution read what step `index` writes, before the tensor is written again?
bool read_by_convolution(const Network& network, size_t index) {
    const int tensor = network.steps()[index].output;
    for (size_t s = index + 1; s < network.steps().size(); ++s) {
        const Step& step = network.steps()[s];
        if (step.op == Op::kConv && std::count(step.inputs.begin(), step.inputs.end(), tensor)) return true;
        if (step.output == tensor) return false;
    }
    return false;
}

}  // namespace

ShapePlan::ShapePlan(const Network& network, int height, int width, int images, int threads)
    : deepest(height, width, images, network.multiple()), others(deepest), threads(threads) {
    if (deepest.side > 1) {
        const Grid half(height, width, images, deepest.side / 2);
        if (cost(half, threads) < cost(deepest, threads)) others = half;
    }
    std::vector<size_t> sizes;
    size_t edge_bytes = 0, joint_bytes = 0;
    for (const Tensor& tensor : network.tensors()) {
        const Plane& own = planes.emplace(tensor.stride, Plane(grid(tensor.stride), tensor.stride)).first->second;
        sizes.push_back(own.size * static_cast<size_t>(tensor.channels));
        zero_bytes = std::max(zero_bytes, own.size);
        edge_bytes = std::max(edge_bytes, static_cast<size_t>(tensor.channels) * own.edges(grid(tensor.stride)));
    }
    MemoryPlan memory_plan(network, sizes);
    tensor_offsets = std::move(memory_plan.offsets);
    zero = memory_plan.bytes;
    edges = zero + zero_bytes + kLine;  // a line more: whole vectors are read at the end
    joint = round_up(edges + edge_bytes, kLine);
    for (const Step& step : network.steps())
        if (step.op == Op::kTransposedConv && crosses(network, step))
            joint_bytes = std::max(joint_bytes, static_cast<size_t>(step.channels) * joint_plane().size);
    group_bytes = joint + joint_bytes;
    if (group_bytes > UINT32_MAX) throw std::length_error("the network needs more than 4 GiB of activations");
    for (size_t s = 0; s < network.steps().size(); ++s) {
        const Step& step = network.steps()[s];
        lists.emplace_back();
        needs_halo.push_back(read_by_convolution(network, s));
        if (step.op != Op::kConv && step.op != Op::kTransposedConv) continue;
        const bool joins = crosses(network, step);  // a transposed convolution does
        const size_t output = joins ? joint : tensor_offsets[static_cast<size_t>(step.output)];
        lists.back() = list_taps(step, {input_planes(network, *this, step), plane(network.tensor(step.inputs[0])),
                                        static_cast<uint32_t>(zero), static_cast<uint32_t>(output),
                                        joins ? joint_plane() : plane(network.tensor(step.output))});
    }
}

size_t ShapePlan::memory() const {
    size_t bytes = 0;
    for (const SparseLists& list : lists)
        bytes += list.taps.size() * sizeof(uint32_t) + list.channels.size() * sizeof(CountedChannel) +
                 list.dense_channels.size() * sizeof(DenseChannel);
    return bytes;
}

}  // namespace mbunet::cpu
