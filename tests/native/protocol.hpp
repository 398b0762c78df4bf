// What a replaying program reads from standard input: networks and images (see replay.py).
//
// Input, little-endian: kernel name length and name, threads, then cases until the end. A case: tensors (count, then
// the fields of each), steps (count, then each as in read_step), images (count, then height, width, pixels).
// int32 unless an array has another type.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "../../csrc/image.hpp"
#include "../../csrc/network.hpp"

namespace protocol {

template <class T>
bool read(std::vector<T>& values, size_t count) {
    values.resize(count);
    return std::fread(values.data(), sizeof(T), count, stdin) == count;
}

template <class T = int32_t>
std::vector<T> take(size_t count) {
    std::vector<T> values;
    if (!read(values, count)) std::exit(3);  // the input ends where it must not
    return values;
}

inline int take_int() { return take(1)[0]; }

struct Header {
    std::string kernel;
    int threads;
};

inline Header read_header() {
    const auto name = take<char>(static_cast<size_t>(take_int()));
    return {{name.begin(), name.end()}, take_int()};
}

// 10 * major + minor of the architecture that the kernel's name is: 80 of "sm_80".
// "sm_90a" has products of warpgroups.
inline bool has_warpgroups(const Header& header) { return header.kernel.back() == 'a'; }

inline int capability(const Header& header) { return std::stoi(header.kernel.substr(3)); }

// Operation, output tensor, inputs (count and each), then what the operation has, in the order of Network's functions.
inline void read_step(mbunet::Network& network) {
    const auto op = static_cast<mbunet::Op>(take_int());
    const int output = take_int();
    const std::vector<int> inputs = take(static_cast<size_t>(take_int()));
    const auto channels = [&](int tensor) { return static_cast<size_t>(network.tensor(tensor).channels); };
    const auto thresholds = [&] { return take(channels(output) * ((size_t{1} << network.tensor(output).planes) - 1)); };
    switch (op) {
        case mbunet::Op::kStem: {
            const auto weights = take<int16_t>(channels(output) * 27);
            network.add_stem(output, weights.data(), thresholds().data());
            break;
        }
        case mbunet::Op::kConv: {
            mbunet::Convolution conv{take_int(), take_int(), take_int(), {}, {}, {}};
            size_t weights = channels(output) * static_cast<size_t>(conv.segments);
            conv.exponents = take<uint8_t>(weights);
            size_t total = 0;
            for (int input : inputs) total += channels(input);
            weights *= static_cast<size_t>(conv.kernel * conv.up * conv.kernel * conv.up) * total;
            conv.weights = take<int8_t>(weights);
            conv.residual = {take_int(), take_int(), {}};
            if (conv.residual.tensor >= 0) conv.residual.factors = take<int8_t>(channels(output));
            network.add_convolution(inputs, output, std::move(conv), thresholds().data());
            break;
        }
        case mbunet::Op::kPool: network.add_pool(inputs[0], output); break;
        case mbunet::Op::kGate: network.add_gate(inputs[0], inputs[1], output); break;
        case mbunet::Op::kHead: {
            const int classes = take_int(), doublings = take_int();
            const auto weights = take<int16_t>(static_cast<size_t>(classes) * channels(inputs[0]));
            network.add_head(inputs[0], classes, weights.data(), take(static_cast<size_t>(classes)).data(), doublings);
        }
    }
}

// Returns false at the end of the input.
inline bool read_network(mbunet::Network& network) {
    std::vector<int32_t> tensors;
    if (!read(tensors, 1)) return false;
    for (int i = 0; i < tensors[0]; ++i) {
        const std::vector<int> t = take(6);
        network.add_tensor({t[0], t[1], t[2], t[3] != 0, t[4], t[5]});
    }
    for (int steps = take_int(); steps > 0; --steps) read_step(network);
    return true;
}

// A batch with the memory that it points to.
struct Images {
    std::vector<std::vector<uint8_t>> pixels, masks;
    std::vector<std::vector<int32_t>> logits;
    std::vector<mbunet::Image> images;
};

inline Images read_images(int classes) {
    Images all;
    for (int count = take_int(); count > 0; --count) {
        const int height = take_int(), width = take_int();
        const size_t size = static_cast<size_t>(height) * static_cast<size_t>(width);
        all.pixels.push_back(take<uint8_t>(size * 3));
        all.masks.emplace_back(size);
        all.logits.emplace_back(size * static_cast<size_t>(classes));
        all.images.push_back(
            {all.pixels.back().data(), height, width, 0, all.masks.back().data(), all.logits.back().data()});
    }
    return all;
}

// Whether every mask is what its logits decide.
inline bool masks_are_decisions(const Images& all, int classes) {
    for (const mbunet::Image& image : all.images) {
        const int32_t* logits = image.logits;
        for (int p = 0; p < image.height * image.width; ++p, logits += classes) {
            const auto decided =
                classes == 1 ? *logits >= image.threshold : std::max_element(logits, logits + classes) - logits;
            if (image.mask[p] != decided) return false;
        }
    }
    return true;
}

inline void write_logits(const Images& all) {
    for (const auto& values : all.logits) std::fwrite(values.data(), sizeof(int32_t), values.size(), stdout);
}

}  // namespace protocol
