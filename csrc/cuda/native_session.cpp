#include "native_session.hpp"

#include <algorithm>
#include <atomic>
#include <thread>

#include "../rounding.hpp"
#include "check.hpp"
#include "heuristics.hpp"
#include "host_copies.hpp"

namespace mbunet::cuda {

namespace {

constexpr size_t kShapePlans = 16;            // batch shapes whose graphs are kept
constexpr size_t kAlign = 256;                // bytes, of a layer's packed weights
constexpr int kCopiers = 4;                   // threads: each copies some 10 GB/s, a GPU takes up to 50
constexpr size_t kPinned = size_t{64} << 20;  // bytes for callers: seven batches of eight images of 512 x 512

void use(int gpu) { check(cudaSetDevice(gpu), "choosing GPU " + std::to_string(gpu)); }

// The GPU `index`, made the current one.
Gpu current(int index) {
    const std::vector<Gpu> found = gpus();
    if (index < 0 || static_cast<size_t>(index) >= found.size())
        throw Error("there is no GPU " + std::to_string(index) + "; this machine has " + std::to_string(found.size()));
    use(index);
    return found[static_cast<size_t>(index)];
}

size_t pixels_of(const Image& image) { return static_cast<size_t>(image.height) * static_cast<size_t>(image.width); }

int attribute(cudaDeviceAttr which, int gpu) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, gpu), "looking at GPU " + std::to_string(gpu));
    return value;
}

LoadedCode code_loaded_for(const Gpu& gpu) {
    LoadedCode code{};
    const std::string own = std::to_string(gpu.capability / 10) + "." + std::to_string(gpu.capability % 10);
    check(loaded_code(code), "loading kernels on " + gpu.name + ", compute capability " + own);
    return code;
}

// Whether kernels may begin early: graphs know that since CUDA 12.3.
bool can_overlap(const LoadedCode& code) {
    constexpr int kSince = 12030;
    int driver = 0;
    check(cudaDriverGetVersion(&driver), "asking for the driver's version");
    return code.capability >= 90 && CUDART_VERSION >= kSince && driver >= kSince;
}

}  // namespace

std::unique_ptr<Session> make_session(int gpu) { return std::make_unique<NativeSession>(gpu); }

NativeSession::NativeSession(int gpu)
    : gpu_(gpu),
      info_(current(gpu)),
      code_(code_loaded_for(info_)),
      device_{bit_op_of(code_.capability), attribute(cudaDevAttrMultiProcessorCount, gpu),
              attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, gpu), code_.has_warpgroups, can_overlap(code_)},
      staging_(attribute(cudaDevAttrIntegrated, gpu) != 0),
      copiers_(std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kCopiers), 0) {}

NativeSession::~NativeSession() {
    cudaSetDevice(gpu_);  // whichever thread ends it
}

void NativeSession::load() {
    use(gpu_);
    const auto offered = static_cast<size_t>(device_.shared_bytes);
    std::vector<uint32_t> words;
    for (const Step& step : network_.steps()) {
        layers_.push_back(prepare(network_, step, device_));
        Layer& layer = layers_.back();
        if (const size_t needed = shared_bytes(layer); needed > offered)
            throw Error("a kernel needs " + std::to_string(needed) + " bytes of shared memory in a block, and " +
                        info_.name + " offers " + std::to_string(offered));
        words.resize(round_up(words.size(), kAlign / sizeof(uint32_t)));
        offsets_.push_back(words.size() * sizeof(uint32_t));
        words.insert(words.end(), layer.packed_weights.begin(), layer.packed_weights.end());
    }
    weights_.reserve(words.size() * sizeof(uint32_t), "weights");
    // in the own stream, which waits for no other: cudaMemcpy may return before everything is there
    check(cudaMemcpyAsync(weights_.data(), words.data(), weights_.size(), cudaMemcpyHostToDevice, stream_.get()),
          "uploading weights");
    stream_.wait("uploading weights");
    if (!staging_.shared()) pinned_ = PinnedPool::make(gpu_, kPinned);
}

std::shared_ptr<uint8_t> NativeSession::host_memory(size_t bytes) { return pinned_ ? pinned_->take(bytes) : nullptr; }

void NativeSession::run(const std::vector<Image>& images) {
    if (images.empty()) return;
    if (layers_.empty()) throw Error("there is no network to run yet");
    use(gpu_);
    const auto multiple = static_cast<size_t>(network_.multiple());
    const int height = static_cast<int>(round_up(static_cast<size_t>(images[0].height), multiple));
    const int width = static_cast<int>(round_up(static_cast<size_t>(images[0].width), multiple));
    const int64_t pixels = int64_t{height} * width;
    if (pixels > kMostPixels || words_of_largest(pixels) > INT32_MAX)
        throw Error("an image of " + std::to_string(height) + " x " + std::to_string(width) + " pixels is too large");
    const auto together = static_cast<size_t>(std::min(kMostPixels / pixels, kMostImages));
    for (std::span<const Image> rest(images); !rest.empty();) {
        const auto some = rest.first(std::min(together, rest.size()));
        rest = rest.subspan(some.size());
        try {
            run_together(some, {static_cast<int>(some.size()), height, width, some[0].logits != nullptr});
        } catch (...) {
            stream_.drain();  // what was begun still reads and writes the memory that the next call fills
            throw;
        }
    }
}

int64_t NativeSession::words_of_largest(int64_t pixels) const {
    int64_t most = 0;
    for (const Tensor& tensor : network_.tensors())
        most = std::max(most, pixels / tensor.stride / tensor.stride * tensor.planes * pixel_words(tensor.channels));
    return most;
}

double NativeSession::seconds(int begin, int end, int repeats, int launches) {
    if (plans_.empty()) throw Error("nothing has run yet that could be timed");
    use(gpu_);
    const ShapePlan& last = plans_.front();
    const Graph graph(stream_, [&] {
        for (int i = 0; i < repeats; ++i)
            for (int step = begin; step < end; ++step) enqueue_step(static_cast<size_t>(step), last.layout, last.shape);
    });
    Event started, ended;
    graph.launch(stream_);  // warms up
    started.record(stream_);
    for (int launch = 0; launch < launches; ++launch) graph.launch(stream_);
    ended.record(stream_);
    stream_.wait("timing steps");
    return ended.since(started) / repeats / launches;
}

double NativeSession::peak() {
    constexpr int kIterations = 1 << 14;
    use(gpu_);
    double operations = 0;
    const auto enqueue_peak = [&] {
        check(cuda::peak(device_, kIterations, operations, stream_.get()), "measuring the peak");
    };
    Event started, ended;
    enqueue_peak();  // warms up
    started.record(stream_);
    enqueue_peak();
    ended.record(stream_);
    stream_.wait("measuring the peak");
    return operations / ended.since(started);
}

std::vector<std::string> NativeSession::kernels() const {
    std::vector<std::string> names;
    for (size_t i = 0; i < layers_.size(); ++i)
        names.push_back(is_fused(i) ? "within the layer before" : kernel_name(layers_[i], code_.capability));
    return names;
}

size_t NativeSession::memory() const {
    return weights_.size() + arena_.size() + staging_.memory() + (pinned_ ? pinned_->size() : 0);
}

void NativeSession::poison(uint8_t value) {
    if (plans_.empty()) return;
    use(gpu_);
    check(cudaMemset(arena_.data(), value, arena_.size()), "poisoning activations");
    check(cudaMemset(staging_.device(), value, staging_.size()), "poisoning results");
    check(cudaDeviceSynchronize(), "poisoning");
    std::fill_n(staging_.host(), staging_.size(), value);
}

void NativeSession::run_together(std::span<const Image> images, const Shape& shape) {
    const auto known =
        std::find_if(plans_.begin(), plans_.end(), [&](const ShapePlan& plan) { return plan.shape == shape; });
    if (known != plans_.end()) {
        plans_.splice(plans_.begin(), plans_, known);
        call(images, known->layout, shape, [&] { known->graph.launch(stream_); });
        return;
    }
    const DeviceLayout layout(network_, shape);
    reserve(layout);
    // as it is first: that warms up, and an error has its step's name
    call(images, layout, shape, [&] { enqueue(layout, shape); });
    plans_.emplace_front(shape, layout, Graph(stream_, [&] { enqueue(layout, shape); }));
    plans_.front().graph.upload(stream_);
    if (plans_.size() > kShapePlans) plans_.pop_back();
}

void NativeSession::reserve(const DeviceLayout& layout) {
    if (layout.arena_bytes <= arena_.size() && layout.staging_bytes <= staging_.size()) return;
    plans_.clear();
    arena_.reserve(layout.arena_bytes, "activations");
    if (!staging_.reserve(layout.staging_bytes) || staging_.shared()) return;
    // what is copied back includes what belongs to no image
    check(cudaMemsetAsync(staging_.device(), 0, staging_.size(), stream_.get()), "clearing results");
}

template <class Begin>
void NativeSession::call(std::span<const Image> images, const DeviceLayout& layout, const Shape& shape, Begin begin) {
    copy_in(images, layout, shape);
    begin();
    fetch(images, layout, shape);
    stream_.wait("running the network");
    copy_out(images, layout, shape);
}

// What is in pinned memory is on its way to the device while the rest is copied there.
void NativeSession::copy_in(std::span<const Image> images, const DeviceLayout& layout, const Shape& shape) {
    const size_t stride = size_t{3} * static_cast<size_t>(shape.height) * static_cast<size_t>(shape.width);
    HostCopies copies;
    auto* params = reinterpret_cast<ImageParams*>(staging_.host());
    for (const Image& image : images) *params++ = {image.height, image.width, image.threshold, 0};
    std::atomic<int> failed = send(0, staging_.host(), images.size() * sizeof(ImageParams));
    const auto send_or_fail = [&](size_t offset, const uint8_t* from, size_t bytes) {
        if (const int code = send(offset, from, bytes); code != cudaSuccess) failed = code;
    };
    size_t offset = layout.pixels;
    for (const Image& image : images) {
        const size_t bytes = 3 * pixels_of(image);
        if (is_pinned(image.pixels, bytes))
            send_or_fail(offset, image.pixels, bytes);
        else
            copies.add(staging_.host() + offset, image.pixels, bytes);
        offset += stride;
    }
    copies.run(copiers_, [&](const uint8_t* begin, size_t bytes) {
        send_or_fail(static_cast<size_t>(begin - staging_.host()), begin, bytes);
    });
    check(failed, "copying images");
}

int NativeSession::send(size_t offset, const uint8_t* from, size_t bytes) const {
    if (staging_.shared()) return cudaSuccess;
    if (const cudaError_t code = cudaSetDevice(gpu_); code != cudaSuccess) return code;
    return cudaMemcpyAsync(staging_.device() + offset, from, bytes, cudaMemcpyHostToDevice, stream_.get());
}

void NativeSession::fetch(std::span<const Image> images, const DeviceLayout& layout, const Shape& shape) const {
    if (staging_.shared()) return;
    const size_t stride = static_cast<size_t>(shape.height) * static_cast<size_t>(shape.width);
    const auto fetch_to = [&](uint8_t* to, size_t offset, size_t bytes) {
        check(cudaMemcpyAsync(to, staging_.device() + offset, bytes, cudaMemcpyDeviceToHost, stream_.get()),
              "copying results");
    };
    size_t offset = layout.masks, staged = layout.logits;
    for (const Image& image : images) {
        if (is_pinned(image.mask, pixels_of(image)))
            fetch_to(image.mask, offset, pixels_of(image));
        else
            staged = layout.masks;
        offset += stride;
    }
    if (staged < layout.staging_bytes) fetch_to(staging_.host() + staged, staged, layout.staging_bytes - staged);
}

void NativeSession::copy_out(std::span<const Image> images, const DeviceLayout& layout, const Shape& shape) {
    const size_t stride = static_cast<size_t>(shape.height) * static_cast<size_t>(shape.width);
    const auto classes = static_cast<size_t>(network_.classes());
    const uint8_t* masks = staging_.host() + layout.masks;
    const auto* logits = reinterpret_cast<const int32_t*>(staging_.host() + layout.logits);
    HostCopies copies;
    for (const Image& image : images) {
        const size_t pixels = pixels_of(image);
        if (!is_pinned(image.mask, pixels)) copies.add(image.mask, masks, pixels);
        if (shape.logits) copies.add(image.logits, logits, pixels * classes * sizeof(int32_t));
        masks += stride;
        logits += stride * classes;
    }
    copies.run(copiers_, [](const uint8_t*, size_t) {});
}

void NativeSession::enqueue(const DeviceLayout& layout, const Shape& shape) const {
    for (size_t step = 0; step < layers_.size(); ++step) enqueue_step(step, layout, shape);
}

void NativeSession::enqueue_step(size_t step, const DeviceLayout& layout, const Shape& shape) const {
    if (is_fused(step)) return;
    const Step& what = network_.steps()[step];
    const auto words_of = [&](int tensor) {
        return reinterpret_cast<uint32_t*>(arena_.data() + layout.tensors[static_cast<size_t>(tensor)]);
    };
    const int stride = what.inputs.empty() ? 1 : network_.tensor(what.inputs[0]).stride;
    Launch launched{};
    launched.layer = &layers_[step];
    launched.packed_weights = reinterpret_cast<const uint32_t*>(weights_.data() + offsets_[step]);
    launched.follows = step > 0;  // the first is behind the copy of the images
    launched.images = shape.images;
    launched.height = shape.height / stride;
    launched.width = shape.width / stride;
    for (size_t i = 0; i < what.inputs.size(); ++i) launched.inputs[i] = words_of(what.inputs[i]);
    launched.output = what.output < 0 ? nullptr : words_of(what.output);
    launched.pooled = is_fused(step + 1) ? words_of(network_.steps()[step + 1].output) : nullptr;
    uint8_t* device = staging_.device();
    launched.batch = {reinterpret_cast<const ImageParams*>(device), device + layout.pixels, device + layout.masks,
                      shape.logits ? reinterpret_cast<int32_t*>(device + layout.logits) : nullptr};
    if (what.conv.residual.tensor >= 0) launched.residual = words_of(what.conv.residual.tensor);
    launched.coarse = reinterpret_cast<int32_t*>(arena_.data() + layout.coarse);
    check(launch(launched, device_, stream_.get()), "launching step " + std::to_string(step));
    if (!what.doublings) return;
    launched.doubles = launched.follows = true;
    check(launch(launched, device_, stream_.get()), "launching step " + std::to_string(step));
}

bool NativeSession::is_fused(size_t step) const {
    const std::vector<Step>& steps = network_.steps();
    if (step == 0 || step >= steps.size() || steps[step].op != Op::kPool) return false;
    const Step& before = steps[step - 1];
    return before.op == Op::kConv && before.conv.up == 1 && before.output == steps[step].inputs[0] &&
           before.channels == steps[step].channels;
}

}  // namespace mbunet::cuda
