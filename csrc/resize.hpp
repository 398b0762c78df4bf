// Bilinear resize of an image to a network's size (engine/preprocess.py), in 16-bit fixed point: the same bits on every
// machine.
#pragma once

#include <cstdint>

namespace mbunet {

struct Size {
    int height, width;
};

// Writes `resized` [to.height][to.width][3], each row from the two rows of `image` [from.height][from.width][3] between
// which it lies.
void resize(const uint8_t* image, Size from, uint8_t* resized, Size to);

}  // namespace mbunet
