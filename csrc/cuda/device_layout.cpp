#include "device_layout.hpp"

#include <utility>

#include "../memory_plan.hpp"
#include "../rounding.hpp"
#include "kernels.hpp"

namespace mbunet::cuda {

namespace {

constexpr size_t kAlign = 256;  // bytes: what cudaMalloc keeps too

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
        const auto words = static_cast<size_t>(pixel_words(tensor.channels));
        sizes.push_back(round_up(all / (stride * stride) * words * sizeof(uint32_t), kAlign));
    }
    MemoryPlan plan(network, sizes);
    tensors = std::move(plan.offsets);
    arena_bytes = plan.bytes;
}

}  // namespace mbunet::cuda
