// The native session: a network's steps, bound to a batch shape when it first appears, run on a thread pool.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "cpu/kernels.hpp"
#include "layout.hpp"
#include "lists.hpp"
#include "threads.hpp"

namespace mbunet {

// One image of a batch. All images of a batch have the same padded shape.
struct Image {
    const uint8_t* pixels;  // [height][width][3]
    int height;
    int width;
    int32_t threshold;  // one class: mask = logit >= threshold
    uint8_t* mask;      // [height][width]
    int32_t* logits;    // [height][width][classes], or null
};

// Bytes that start on a cache line. Grows without keeping what it held.
class Buffer {
  public:
    void reserve(size_t bytes) {
        if (bytes <= size_) return;
        bytes_.reset();
        bytes_.reset(static_cast<uint8_t*>(::operator new(bytes, std::align_val_t{kLine})));
        size_ = bytes;
    }
    uint8_t* data() const { return bytes_.get(); }
    size_t size() const { return size_; }

  private:
    struct Free {
        void operator()(uint8_t* bytes) const { ::operator delete(bytes, std::align_val_t{kLine}); }
    };
    std::unique_ptr<uint8_t, Free> bytes_;
    size_t size_ = 0;
};

class Session {
  public:
    Session(const Kernels& kernels, int threads);
    ~Session();

    int add_slot(int channels, int stride);
    // weights [channels][3][3][3] (row, column, colour), theta [channels]
    void add_pixels(int output, int channels, const int16_t* weights, const int32_t* theta);
    // signs [channels][taps][sum of input_channels] in {-1, 0, 1}, theta [channels]
    void add_convolution(Op op, std::vector<int> inputs, std::vector<int> input_channels, int output, int channels,
                         const int8_t* signs, const int32_t* theta);
    void add_pool(int input, int output, int channels);
    // weights [classes][channels], bias [classes]
    void add_head(int input, int channels, int classes, const int16_t* weights, const int32_t* bias);

    void run(std::vector<Image> images);

    const Kernels& kernels() const { return kernels_; }
    int threads() const { return pool_.size(); }
    int classes() const { return steps_.empty() ? 0 : steps_.back().channels; }
    // Seconds of every step in the last run, batches of eight lanes added up.
    const std::vector<double>& step_seconds() const { return step_seconds_; }
    // Bands per image of the last run.
    int bands() const { return bands_; }
    // Bytes held for activations and bound shapes.
    size_t memory() const;
    // Overwrites all activations, so that a test sees what a run leaves unwritten.
    void poison(uint8_t value);

  private:
    struct Bound;

    int multiple() const;
    std::vector<uint32_t> input_planes(const Bound& bound, const Step& step) const;
    const Bound& bind(int height, int width, int bands);
    void run_lanes(const Bound& bound, const Image* images, int count);
    void run_pixels(const Bound& bound, const Step& step, const Image* images, int count);
    void run_conv(const Bound& bound, size_t index);
    void count(const Lists& lists, const Geometry& geometry, uint8_t* out, size_t out_plane, size_t begin, size_t end,
               int channel, int channel_end);
    void run_pool(const Bound& bound, const Step& step);
    void run_upconv(const Bound& bound, size_t index);
    void run_head(const Bound& bound, const Step& step, const Image* images, int count);
    void fill_halos(const Bound& bound, int slot);
    uint8_t* row0(const Bound& bound, int slot);
    uint8_t* scratch(int thread) { return scratch_[static_cast<size_t>(thread)].data(); }
    size_t scratch_bytes(const Bound& bound) const;

    const Kernels& kernels_;
    ThreadPool pool_;
    std::vector<Slot> slots_;
    std::vector<Step> steps_;
    std::list<std::unique_ptr<Bound>> bound_;  // latest used first
    Buffer arena_;
    std::vector<Buffer> scratch_;  // by thread
    std::vector<double> step_seconds_;
    int bands_ = 0;
};

}  // namespace mbunet
