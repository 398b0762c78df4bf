#include "native_session.hpp"

#include <algorithm>
#include <cstring>

#include "../rounding.hpp"
#include "check.hpp"

namespace mbunet::cuda {

namespace {

constexpr size_t kBoundShapes = 16;                // batch shapes whose graphs are kept
constexpr int64_t kMostPixels = int64_t{1} << 26;  // of one launch
constexpr int64_t kMostImages = 512;               // of one launch
constexpr size_t kAlign = 256;                     // bytes, of a layer's image

void use(int gpu) { check(cudaSetDevice(gpu), "choosing GPU " + std::to_string(gpu)); }

// The GPU `index`, made the current one.
Gpu current(int index) {
    const std::vector<Gpu> found = gpus();
    if (index < 0 || static_cast<size_t>(index) >= found.size())
        throw Error("there is no GPU " + std::to_string(index) + "; this machine has " + std::to_string(found.size()));
    use(index);
    return found[static_cast<size_t>(index)];
}

int attribute(cudaDeviceAttr which, int gpu) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, gpu), "looking at GPU " + std::to_string(gpu));
    return value;
}

int capability_compiled_for(const Gpu& gpu) {
    int compiled = 0;
    const std::string own = std::to_string(gpu.capability / 10) + "." + std::to_string(gpu.capability % 10);
    check(loaded_capability(compiled), "loading kernels on " + gpu.name + ", compute capability " + own);
    return compiled;
}

}  // namespace

std::unique_ptr<Session> make_session(int gpu) { return std::make_unique<NativeSession>(gpu); }

NativeSession::NativeSession(int gpu)
    : gpu_(gpu),
      info_(current(gpu)),
      compiled_(capability_compiled_for(info_)),
      device_{form_of(compiled_), attribute(cudaDevAttrMultiProcessorCount, gpu),
              attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, gpu)},
      exchange_(attribute(cudaDevAttrIntegrated, gpu) != 0) {}

NativeSession::~NativeSession() {
    cudaSetDevice(gpu_);  // whichever thread ends it
}

void NativeSession::load() {
    use(gpu_);
    const auto offered = static_cast<size_t>(device_.shared_bytes);
    std::vector<uint32_t> words;
    for (const Step& step : network_.steps()) {
        layers_.push_back(prepare(step, device_.form));
        Layer& layer = layers_.back();
        if (const size_t needed = shared_bytes(layer); needed > offered)
            throw Error("a kernel needs " + std::to_string(needed) + " bytes of shared memory in a block, and " +
                        info_.name + " offers " + std::to_string(offered));
        words.resize(round_up(words.size(), kAlign / sizeof(uint32_t)));
        offsets_.push_back(words.size() * sizeof(uint32_t));
        words.insert(words.end(), layer.image.begin(), layer.image.end());
    }
    weights_.reserve(words.size() * sizeof(uint32_t), "weights");
    // in the own stream, which waits for no other: cudaMemcpy may return before everything is there
    check(cudaMemcpyAsync(weights_.data(), words.data(), weights_.size(), cudaMemcpyHostToDevice, stream_.get()),
          "uploading weights");
    stream_.wait("uploading weights");
}

void NativeSession::run(const std::vector<Image>& images) {
    if (images.empty()) return;
    if (layers_.empty()) throw Error("there is no network to run yet");
    use(gpu_);
    const auto fit = static_cast<size_t>(network_.multiple());
    const int height = static_cast<int>(round_up(static_cast<size_t>(images[0].height), fit));
    const int width = static_cast<int>(round_up(static_cast<size_t>(images[0].width), fit));
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
    for (const Slot& slot : network_.slots())
        most = std::max(most, pixels / slot.stride / slot.stride * pixel_words(slot.channels));
    return most;
}

double NativeSession::seconds(int begin, int end, int repeats) {
    if (bound_.empty()) throw Error("nothing has run yet that could be timed");
    use(gpu_);
    const Bound& last = bound_.front();
    const Graph graph(stream_, [&] {
        for (int i = 0; i < repeats; ++i)
            for (int step = begin; step < end; ++step) enqueue_step(static_cast<size_t>(step), last.places, last.shape);
    });
    Event started, ended;
    graph.launch(stream_);  // warms up
    started.record(stream_);
    graph.launch(stream_);
    ended.record(stream_);
    stream_.wait("timing steps");
    return ended.since(started) / repeats;
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
        names.push_back(is_fused(i) ? "within the layer before" : kernel_name(layers_[i], compiled_));
    return names;
}

size_t NativeSession::memory() const { return weights_.size() + arena_.size() + exchange_.memory(); }

void NativeSession::poison(uint8_t value) {
    if (bound_.empty()) return;
    use(gpu_);
    check(cudaMemset(arena_.data(), value, arena_.size()), "poisoning activations");
    check(cudaMemset(exchange_.device(), value, exchange_.size()), "poisoning results");
    check(cudaDeviceSynchronize(), "poisoning");
    std::fill_n(exchange_.host(), exchange_.size(), value);
}

void NativeSession::run_together(std::span<const Image> images, const Shape& shape) {
    const auto known = std::find_if(bound_.begin(), bound_.end(), [&](const Bound& b) { return b.shape == shape; });
    if (known != bound_.end()) {
        bound_.splice(bound_.begin(), bound_, known);
        stage(images, known->places, shape);
        known->graph.launch(stream_);
        stream_.wait("running the network");
        unstage(images, known->places, shape);
        return;
    }
    const Places places(network_, shape);
    reserve(places);
    stage(images, places, shape);
    enqueue(places, shape);  // as it is first: that warms up, and an error has its step's name
    stream_.wait("running the network");
    unstage(images, places, shape);
    bound_.emplace_front(shape, places, Graph(stream_, [&] { enqueue(places, shape); }));
    bound_.front().graph.upload(stream_);
    if (bound_.size() > kBoundShapes) bound_.pop_back();
}

void NativeSession::reserve(const Places& places) {
    if (places.arena_bytes <= arena_.size() && places.exchange_bytes <= exchange_.size()) return;
    bound_.clear();
    arena_.reserve(places.arena_bytes, "activations");
    if (!exchange_.reserve(places.exchange_bytes) || exchange_.shared()) return;
    // what is copied back includes what belongs to no image
    check(cudaMemsetAsync(exchange_.device(), 0, exchange_.size(), stream_.get()), "clearing results");
}

void NativeSession::stage(std::span<const Image> images, const Places& places, const Shape& shape) {
    const size_t stride = size_t{3} * static_cast<size_t>(shape.height) * static_cast<size_t>(shape.width);
    auto* frames = reinterpret_cast<Frame*>(exchange_.host());
    uint8_t* pixels = exchange_.host() + places.pixels;
    for (const Image& image : images) {
        *frames++ = {image.height, image.width, image.threshold, 0};
        std::memcpy(pixels, image.pixels,
                    size_t{3} * static_cast<size_t>(image.height) * static_cast<size_t>(image.width));
        pixels += stride;
    }
}

void NativeSession::unstage(std::span<const Image> images, const Places& places, const Shape& shape) const {
    const size_t stride = static_cast<size_t>(shape.height) * static_cast<size_t>(shape.width);
    const auto classes = static_cast<size_t>(network_.classes());
    const uint8_t* masks = exchange_.host() + places.masks;
    const auto* logits = reinterpret_cast<const int32_t*>(exchange_.host() + places.logits);
    for (const Image& image : images) {
        const size_t pixels = static_cast<size_t>(image.height) * static_cast<size_t>(image.width);
        std::copy_n(masks, pixels, image.mask);
        if (shape.logits) std::copy_n(logits, pixels * classes, image.logits);
        masks += stride;
        logits += stride * classes;
    }
}

void NativeSession::enqueue(const Places& places, const Shape& shape) const {
    uint8_t *host = exchange_.host(), *device = exchange_.device();
    const auto copy = [&](uint8_t* to, const uint8_t* from, size_t begin, size_t end, cudaMemcpyKind kind) {
        if (!exchange_.shared())
            check(cudaMemcpyAsync(to + begin, from + begin, end - begin, kind, stream_.get()), "copying");
    };
    copy(device, host, 0, places.masks, cudaMemcpyHostToDevice);
    for (size_t step = 0; step < layers_.size(); ++step) enqueue_step(step, places, shape);
    copy(host, device, places.masks, places.exchange_bytes, cudaMemcpyDeviceToHost);
}

void NativeSession::enqueue_step(size_t step, const Places& places, const Shape& shape) const {
    if (is_fused(step)) return;
    const Step& what = network_.steps()[step];
    const auto tensor = [&](int slot) {
        return reinterpret_cast<uint32_t*>(arena_.data() + places.slots[static_cast<size_t>(slot)]);
    };
    const int stride = what.inputs.empty() ? 1 : network_.slot(what.inputs[0]).stride;
    Launch launched{};
    launched.layer = &layers_[step];
    launched.image = reinterpret_cast<const uint32_t*>(weights_.data() + offsets_[step]);
    launched.images = shape.images;
    launched.height = shape.height / stride;
    launched.width = shape.width / stride;
    for (size_t i = 0; i < what.inputs.size(); ++i) launched.inputs[i] = tensor(what.inputs[i]);
    launched.output = what.output < 0 ? nullptr : tensor(what.output);
    launched.pooled = is_fused(step + 1) ? tensor(network_.steps()[step + 1].output) : nullptr;
    uint8_t* device = exchange_.device();
    launched.batch = {reinterpret_cast<const Frame*>(device), device + places.pixels, device + places.masks,
                      shape.logits ? reinterpret_cast<int32_t*>(device + places.logits) : nullptr};
    check(launch(launched, device_, stream_.get()), "launching step " + std::to_string(step));
}

bool NativeSession::is_fused(size_t step) const {
    const std::vector<Step>& steps = network_.steps();
    if (step == 0 || step >= steps.size() || steps[step].op != Op::kPool) return false;
    const Step& before = steps[step - 1];
    return before.op == Op::kConv && before.output == steps[step].inputs[0] && before.channels == steps[step].channels;
}

}  // namespace mbunet::cuda
