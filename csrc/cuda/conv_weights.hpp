// A bit convolution's weights and thresholds as its kernel reads them.
//
// A part is the sum over one plane of the inputs with the weights of one segment; 2^x parts of it belong to the layer's
// sum, x being the segment's exponent and, of two planes, one more for the most significant. What a kernel counts of a
// part, v, is one of these (DESIGN section 2; P and N are the weights +1 and -1 of the part, n its products of bits):
//
//                                      signs, dot =     unsigned plane, dot =
//   XOR, masked   a ^ neg + a ^ ~pos   v - n            (v - (n - P + N)) / 2
//   XOR, binary   a ^ neg              2 v - (P + N)    v - N
//   AND, masked   a & pos + ~a & neg   2 v - (P + N)    v - N
//   AND, binary   2 (a & pos) - a      2 v - (P - N)    v
//
// So scale * sum = total of v << (x + doubling) - total of k << x, with a scale that is 2 in one case and else 1. The
// output reaches a threshold where the total, with what `reach` gives, is not negative.
#pragma once

#include "layer.hpp"

namespace mbunet::cuda {

// Products of warpgroups count a & pos - a & neg of masked weights, which is N less than what AND counts.
//
// Appends to layer.packed_weights what its kernel reads, and sets where the parts of it begin. `has_warpgroups`: the
// device.
void pack_convolution(Layer& layer, const Step& step, bool has_warpgroups);

}  // namespace mbunet::cuda
