// One image of a batch, as every session takes it.
#pragma once

#include <cstdint>

namespace mbunet {

// All images of a batch have the same padded shape.
struct Image {
    const uint8_t* pixels;  // [height][width][3]
    int height;
    int width;
    int32_t threshold;  // one class: mask = logit >= threshold
    uint8_t* mask;      // [height][width]
    int32_t* logits;    // [height][width][classes], or null
};

}  // namespace mbunet
