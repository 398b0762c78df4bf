// Replays cases on a session outside Python: reads networks and images from standard input, writes logits to standard
// output. For machines that can run the kernels but not this repository's Python, such as an emulated one.
//
// Input, little-endian: kernel name length and name, threads, then cases until the end. A case: slots (count, then
// channels and stride of each), steps (count, then each as in read_step), images (count, then height, width, pixels).
// int32 unless an array has another type.
#include <cstdio>
#include <string>
#include <vector>

#include "../../csrc/session.hpp"

namespace {

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

int take_int() { return take(1)[0]; }

// Operation, output slot, channels, inputs (count, slots, channels of each), weights, offsets.
void read_step(mbunet::Network& network) {
    const auto op = static_cast<mbunet::Op>(take_int());
    const int output = take_int(), channels = take_int(), count = take_int();
    const std::vector<int> inputs = take(static_cast<size_t>(count)), input_channels = take(static_cast<size_t>(count));
    size_t total = 0;
    for (int n : input_channels) total += static_cast<size_t>(n);
    const size_t outputs = static_cast<size_t>(channels);
    switch (op) {
        case mbunet::Op::kPixels: {
            const auto weights = take<int16_t>(outputs * 27);
            network.add_pixels(output, channels, weights.data(), take(outputs).data());
            break;
        }
        case mbunet::Op::kPool: network.add_pool(inputs[0], output, channels); break;
        case mbunet::Op::kHead: {
            const auto weights = take<int16_t>(outputs * total);
            network.add_head(inputs[0], input_channels[0], channels, weights.data(), take(outputs).data());
            break;
        }
        default: {
            const auto signs = take<int8_t>(outputs * total * (op == mbunet::Op::kConv ? 9 : 4));
            network.add_convolution(op, inputs, input_channels, output, channels, signs.data(), take(outputs).data());
        }
    }
}

bool replay_case(const std::string& kernel, int threads) {
    std::vector<int32_t> slots;
    if (!read(slots, 1)) return false;
    mbunet::Session session(mbunet::kernels_named(kernel), threads);
    mbunet::Network& network = session.network();
    for (int i = 0; i < slots[0]; ++i) {
        const int channels = take_int();
        network.add_slot(channels, take_int());
    }
    for (int steps = take_int(); steps > 0; --steps) read_step(network);
    std::vector<mbunet::Image> images;
    std::vector<std::vector<uint8_t>> pixels, masks;
    std::vector<std::vector<int32_t>> logits;
    const int count = take_int();
    for (int i = 0; i < count; ++i) {
        const int height = take_int(), width = take_int();
        const size_t size = static_cast<size_t>(height) * static_cast<size_t>(width);
        pixels.push_back(take<uint8_t>(size * 3));
        masks.emplace_back(size);
        logits.emplace_back(size * static_cast<size_t>(network.classes()));
        images.push_back({pixels.back().data(), height, width, 0, masks.back().data(), logits.back().data()});
    }
    session.run(images);
    session.poison(0xFF);
    for (auto& values : logits) std::fill(values.begin(), values.end(), -1);
    session.run(images);
    for (const auto& values : logits) std::fwrite(values.data(), sizeof(int32_t), values.size(), stdout);
    return true;
}

}  // namespace

int main() {
    const auto name = take<char>(static_cast<size_t>(take_int()));
    const std::string kernel(name.begin(), name.end());
    const int threads = take_int();
    while (replay_case(kernel, threads)) {
    }
    return 0;
}
