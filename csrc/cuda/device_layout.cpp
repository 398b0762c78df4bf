#include "device_layout.hpp"

#include <utility>

#include "../memory_plan.hpp"
#include "../rounding.hpp"
#include "kernels.hpp"

namespace mbunet::cuda {

namespace {

constexpr size_t kAlign = 256;  // bytes: what cudaMalloc keeps too

}  // namespace

Places::Places(const Network& network, const Shape& shape) {
    const auto images = static_cast<size_t>(shape.images);
    const size_t image_pixels = static_cast<size_t>(shape.height) * static_cast<size_t>(shape.width);
    const size_t all = images * image_pixels;
    const auto classes = static_cast<size_t>(network.classes());
    pixels = round_up(images * sizeof(Frame), kAlign);
    masks = pixels + round_up(all * 3, kAlign);
    logits = masks + round_up(all, kAlign);
    exchange_bytes = logits + (shape.logits ? all * classes * sizeof(int32_t) : 0);
    std::vector<size_t> sizes;
    for (const Slot& slot : network.slots()) {
        const auto stride = static_cast<size_t>(slot.stride);
        const auto words = static_cast<size_t>(pixel_words(slot.channels));
        sizes.push_back(round_up(all / (stride * stride) * words * sizeof(uint32_t), kAlign));
    }
    Placement placement(network, sizes);
    slots = std::move(placement.offsets);
    arena_bytes = placement.bytes;
}

}  // namespace mbunet::cuda
