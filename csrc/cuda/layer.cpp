#include "layer.hpp"

#include <algorithm>

#include "session.hpp"

namespace mbunet::cuda {

namespace {

constexpr int32_t kNever = INT32_MIN / 2;  // the start of a channel that must not fire

// Units of one pixel of one input, `planes` or one, for the tap at (row, column) of the kernel and those to its right.
void add_chunks(KSchedule& schedule, const SharedTile& shared_tile, int input, int first_channel, int channels, int row,
                int column) {
    const int words = pixel_words(channels), kernel_size = shared_tile.halo ? 3 : 1;
    for (int slab = 0; slab < slabs_of(words); ++slab) {
        KChunk chunk;
        chunk.offset = schedule.offsets[static_cast<size_t>(input)] +
                       (slab * schedule.pitches[static_cast<size_t>(input)] + row * shared_tile.width + column) * 16;
        for (int w = 0; w < 4; ++w) {
            const int tap_column = column + w / words, channel = slab * 128 + w % words * 32;
            if (tap_column < kernel_size && channel < channels)
                chunk.words[static_cast<size_t>(w)] = {row * kernel_size + tap_column, first_channel + channel,
                                                       first_channel + channels};
        }
        schedule.chunks.push_back(chunk);
    }
}

int total(const std::vector<int>& channels) {
    int sum = 0;
    for (int n : channels) sum += n;
    return sum;
}

// ceil(n / 2) for either sign
int half_up(int n) { return (n >> 1) + (n & 1); }

// A bit convolution's weights as its products see them: columns are output words of 32 channels, of every tap in turn
// if it upsamples, where only that tap counts.
class Columns {
  public:
    explicit Columns(const Step& step)
        : step_(step),
          inputs_(total(step.input_channels)),
          words_(pixel_words(step.channels)),
          upsamples_(step.conv.up > 1) {}

    int count() const { return upsamples_ ? 4 * words_ : words_; }
    int channel(int column, int bit) const { return column % words_ * 32 + bit; }

    // Weights of one output for the tap `tap` of the schedule; null for a padding channel.
    const int8_t* weights(int column, int bit, int tap) const {
        const int output = channel(column, bit);
        if (output >= step_.channels) return nullptr;
        const int kernels = upsamples_ ? 4 : 9;
        return &step_.conv.weights[static_cast<size_t>(output * kernels + (upsamples_ ? column / words_ : tap)) *
                                   static_cast<size_t>(inputs_)];
    }
    // Weights that count for one output of a column, and the inputs of one tap.
    int taps() const { return upsamples_ ? 1 : 9; }
    int inputs() const { return inputs_; }

  private:
    const Step& step_;
    int inputs_, words_;
    bool upsamples_;
};

// One bit per weight that has the sign `wanted` (1 or -1).
uint32_t sign_bits(const Columns& columns, int column, int bit, const KChunk::Word& word, int wanted) {
    const int8_t* weights = word.tap < 0 ? nullptr : columns.weights(column, bit, word.tap);
    uint32_t bits = 0;
    if (weights)
        for (int i = 0; i < 32 && word.channel + i < word.end; ++i)
            bits |= static_cast<uint32_t>(weights[word.channel + i] == wanted) << i;
    return bits;
}

// Word of weights that a product by this operation takes: XOR counts a ^ neg and a ^ ~pos, AND counts a & pos and ~a &
// neg.
uint32_t weight_word(BitOp bit_op, int plane, const Columns& columns, int column, int bit, const KChunk::Word& word) {
    const bool negative = (plane == 0) == (bit_op == BitOp::kXor);
    const uint32_t bits = sign_bits(columns, column, bit, word, negative ? -1 : 1);
    return bit_op == BitOp::kXor && plane == 1 ? ~bits : bits;
}

void append_weights(Layer& layer, const Columns& columns, const KSchedule& schedule) {
    const int planes = layer.masked ? 2 : 1;
    for (int k_step = 0; k_step < layer.k_steps; ++k_step)
        for (int column = 0; column < columns.count(); ++column)
            for (int plane = 0; plane < planes; ++plane)
                for (int pair = 0; pair < 2; ++pair)
                    for (int lane = 0; lane < 32; ++lane)
                        for (int i = 0; i < 4; ++i) {
                            const KChunk& chunk = schedule.chunks[static_cast<size_t>(2 * k_step + i % 2)];
                            const int bit = channel_of(pair * 2 + i / 2, lane / 4);
                            layer.packed_weights.push_back(weight_word(layer.bit_op, plane, columns, column, bit,
                                                                       chunk.words[static_cast<size_t>(lane % 4)]));
                        }
}

// What sums start at, so that they are not negative where the output is a one (DESIGN section 2). Where one
// AND, twice the sum minus the ones among the inputs is what this is added to.
int32_t accumulator_start(const Layer& layer, const Columns& columns, int column, int bit, int32_t theta) {
    int positive = 0, negative = 0;
    for (int tap = 0; tap < columns.taps(); ++tap) {
        const int8_t* weights = columns.weights(column, bit, tap);
        positive += static_cast<int>(std::count(weights, weights + columns.inputs(), 1));
        negative += static_cast<int>(std::count(weights, weights + columns.inputs(), -1));
    }
    if (layer.bit_op == BitOp::kXor && layer.masked) return -(layer.k_steps * 256 + theta);
    if (layer.bit_op == BitOp::kAnd && !layer.masked) return -half_up(theta + positive - negative);
    return -half_up(theta + positive + negative);
}

void prepare_bits(Layer& layer, const Step& step) {
    if (step.inputs.size() > 2) throw Error("a convolution on CUDA reads at most two tensors");
    const Columns columns(step);
    const KSchedule schedule(step.input_channels, layer.upsamples);
    layer.masked = std::find(step.conv.weights.begin(), step.conv.weights.end(), 0) != step.conv.weights.end();
    layer.k_steps = static_cast<int>(schedule.chunks.size()) / 2;
    append_weights(layer, columns, schedule);
    layer.accumulator_start = layer.packed_weights.size();
    for (int column = 0; column < columns.count(); ++column)
        for (int bit = 0; bit < 32; ++bit) {
            const int channel = columns.channel(column, bit);
            layer.packed_weights.push_back(static_cast<uint32_t>(
                channel < step.channels
                    ? accumulator_start(layer, columns, column, bit, step.thresholds[static_cast<size_t>(channel)])
                    : kNever));
        }
    layer.chunks = layer.packed_weights.size();
    for (const KChunk& chunk : schedule.chunks) {
        uint32_t entry = static_cast<uint32_t>(chunk.offset);
        for (size_t w = 0; w < 4; ++w) entry |= static_cast<uint32_t>(chunk.words[w].tap >= 0) << w;
        layer.packed_weights.push_back(entry);
    }
}

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
    for (int channel = 0; channel < words * 32; ++channel)
        layer.packed_weights.push_back(
            static_cast<uint32_t>(channel < step.channels ? -step.thresholds[static_cast<size_t>(channel)] : kNever));
}

void prepare_head(Layer& layer, const Step& step) {
    const int channels = step.input_channels[0], words = pixel_words(channels);
    for (int c = 0; c < step.channels; ++c)
        for (int i = 0; i < words * 32; ++i)
            layer.packed_weights.push_back(
                i < channels ? static_cast<uint32_t>(step.weights[static_cast<size_t>(c * channels + i)]) : 0);
    layer.accumulator_start = layer.packed_weights.size();
    for (int32_t base : step.base) layer.packed_weights.push_back(static_cast<uint32_t>(base));
}

}  // namespace

KSchedule::KSchedule(const std::vector<int>& input_channels, bool upsamples) {
    const SharedTile shared_tile(upsamples);
    const int kernel_size = upsamples ? 1 : 3;
    int first_channel = 0;
    for (size_t input = 0; input < input_channels.size(); ++input) {
        const int channels = input_channels[input], words = pixel_words(channels), slabs = slabs_of(words);
        pitches[input] = slab_pitch(shared_tile.pixels, slabs);
        offsets[input] = shared_tile_bytes;
        shared_tile_bytes += pitches[input] * slabs * 16;
        for (int row = 0; row < kernel_size; ++row)
            for (int column = 0; column < kernel_size; column += pixels_per_chunk(words))
                add_chunks(*this, shared_tile, static_cast<int>(input), first_channel, channels, row, column);
        first_channel += channels;
    }
    if (chunks.size() % 2) chunks.push_back({});
}

Layer prepare(const Step& step, BitOp bit_op) {
    Layer layer{step.op, bit_op, false, step.channels, step.input_channels, 0, 0, 0, {}, step.conv.up > 1};
    switch (step.op) {
        case Op::kStem: prepare_stem(layer, step); break;
        case Op::kConv: prepare_bits(layer, step); break;
        case Op::kHead: prepare_head(layer, step); break;
        case Op::kPool: break;
        case Op::kGate: throw Error("gates are not supported");
    }
    return layer;
}

size_t shared_bytes(const Layer& layer) {
    if (layer.op == Op::kStem) return static_cast<size_t>(SharedTile(false).pixels) * 4;
    if (layer.op != Op::kConv) return 0;
    const KSchedule schedule(layer.input_channels, layer.upsamples);
    return static_cast<size_t>(schedule.shared_tile_bytes + stages_bytes(layer.masked, kMostOutputWords));
}

std::string kernel_name(const Layer& layer, int compiled) {
    const bool turing = compiled < 80;
    switch (layer.op) {
        case Op::kStem: return turing ? "imma m8n8k16, two bytes to a weight" : "imma m16n8k32, two bytes to a weight";
        case Op::kPool: return "or of four words";
        case Op::kHead: return "integer sums and decision";
        default: break;
    }
    std::string name = turing ? "bmma m8n8k128 " : "bmma m16n8k256 ";
    name += layer.bit_op == BitOp::kXor ? "xor" : "and";
    return name + (layer.masked ? ", two planes" : ", one plane");
}

}  // namespace mbunet::cuda
