// The session on a GPU, run on the fake CUDA runtime and the emulated kernels.
//
//   cuda_session replay   input: cases (protocol.hpp), the kernel being the architecture as in "sm_80", and one thread
//   meaning
//                         that GPU and host share their memory; output: logits
//   cuda_session kernels  the same; output: what runs each step of each case
//   cuda_session many     input: no cases; fails unless a batch of more images than one launch takes is right
//   cuda_session copies   input: no cases; fails unless what several threads copy is there when they say so, and once
//   cuda_session memory   input: no cases; fails unless host memory is handed out, found and taken again as it should
//   cuda_session errors   the same for one case; output: a line for every fault, then the logits of a sound run
#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

#include "../../csrc/cuda/host_copies.hpp"
#include "../../csrc/cuda/session.hpp"
#include "fake_cudart.hpp"
#include "protocol.hpp"

namespace cuda = mbunet::cuda;

namespace {

void require(bool holds, const char* what) {
    if (!holds) throw std::logic_error(what);
}

// Every image by itself, and without logits: the masks must be those of the batch.
void check_single_calls(cuda::Session& session, const protocol::Images& batch) {
    for (const mbunet::Image& image : batch.images) {
        std::vector<uint8_t> mask(static_cast<size_t>(image.height) * static_cast<size_t>(image.width));
        session.run({{image.pixels, image.height, image.width, 0, mask.data(), nullptr}});
        require(std::equal(mask.begin(), mask.end(), image.mask), "a single call gives another mask than the batch");
    }
}

size_t mask_bytes(const mbunet::Image& image) {
    return static_cast<size_t>(image.height) * static_cast<size_t>(image.width);
}

// Without logits, pixels and masks in the session's own memory, but those of every `ordinary`th image.
void check_own_memory(cuda::Session& session, const protocol::Images& batch, size_t ordinary) {
    std::vector<std::shared_ptr<uint8_t>> kept;
    std::vector<mbunet::Image> images = batch.images;
    std::vector<std::vector<uint8_t>> masks;
    fake_cudart::copied.clear();
    const auto is_own = [&](size_t i) { return i % ordinary != ordinary - 1; };
    const auto take = [&](size_t bytes) { return kept.emplace_back(session.host_memory(bytes)).get(); };
    for (size_t i = 0; i < images.size(); ++i) {
        mbunet::Image& image = images[i];
        const size_t bytes = mask_bytes(image);
        image.logits = nullptr;
        image.mask = is_own(i) ? take(bytes) : masks.emplace_back(bytes).data();
        std::fill_n(image.mask, bytes, uint8_t{0xEE});
        if (!is_own(i)) continue;
        uint8_t* pixels = take(3 * bytes);
        std::copy_n(image.pixels, 3 * bytes, pixels);
        image.pixels = pixels;
    }
    session.run(images);
    for (size_t i = 0; i < images.size(); ++i) {
        const mbunet::Image& image = images[i];
        const size_t bytes = mask_bytes(image);
        require(std::equal(image.mask, image.mask + bytes, batch.images[i].mask), "own memory gives another mask");
        const bool own = is_own(i);
        const auto& copied = fake_cudart::copied;
        require(copied.contains({image.pixels, 3 * bytes}) == own, "pixels are not copied from where they lie");
        require(copied.contains({image.mask, bytes}) == own, "a mask is not copied to where it is wanted");
    }
    const bool all_own = ordinary > images.size();
    require(!all_own || fake_cudart::copied.size() == 1 + 2 * images.size(), "more is copied than asked for");
}

bool replay_case() {
    auto session = cuda::make_session(0);
    if (!protocol::read_network(session->network())) return false;
    session->load();
    protocol::Images batch = protocol::read_images(session->network().classes());
    session->run(batch.images);
    const auto first = batch.logits;
    require(protocol::masks_are_decisions(batch, session->network().classes()), "a mask is not its logits' decision");
    check_single_calls(*session, batch);
    const int graphs = fake_cudart::graphs_launched;
    const size_t memory = session->memory();
    session->poison(0xFF);
    for (auto& values : batch.logits) std::fill(values.begin(), values.end(), -1);
    for (auto& values : batch.masks) std::fill(values.begin(), values.end(), uint8_t{0xEE});
    std::thread([&] { session->run(batch.images); }).join();  // which has chosen no device yet
    require(fake_cudart::graphs_launched == graphs + 1, "a known shape is not run by one graph");
    require(batch.logits == first, "the recorded graph gives other logits");
    require(protocol::masks_are_decisions(batch, session->network().classes()), "the graph gives another mask");
    require(session->memory() == memory, "memory grows with a known shape");
    if (fake_cudart::integrated)
        require(!session->host_memory(1), "memory is handed out that nobody needs");
    else
        for (const size_t ordinary : {batch.images.size() + 1, size_t{2}}) check_own_memory(*session, batch, ordinary);
    const int runs = fake_cudart::kernels_run;
    require(session->seconds(0, 1, 2, 3) > 0 && session->peak() > 0, "nothing can be timed");
    require(fake_cudart::kernels_run == runs + 2 * (1 + 3), "what is timed is not what was asked for");
    std::thread([&] { session.reset(); }).join();
    protocol::write_logits(batch);
    return true;
}

// A network that says of a pixel whether its colors' sum is at least 300.
void load_smallest(cuda::Session& session) {
    mbunet::Network& network = session.network();
    const std::vector<int16_t> colors(27, 1), ones(1, 2);
    const std::vector<int32_t> theta(1, 300), bias(1, 0);
    network.add_stem(network.add_tensor({1, 1, 1, true, 0, 1}), colors.data(), theta.data());
    network.add_head(0, 1, ones.data(), bias.data(), 0);
    session.load();
}

// More images than one launch takes: each gets the mask that it gets alone.
void run_many() {
    constexpr int kImages = 600;
    const auto session = cuda::make_session(0);
    load_smallest(*session);
    std::vector<uint8_t> pixels(3 * kImages), masks(kImages, 7);
    std::vector<mbunet::Image> images;
    for (size_t i = 0; i < kImages; ++i) {
        pixels[3 * i] = static_cast<uint8_t>(i);
        pixels[3 * i + 1] = 200;
        images.push_back({&pixels[3 * i], 1, 1, 0, &masks[i], nullptr});
    }
    session->run(images);
    for (size_t i = 0; i < kImages; ++i) require(masks[i] == (i % 256 >= 100), "an image of many has another's mask");
}

// One byte, as many as a thread copies at a time, one more, and three times as many.
void run_copies() {
    const std::vector<size_t> sizes{1, size_t{1} << 20, (size_t{1} << 20) + 1, size_t{3} << 20};
    std::vector<std::vector<uint8_t>> from, to;
    cuda::HostCopies copies;
    size_t bytes = 0;
    for (size_t i = 0; i < sizes.size(); ++i, bytes += sizes[i - 1]) {
        from.emplace_back(sizes[i]);
        for (size_t at = 0; at < sizes[i]; ++at) from[i][at] = static_cast<uint8_t>(at * 31 + i);
        to.emplace_back(sizes[i]);
    }
    for (size_t i = 0; i < sizes.size(); ++i) copies.add(to[i].data(), from[i].data(), sizes[i]);
    mbunet::ThreadPool threads(4, 0);
    for (int turn = 0; turn < 2; ++turn) {
        std::atomic<size_t> copied = 0;
        std::atomic<bool> there = true;
        for (auto& bytes_to : to) std::fill(bytes_to.begin(), bytes_to.end(), uint8_t{0});
        copies.run(threads, [&](const uint8_t* begin, size_t piece) {
            for (size_t i = 0; i < to.size(); ++i)
                if (begin >= to[i].data() && begin < to[i].data() + to[i].size())
                    if (!std::equal(begin, begin + piece, from[i].data() + (begin - to[i].data()))) there = false;
            copied += piece;
        });
        require(there, "a piece that is said to be there is not");
        require(copied == bytes && to == from, "not every byte is copied once");
    }
}

// Several threads take, fill and let go of many parts: each finds its own bytes.
void take_beside_each_other(cuda::Session& session) {
    constexpr size_t kThreads = 4, kTurns = 100000, kHeld = 8;
    std::atomic<bool> own = true;
    std::vector<std::thread> threads;
    for (size_t t = 0; t < kThreads; ++t)
        threads.emplace_back([&, t] {
            std::vector<std::shared_ptr<uint8_t>> held(kHeld);
            for (size_t turn = 0; turn < kTurns; ++turn) {
                auto& part = held[turn % kHeld];
                if (part && *part != t) own = false;
                part = session.host_memory(turn * 7919 % 5000 + 1);
                *part = static_cast<uint8_t>(t);
            }
        });
    for (std::thread& thread : threads) thread.join();
    require(own, "threads write into each other's parts");
}

// What is handed out overlaps nothing else, is taken again, whole, and stays as long as someone has it.
void run_memory() {
    auto session = cuda::make_session(0);
    load_smallest(*session);
    size_t most = size_t{1} << 20;
    while (session->host_memory(2 * most)) most *= 2;
    std::vector<std::shared_ptr<uint8_t>> parts;
    for (size_t bytes = 1; auto part = session->host_memory(bytes); bytes = bytes * 3 % 1000003 + 1) {
        std::fill_n(part.get(), bytes, static_cast<uint8_t>(parts.size()));
        for (const auto& other : parts) require(other.get() != part.get(), "a part is handed out twice");
        parts.push_back(std::move(part));
    }
    for (size_t i = 0; i < parts.size(); ++i)
        require(*parts[i] == static_cast<uint8_t>(i), "a part lies within another");
    const uint8_t* third = parts[2].get();
    parts[2].reset();
    require(session->host_memory(1).get() == third, "the first gap is not taken");
    for (size_t i = 0; i < parts.size(); i += 2) parts[i].reset();
    std::thread([&] { parts.clear(); }).join();
    require(session->host_memory(most) != nullptr, "gaps that touch are not joined");
    take_beside_each_other(*session);
    require(session->host_memory(most) != nullptr, "a part is lost");

    auto kept = session->host_memory(1);
    session.reset();
    require(fake_cudart::allocated() > 0, "memory goes that someone has");
    constexpr int kOther = 5;
    int device = kOther;
    std::thread([&] {
        cudaSetDevice(device);
        kept.reset();
        cudaGetDevice(&device);
    }).join();
    require(fake_cudart::allocated() == 0, "memory stays that nobody has");
    require(device == kOther, "who lets go of memory is at another device then");

    fake_cudart::pinning_fails = true;
    session = cuda::make_session(0);
    load_smallest(*session);
    require(!session->host_memory(1), "memory is handed out that could not be pinned");
    std::vector<uint8_t> pixels(3, 200), mask(1, 7);
    session->run({{pixels.data(), 1, 1, 0, mask.data(), nullptr}});
    require(mask[0] == 1, "without memory to hand out nothing runs");
    fake_cudart::pinning_fails = false;
}

bool print_kernels() {
    const auto session = cuda::make_session(0);
    if (!protocol::read_network(session->network())) return false;
    session->load();
    protocol::read_images(session->network().classes());
    for (const std::string& kernel : session->kernels()) std::puts(kernel.c_str());
    return true;
}

// Prints what `act` says when `setting` is `value` for its time.
template <class Value, class Act>
void with(const char* name, Value& setting, Value value, Act act) {
    const Value before = std::exchange(setting, value);
    try {
        act();
        std::printf("%s: nothing\n", name);
    } catch (const std::exception& error) {
        std::printf("%s: %s\n", name, error.what());
    }
    setting = before;
}

std::unique_ptr<cuda::Session> loaded(const mbunet::Network& network) {
    auto session = cuda::make_session(0);
    session->network() = network;
    session->load();
    return session;
}

void errors() {
    mbunet::Network network;
    protocol::read_network(network);
    protocol::Images batch = protocol::read_images(network.classes());
    const auto load = [&] { loaded(network); };
    with("no driver", fake_cudart::driver, 0, load);
    with("old driver", fake_cudart::driver, 12020, load);
    with("no GPU", fake_cudart::gpus, 0, load);
    with("other architecture", fake_cudart::loading_fails_with, 209, load);
    with("little shared memory", fake_cudart::shared_per_block, size_t{1000}, load);
    with("no memory for weights", fake_cudart::capacity, size_t{1000}, load);

    const auto session = loaded(network);
    const auto run = [&] { session->run(batch.images); };
    with("no memory for activations", fake_cudart::capacity, fake_cudart::device_allocated() + 100, run);
    with("a launch fails", fake_cudart::launches_until_failure, 3, run);
    require(!fake_cudart::waiting(), "a run that failed is still under way");
    const int steps = static_cast<int>(network.steps().size());
    with("a launch fails in recording", fake_cudart::launches_until_failure, steps - 4 + 2,
         run);               // four pools are fused
    for (int copy : {0, 2})  // of the images' parameters, and of the second piece that is there, on whichever thread
        with("a copy fails", fake_cudart::copies_until_failure, copy, run);
    const int uploads = 1 + static_cast<int>(batch.images.size());
    std::vector<mbunet::Image> own = batch.images;
    const auto mask = session->host_memory(mask_bytes(own[0]));
    own[0].mask = mask.get();
    for (const auto& images : {batch.images, own}) {  // of staged results, and of a mask that nothing else copies
        with("a copy back fails", fake_cudart::copies_until_failure, uploads, [&] { session->run(images); });
        require(!fake_cudart::waiting(), "a run that failed is still under way");
    }
    with("afterwards", fake_cudart::launches_until_failure, -1, run);
    const auto run_large = [&](cuda::Session& some, int height) {
        some.run({{nullptr, height, 8192, 0, nullptr, {}}});
    };
    with("too many pixels", fake_cudart::gpus, 1, [&] { run_large(*session, 8193); });
    mbunet::Network wide = network;
    wide.add_tensor({1024, 1, 1, true, 0, 1});
    with("too large a tensor", fake_cudart::gpus, 1, [&] { run_large(*loaded(wide), 8192); });

    fake_cudart::integrated = true;
    const auto mapped = loaded(network);
    with("no mapping", fake_cudart::mapping_fails, true, [&] { mapped->run(batch.images); });
    with("a mapping afterwards", fake_cudart::mapping_fails, false, [&] { mapped->run(batch.images); });
    protocol::write_logits(batch);
}

}  // namespace

int main(int, char** arguments) {
    try {
        const protocol::Header header = protocol::read_header();
        fake_cudart::capability = protocol::capability(header);
        fake_cudart::has_warpgroups = protocol::has_warpgroups(header);
        fake_cudart::integrated = header.threads == 1;
        if (arguments[1] == std::string("errors")) {
            errors();
        } else if (arguments[1] == std::string("many")) {
            run_many();
        } else if (arguments[1] == std::string("copies")) {
            run_copies();
        } else if (arguments[1] == std::string("memory")) {
            run_memory();
        } else if (arguments[1] == std::string("kernels")) {
            while (print_kernels()) {
            }
        } else {
            while (replay_case()) {
            }
        }
        require(fake_cudart::allocated() == 0, "a session leaves memory behind");
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
