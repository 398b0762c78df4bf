#include "device_layout.hpp"

#include <utility>

#include "../memory_plan.hpp"
#include "../rounding.hpp"
#include "kernels.hpp"

namespace mbunet::cuda {

namespace {

constexpr size_t kAlign = 256;  // bytes: what cudaMalloc keeps too

// Logits of `pixels` pixels before the head doubles their size; none where it does not.
size_t coarse_logits(const Network& network, size_t pixels) {
    const Step& head = network.steps().back();
    return head.doublings ? (pixels >> 2 * head.doublings) * static_cast<size_t>(head.channels) : 0;
}

}  // namespace

DeviceLayout::DeviceLayout(const Network& network, const Shape& shape) {
    const auto images = static_cast<size_t>(shape.images);
    const size_t image_pixels = static_cast<size_t>(shape.height) * static_cast<size_t>(shape.width);
    const size_t all = images * image_pixels;
    const auto classes = static_cast<size_t>(network.classes());
    pixels = round_up(images * sizeof(ImageParams), kAlign);
    masks = pixels + round_up(all * 3, kAlign);
    logits = masks + round_up(all, kAlign);
    staging_bytes = logits + (shape.logits ? all * classes * sizeof(int32_t) : 0);
    std::vector<size_t> sizes;
    for (const Tensor& tensor : network.tensors()) {
        const auto stride = static_cast<size_t>(tensor.stride);
        const auto words = static_cast<size_t>(tensor.planes * pixel_words(tensor.channels));
        sizes.push_back(round_up(all / (stride * stride) * words * sizeof(uint32_t), kAlign));
    }
    MemoryPlan plan(network, sizes);
    tensors = std::move(plan.offsets);
    coarse = round_up(plan.bytes, kAlign);
    arena_bytes = coarse + coarse_logits(network, all) * sizeof(int32_t);
}

}  // namespace mbunet::cuda
