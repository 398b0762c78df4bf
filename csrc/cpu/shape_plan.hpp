// A network planned for one batch shape: planes, tensor addresses, and weights as lists of distances.
#pragma once

#include <map>
#include <vector>

#include "../network.hpp"
#include "layout.hpp"
#include "sparse_lists.hpp"

namespace mbunet::cpu {

struct ShapePlan {
    // The tiles of the deepest level, which are one position each there, and those of all other levels: the same, or
    // half as wide where that costs less, with groups that are fuller or as many as the threads.
    Grid deepest, others;
    int threads;                         // at work on it
    std::map<int, Plane> planes;         // by stride
    std::vector<size_t> tensor_offsets;  // of a tensor's first channel within a group
    std::vector<SparseLists> lists;      // by step, empty for what is no bit convolution
    std::vector<bool> needs_halo;        // by step: a 3x3 convolution reads its output
    size_t zero = 0, zero_bytes = 0;     // offset and size of an input that is 0 at every position
    size_t edges = 0;                    // offset of a copy of the edges of the tensor that is written
    size_t joint = 0;                    // offset of what an upsampling writes, before other tiles take it
    size_t group_bytes = 0;              // from one group to the next
    size_t logits_bytes = 0;             // of logits that are to be doubled in size, behind the groups

    // Throws std::length_error for a network whose activations exceed what an offset can address.
    ShapePlan(const Network& network, int height, int width, int images, int threads);

    const Grid& grid(int stride) const { return stride == deepest.side ? deepest : others; }
    // Whether a step reads one grid and writes the other.
    bool crosses(const Network& network, const Step& step) const {
        return grid(network.tensor(step.inputs[0]).stride).side != grid(network.tensor(step.output).stride).side;
    }
    // What an upsampling out of the deepest level writes where it crosses: the next level, on its own tiles.
    Plane joint_plane() const { return Plane(deepest, deepest.side / 2); }
    const Plane& plane(const Tensor& tensor) const { return planes.at(tensor.stride); }
    // Offset of the logits.
    size_t logits() const { return group_bytes * static_cast<size_t>(others.groups); }
    size_t arena_bytes() const { return logits() + logits_bytes; }
    // Bytes of the lists.
    size_t memory() const;
};

}  // namespace mbunet::cpu
