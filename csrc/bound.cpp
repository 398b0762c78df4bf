#include "bound.hpp"

#include <algorithm>
#include <stdexcept>

namespace mbunet {

namespace {

// Addresses of the inputs of `step`, one per channel, for output position 0.
std::vector<uint32_t> input_planes(const Network& network, const Bound& bound, const Step& step) {
    std::vector<uint32_t> planes;
    for (size_t i = 0; i < step.inputs.size(); ++i) {
        const size_t plane = bound.level(network.slot(step.inputs[i])).plane;
        for (int c = 0; c < step.input_channels[i]; ++c)
            planes.push_back(
                static_cast<uint32_t>(bound.row0(network, step.inputs[i]) + static_cast<size_t>(c) * plane));
    }
    return planes;
}

}  // namespace

Bound::Bound(const Network& network, int height, int width, int bands) : height(height), width(width), bands(bands) {
    const int rows = band_rows(height, bands, network.multiple());
    for (const Slot& slot : network.slots()) {
        const int stride = slot.stride;
        if (!levels.contains(stride))
            levels.emplace(stride, Geometry(height / stride, width / stride, bands, rows / stride));
        slot_offsets.push_back(arena_bytes);
        arena_bytes += level(slot).plane * static_cast<size_t>(slot.channels);
        zero_bytes = std::max(zero_bytes, level(slot).span());
    }
    zero = arena_bytes;
    arena_bytes += zero_bytes;
    if (arena_bytes > UINT32_MAX) throw std::length_error("the image needs more than 4 GiB of activations");
    for (const Step& step : network.steps()) {
        lists.emplace_back();
        if (step.op == Op::kConv || step.op == Op::kUpconv)
            lists.back() = list_taps(step, input_planes(network, *this, step), static_cast<uint32_t>(zero),
                                     level(network.slot(step.inputs[0])).stride);
    }
}

size_t Bound::row0(const Network& network, int slot) const {
    return slot_offsets[static_cast<size_t>(slot)] + level(network.slot(slot)).front;
}

size_t Bound::memory() const {
    size_t bytes = 0;
    for (const Lists& list : lists)
        bytes += list.taps.size() * sizeof(uint32_t) + list.sparse.size() * sizeof(CountedChannel) +
                 list.dense.size() * sizeof(DenseChannel);
    return bytes;
}

}  // namespace mbunet
