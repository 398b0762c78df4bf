// What runs on the device, as the session sees it: steps prepared once, launches of one kernel each. Needs no CUDA
// header to include.
//
// A tensor of bits is NHWC, without borders: pixel (image, y, x) starts at word ((image * height + y) * width + x) *
// planes * pixel_words(channels), its planes follow each other, the most significant first, and of a plane channel c is
// bit c % 32 of word c / 32; the bits behind the last channel are 0. Every tensor starts on 16 bytes. Kernels write
// every word of their outputs and read nothing but what was written: memory needs no preparation. A tap outside the
// image reads 0 without being stored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "../network.hpp"

struct CUstream_st;

namespace mbunet::cuda {

using Stream = CUstream_st*;  // cudaStream_t

// How products of bits are counted (DESIGN section 2): by XOR or by AND and popcount, whichever the chip has.
enum class BitOp { kXor, kAnd };

struct Device {
    BitOp bit_op;
    int multiprocessors;
    int shared_bytes;     // that it offers a block
    bool has_warpgroups;  // products of warpgroups (LoadedCode)
    bool overlaps;        // whether a kernel may begin before the one before it has ended
};

// What the kernels were compiled for that the current device runs.
struct LoadedCode {
    int capability;       // 10 * major + minor: code for an older architecture may be what runs
    bool has_warpgroups;  // products of warpgroups, which sm_90a alone has
};

// Asks the CUDA runtime. Returns a cudaError_t.
int loaded_code(LoadedCode& code);

// 32-bit words of a plane of one pixel: 1, 2, or a multiple of 4, so that a pixel, or several, fill 16 bytes.
constexpr int pixel_words(int channels) { return channels <= 32 ? 1 : channels <= 64 ? 2 : (channels + 127) / 128 * 4; }

// A step as its kernel wants it. The session uploads `packed_weights` once and keeps it at a multiple of 16 bytes.
struct Layer {
    Op op;
    BitOp bit_op = BitOp::kXor;
    int channels = 0;                 // of the output; classes of the head
    std::vector<int> input_channels;  // of a gate those of the gate too
    int planes = 1, input_planes = 1;
    bool input_is_signed = true;
    int kernel = 3, up = 1, segments = 1;  // of a convolution of bits
    bool masked = false;                   // some weight is zero
    bool by_warpgroups = false;            // WarpgroupConv or StreamedWarpgroupConv computes it
    bool general = false;  // more than one segment on one plane that makes one plane, or an unusual kernel
    int doublings = 0;     // of the head's logits
    int k_steps = 0;       // products of 256 bits for one output; 0 where there are no bits to multiply
    size_t accumulator_start = 0, starts = 0, chunks = 0, shifts = 0,
           worths = 0;                          // first words of parts of `packed_weights`
    std::vector<uint32_t> packed_weights = {};  // see layer.hpp; empty for a pool and a gate
};

// Whether UpConv computes it (up_conv.hpp).
inline bool is_up_conv(const Layer& layer) { return layer.op == Op::kConv && layer.up > 1 && !layer.general; }

// Throws Error for a step with more than two inputs.
Layer prepare(const Network& network, const Step& step, const Device& device);

// Bytes of shared memory that a block of the layer's kernel needs; a device offers a limited number of them.
size_t shared_bytes(const Layer& layer);

// For describe(): the instruction and what the kernel does, e.g. "bmma and m16n8k256, masked".
std::string kernel_name(const Layer& layer, int compiled);

// One image of a batch, in device memory because it changes from run to run.
struct ImageParams {
    int32_t height, width;  // of the image as it came; rows and columns up to the padded shape repeat its edges
    int32_t threshold;      // one class: mask = logit >= threshold
    int32_t unused;
};

// A batch's images and results in device memory. Image i of a batch of shape [images, height, width] starts at pixel i
// * height * width of each array and is as compact as it came: rows of params[i].width pixels follow each other.
struct Batch {
    const ImageParams* params;
    const uint8_t* pixels;  // [..][3]
    uint8_t* masks;
    int32_t* logits;  // [..][classes], or null
};

// One kernel launch.
struct Launch {
    const Layer* layer;
    const uint32_t* packed_weights;  // the uploaded layer.packed_weights
    int images, height, width;       // of what the step reads: the padded image, or its inputs' tensors. An image of a
                                     // tensor has fewer than 2^31 words, and there are fewer than 2^16 images
    const uint32_t* inputs[2];       // tensors of bits; the second only where two are concatenated, or the gate; none
                                     // for pixels
    const uint32_t* residual;        // kConv: a tensor of bits, or null
    uint32_t* output;                // tensor of bits; none for the head
    uint32_t* pooled;                // kConv, even height and width: the output after a 2x2 pool, or null
    int32_t* coarse;                 // kHead with doublings: room for the logits before them
    bool doubles;                    // kHead with doublings: it has two launches, first to `coarse`, then from there
    bool follows;                    // a kernel of the same network is before it in the stream
    Batch batch;                     // kStem reads params and pixels; kHead reads params and writes masks and logits
};

// Enqueues the step's kernel; may be captured in a graph. Returns a cudaError_t.
int launch(const Launch& launch, const Device& device, Stream stream);

// Enqueues `iterations` rounds of products of bits from registers, by the device's bit operation, on all
// multiprocessors; sets `operations`, two to a multiplication and addition of bits. Returns a cudaError_t.
int peak(const Device& device, int iterations, double& operations, Stream stream);

}  // namespace mbunet::cuda
