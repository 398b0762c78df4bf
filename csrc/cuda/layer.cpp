#include "layer.hpp"

#include "conv_weights.hpp"
#include "session.hpp"

namespace mbunet::cuda {

namespace {

// Weight of an output channel for one of the 32 factors along K (see stem.hpp).
int stem_weight(const Step& step, int channel, int factor) {
    const int word = factor / 4, byte = factor % 4;
    if (channel >= step.channels || (byte == 3 && word >= 3)) return 0;
    const int tap = byte == 3 ? 8 : word, color = byte == 3 ? word : byte;
    return step.weights[static_cast<size_t>((channel * 9 + tap) * 3 + color)];
}

void prepare_stem(Layer& layer, const Step& step) {
    const int words = pixel_words(step.channels);
    for (int word = 0; word < words; ++word)
        for (int block = 0; block < 4; ++block)
            for (int lane = 0; lane < 32; ++lane)
                for (int i = 0; i < 4; ++i) {
                    const int channel = word * 32 + channel_of(block, lane / 4);
                    uint32_t packed = 0;
                    for (int byte = 0; byte < 4; ++byte) {
                        const int weight = stem_weight(step, channel, (lane % 4 + i % 2 * 4) * 4 + byte);
                        packed |= static_cast<uint32_t>((i < 2 ? weight >> 8 : weight) & 0xFF) << (8 * byte);
                    }
                    layer.packed_weights.push_back(packed);
                }
    layer.accumulator_start = layer.packed_weights.size();
    const int levels = step.levels();
    for (int word = 0; word < words; ++word)
        for (int level = 0; level < levels; ++level)
            for (int channel = word * 32; channel < word * 32 + 32; ++channel)
                layer.packed_weights.push_back(static_cast<uint32_t>(
                    channel < step.channels ? -step.thresholds[static_cast<size_t>(channel * levels + level)]
                                            : kNever));
    if (levels == 1) append_start_fragments(layer, words);
}

// What the ones among five bits of an input word add, for every value of the five (see HeadArgs).
void append_lookups(Layer& layer, const int32_t (&weights)[32]) {
    for (int lookup = 0; lookup < kLookups; ++lookup)
        for (int value = 0; value < 1 << kLookupBits; ++value) {
            int32_t sum = 0;
            for (int i = 0; i < kLookupBits && lookup * kLookupBits + i < 32; ++i)
                sum += value >> i & 1 ? weights[lookup * kLookupBits + i] : 0;
            layer.packed_weights.push_back(static_cast<uint32_t>(sum));
        }
}

void prepare_head(Layer& layer, const Step& step) {
    const int channels = step.input_channels[0], words = pixel_words(channels);
    const int32_t* weight = step.weights.data();
    for (int row = 0; row < step.channels * layer.input_planes; ++row, weight += channels)
        for (int word = 0; word < words; ++word) {
            int32_t own[32] = {};
            for (int i = 0; i < 32 && word * 32 + i < channels; ++i) own[i] = weight[word * 32 + i];
            append_lookups(layer, own);
        }
    layer.accumulator_start = layer.packed_weights.size();
    for (int32_t base : step.base) layer.packed_weights.push_back(static_cast<uint32_t>(base));
}

int shared_bytes_of_up_conv(const Layer& layer) {
    const KSchedule schedule(conv_shape(layer));
    return up_conv_bytes(schedule.filled_chunks(), kLeastUpWords, schedule.shared_tile_bytes);
}

// Whether neither Conv nor UpConv computes it.
bool is_general(const Layer& layer, const Step& step, const Device& device) {
    const bool known = layer.kernel == (layer.up == 1 ? 3 : 1);  // 3x3, or transposed 2x2
    const bool fits = layer.up == 1 || shared_bytes_of_up_conv(layer) <= device.shared_bytes;
    return !known || !fits || layer.segments > 1 || layer.input_planes > 1 || layer.planes > 1 ||
           step.conv.residual.tensor >= 0;
}

}  // namespace

void append_start_fragments(Layer& layer, int words) {
    layer.starts = layer.packed_weights.size();
    for (int word = 0; word < words; ++word)
        for (int block = 0; block < 4; ++block)
            for (int i = 0; i < 16; ++i) {  // sum i % 4 of thread i / 4: the upper and the lower row start alike
                const int channel = channel_of(block, i / 4 * 2 + i % 2);
                layer.packed_weights.push_back(
                    layer.packed_weights[layer.accumulator_start + static_cast<size_t>(word * 32 + channel)]);
            }
}

Layer prepare(const Network& network, const Step& step, const Device& device) {
    Layer layer{step.op, device.bit_op, step.channels, step.input_channels};
    if (!step.inputs.empty()) {
        const Tensor& read = network.tensor(step.inputs[0]);
        layer.input_planes = read.planes;
        layer.input_is_signed = read.is_signed;
    }
    if (step.output >= 0) layer.planes = network.tensor(step.output).planes;
    layer.doublings = step.doublings;
    switch (step.op) {
        case Op::kStem: prepare_stem(layer, step); break;
        case Op::kConv:
            if (step.inputs.size() > kMostInputs) throw Error("a convolution on CUDA reads at most two tensors");
            layer.kernel = step.conv.kernel;
            layer.up = step.conv.up;
            layer.segments = step.conv.segments;
            layer.general = is_general(layer, step, device);
            pack_convolution(layer, step, device.has_warpgroups);
            break;
        case Op::kHead: prepare_head(layer, step); break;
        case Op::kPool:
        case Op::kGate: break;
    }
    return layer;
}

size_t shared_bytes(const Layer& layer) {
    if (layer.op != Op::kConv) return 0;
    if (is_up_conv(layer)) return static_cast<size_t>(shared_bytes_of_up_conv(layer));
    const int words = most_output_words(layer.general);
    return static_cast<size_t>(KSchedule(conv_shape(layer)).shared_tile_bytes + stages_bytes(layer, words));
}

std::string kernel_name(const Layer& layer, int compiled) {
    const bool turing = compiled < 80;
    switch (layer.op) {
        case Op::kStem: return turing ? "imma m8n8k16, two bytes to a weight" : "imma m16n8k32, two bytes to a weight";
        case Op::kPool: return layer.planes > 1 ? "highest of four levels" : "or of four words";
        case Op::kGate: return "and of words";
        case Op::kHead: return layer.doublings ? "integer sums, doublings and decision" : "integer sums and decision";
        default: break;
    }
    if (layer.by_warpgroups)
        return layer.masked ? "wgmma m64n128k256 and, columns of two signs" : "wgmma m64n80k256 and, one plane";
    std::string name = turing ? "bmma m8n8k128 " : "bmma m16n8k256 ";
    name += layer.bit_op == BitOp::kXor ? "xor" : "and";
    if (is_up_conv(layer)) return name + ", two planes at once";
    name += layer.masked ? ", two planes" : ", one plane";
    return name + (layer.general ? ", in parts" : "");
}

}  // namespace mbunet::cuda
