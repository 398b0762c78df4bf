// How a convolution's sum runs along K: which tap and input channels every word of a product's rows holds.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "geometry.hpp"

namespace mbunet::cuda {

constexpr int kMostInputs = 2, kMostPlanes = 2;

// What a convolution reads: channels of each input, the same planes of all, and the kernel of every segment.
struct ConvShape {
    std::vector<int> input_channels;
    int kernel = 3, planes = 1, segments = 1;
};

// 128 bits of a plane of a pixel's inputs, half a K step: which tap and input channels every word holds.
struct KChunk {
    struct Word {
        int tap = -1;     // -1: nothing of the layer
        int channel = 0;  // the first of 32, counted over all inputs
        int end = 0;      // behind the last channel of the input
    };
    std::array<Word, 4> words;
    int offset = 0;  // in the shared tiles, bytes
    int segment = 0;
};

// The shared tiles, by input and plane, and the chunks in their order: segment by segment, each plane by plane, the
// most significant first. Such a part has a whole number of K steps.
struct KSchedule {
    std::array<int, kMostInputs * kMostPlanes> pitches{}, offsets{};
    bool joined;  // two inputs share a slab
    int shared_tile_bytes = 0;
    std::vector<KChunk> chunks;
    int parts, part_steps;  // K steps of a part

    explicit KSchedule(const ConvShape& shape);
    // Of one part: chunks that hold something of the layer.
    int filled_chunks() const;

  private:
    void join_tiles(const ConvShape& shape);
    void place_tiles(const ConvShape& shape);
    void add_joined_part(const ConvShape& shape, int segment);
    void add_part(const ConvShape& shape, int segment, int plane);
    void complete_part(int segment);
    void add_chunks(const ConvShape& shape, size_t input, const KChunk::Word& all, int plane, int segment, int row,
                    int column);
};

}  // namespace mbunet::cuda
