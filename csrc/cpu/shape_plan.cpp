#include "shape_plan.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "../memory_plan.hpp"

namespace mbunet::cpu {

namespace {

Addresses addresses(const Network& network, const ShapePlan& plan, const Step& step) {
    Addresses found{};
    const auto add = [&](int index, std::vector<uint32_t>& taps) {
        const Tensor& tensor = network.tensor(index);
        const Plane& plane = plan.plane(tensor);
        const size_t first = plan.tensor_offsets[static_cast<size_t>(index)] + plane.at(0, 0);
        for (int channel = 0; channel < tensor.channels; ++channel)
            taps.push_back(static_cast<uint32_t>(first + static_cast<size_t>(channel * tensor.planes) * plane.size));
    };
    for (int input : step.inputs) add(input, found.inputs);
    if (step.conv.residual.tensor >= 0) add(step.conv.residual.tensor, found.residual);
    found.planes = network.tensor(step.inputs[0]).planes;
    found.input = plan.plane(network.tensor(step.inputs[0]));
    found.zero = static_cast<uint32_t>(plan.zero);
    const bool joins = plan.crosses(network, step);  // an upsampling may
    found.output = static_cast<uint32_t>(joins ? plan.joint : plan.tensor_offsets[static_cast<size_t>(step.output)]);
    found.out = joins ? plan.joint_plane() : plan.plane(network.tensor(step.output));
    found.out_planes = network.tensor(step.output).planes;
    found.is_signed = network.tensor(step.inputs[0]).is_signed;
    return found;
}

// What a level costs on the tiles of `grid`, to compare two: the pixels that its groups have room for; more, as
// measured, where positions are narrower than a vector, where tiles are small and have much border, and where threads
// share groups and so fetch lines from each other's caches.
double cost(const Grid& grid, int threads) {
    const double pixels = static_cast<double>(grid.groups) * static_cast<double>(grid.bytes) * grid.side * grid.side;
    const double sharing = std::max(1.0, static_cast<double>(threads) / grid.groups);
    return pixels * (1 + 8.0 / static_cast<double>(grid.bytes)) * (1 + 4.0 / grid.side) * (0.9 + 0.1 * sharing);
}

// Does a 3x3 convolution read the tensor?
bool read_by_convolution(const Network& network, int tensor) {
    return std::any_of(network.steps().begin(), network.steps().end(), [&](const Step& step) {
        return step.op == Op::kConv && step.conv.kernel > 1 &&
               std::count(step.inputs.begin(), step.inputs.end(), tensor);
    });
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
        sizes.push_back(own.size * static_cast<size_t>(tensor.bit_planes()));
        zero_bytes = std::max(zero_bytes, own.size * static_cast<size_t>(tensor.planes));
        edge_bytes = std::max(edge_bytes, static_cast<size_t>(tensor.bit_planes()) * own.edges(grid(tensor.stride)));
    }
    MemoryPlan memory_plan(network, sizes);
    tensor_offsets = std::move(memory_plan.offsets);
    zero = memory_plan.bytes;
    edges = zero + zero_bytes + kLine;  // a line more: whole vectors are read at the end
    joint = round_up(edges + edge_bytes, kLine);
    for (const Step& step : network.steps()) {
        if (step.op == Op::kConv && crosses(network, step))
            joint_bytes = std::max(joint_bytes,
                                   static_cast<size_t>(network.tensor(step.output).bit_planes()) * joint_plane().size);
        if (step.doublings)
            logits_bytes = sizeof(int32_t) * static_cast<size_t>(images * step.channels) *
                           static_cast<size_t>(height >> step.doublings) * static_cast<size_t>(width >> step.doublings);
    }
    group_bytes = joint + joint_bytes;
    if (group_bytes > UINT32_MAX) throw std::length_error("the network needs more than 4 GiB of activations");
    for (const Step& step : network.steps()) {
        needs_halo.push_back(read_by_convolution(network, step.output));
        lists.push_back(step.op == Op::kConv ? list_taps(step, addresses(network, *this, step)) : SparseLists{});
    }
}

size_t ShapePlan::memory() const {
    size_t bytes = 0;
    for (const SparseLists& list : lists) bytes += list.memory();
    return bytes;
}

}  // namespace mbunet::cpu
