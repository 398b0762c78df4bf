#include "conv_weights.hpp"

#include <algorithm>
#include <numeric>

namespace mbunet::cuda {

namespace {

// Columns of the products are output words of 32 channels: those of every output of a position in turn if it upsamples.
class Columns {
  public:
    explicit Columns(const Step& step)
        : step_(step),
          inputs_(std::accumulate(step.input_channels.begin(), step.input_channels.end(), 0)),
          words_(pixel_words(step.channels)) {}

    int count() const { return step_.conv.up * step_.conv.up * words_; }
    // -1 for a padding channel.
    int channel(int column, int bit) const {
        const int channel = column % words_ * 32 + bit;
        return channel < step_.channels ? channel : -1;
    }
    int taps() const { return step_.conv.kernel * step_.conv.kernel; }
    // Weights of one tap of a channel that there is.
    const int8_t* weights(int segment, int column, int bit, int tap) const {
        const int up = step_.conv.up * step_.conv.up;
        const int output = (segment * step_.channels + channel(column, bit)) * up + column / words_;
        return &step_.conv.weights[static_cast<size_t>(output * taps() + tap) * static_cast<size_t>(inputs_)];
    }
    // How many of a segment's weights for one output are `wanted` (1 or -1).
    int count_of(int wanted, int segment, int column, int bit) const {
        const int8_t* first = weights(segment, column, bit, 0);
        return static_cast<int>(std::count(first, first + taps() * inputs_, wanted));
    }

  private:
    const Step& step_;
    int inputs_, words_;
};

// One bit per weight that has the sign `wanted` (1 or -1).
uint32_t sign_bits(const Columns& columns, int segment, int column, int bit, const KChunk::Word& word, int wanted) {
    if (word.tap < 0 || columns.channel(column, bit) < 0) return 0;
    const int8_t* weights = columns.weights(segment, column, bit, word.tap);
    uint32_t bits = 0;
    for (int i = 0; i < 32 && word.channel + i < word.end; ++i)
        bits |= static_cast<uint32_t>(weights[word.channel + i] == wanted) << i;
    return bits;
}

// Word of weights that a product by this operation takes: XOR counts a ^ neg and a ^ ~pos, AND counts a & pos and ~a &
// neg.
uint32_t weight_word(BitOp bit_op, int plane, const Columns& columns, int column, int bit, const KChunk& chunk,
                     int word) {
    const bool negative = (plane == 0) == (bit_op == BitOp::kXor);
    const uint32_t bits =
        sign_bits(columns, chunk.segment, column, bit, chunk.words[static_cast<size_t>(word)], negative ? -1 : 1);
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
                            layer.packed_weights.push_back(
                                weight_word(layer.bit_op, plane, columns, column, bit, chunk, lane % 4));
                        }
}

// [128 bits of the sources][output word][pair of blocks][lane][4]: see up_conv.hpp. The halves of a product are the
// planes.
void append_up_weights(Layer& layer, const Columns& columns, const KSchedule& schedule) {
    for (int k_step = 0; k_step < layer.k_steps; ++k_step)
        for (int column = 0; column < columns.count(); ++column)
            for (int pair = 0; pair < 2; ++pair)
                for (int lane = 0; lane < 32; ++lane)
                    for (int i = 0; i < 4; ++i)
                        layer.packed_weights.push_back(
                            weight_word(layer.bit_op, i % 2, columns, column, channel_of(pair * 2 + i / 2, lane / 4),
                                        schedule.chunks[static_cast<size_t>(k_step)], lane % 4));
}

// A word of a column of a product of warpgroups (warpgroup_sums.hpp), of a pair of output words.
uint32_t warpgroup_word(bool masked, const Columns& columns, const KChunk& chunk, const KChunk::Word& word, int pair,
                        int column) {
    const int block = masked ? column / 16 : column / 8;  // of eight channels
    if (block >= 8) return word.tap < 0 ? 0 : ~0u;
    const int sign = masked && column / 8 % 2 ? -1 : 1;
    return sign_bits(columns, chunk.segment, pair * 2 + block / 4, channel_of(block % 4, column % 8), word, sign);
}

// [K step][pair of output words][half of a K step][column][4 words].
void append_warpgroup_weights(Layer& layer, const Columns& columns, const KSchedule& schedule) {
    for (int k_step = 0; k_step < layer.k_steps; ++k_step)
        for (int pair = 0; pair < columns.count() / 2; ++pair)
            for (int half = 0; half < 2; ++half)
                for (int column = 0; column < warpgroup_columns(layer.masked); ++column) {
                    const KChunk& chunk = schedule.chunks[static_cast<size_t>(2 * k_step + half)];
                    for (const KChunk::Word& word : chunk.words)
                        layer.packed_weights.push_back(
                            warpgroup_word(layer.masked, columns, chunk, word, pair, column));
                }
}

// Whether the first of a K step's chunks is nowhere behind the second: a descriptor knows no way back.
bool chunks_ascend(const KSchedule& schedule) {
    for (size_t i = 0; i < schedule.chunks.size(); i += 2)
        if (schedule.chunks[i].offset > schedule.chunks[i + 1].offset) return false;
    return true;
}

// The table in conv_weights.hpp, for one layer.
class Counting {
  public:
    Counting(const Layer& layer, const Step& step, const Columns& columns, const KSchedule& schedule)
        : layer_(layer),
          step_(step),
          columns_(columns),
          has_two_planes_(layer.masked || is_up_conv(layer)),
          products_(is_up_conv(layer) ? layer.k_steps * 128 : schedule.part_steps * 256) {}

    int scale() const { return !layer_.input_is_signed && complements_both() ? 2 : 1; }
    int doubling() const { return layer_.input_is_signed && !complements_both(); }

    // By which what is counted of a part is doubled on its way into the total.
    int shift(int part, int channel) const {
        const int segment = part / layer_.input_planes, plane = layer_.input_planes - 1 - part % layer_.input_planes;
        return step_.conv.exponents[static_cast<size_t>(segment * step_.channels + channel)] + plane + doubling();
    }

    // What a one of the residual adds to the total, in its least significant plane.
    int worth(int channel) const {
        const Residual& residual = step_.conv.residual;
        if (residual.tensor < 0) return 0;
        const int once = residual.factors[static_cast<size_t>(channel)] * (1 << residual.exponent);
        return once * (layer_.input_is_signed ? 2 : scale());
    }

    // What makes a total that reaches `theta` not negative.
    int reach(int column, int bit, int theta) const {
        const int channel = columns_.channel(column, bit);
        int needed = scale() * theta;
        for (int part = 0; part < layer_.segments * layer_.input_planes; ++part)
            needed += constant(part / layer_.input_planes, column, bit) << (shift(part, channel) - doubling());
        if (layer_.input_is_signed) needed += worth(channel) / 2;  // a zero of the residual takes away
        return -needed;
    }

  private:
    bool complements_both() const { return layer_.bit_op == BitOp::kXor && has_two_planes_; }

    int constant(int segment, int column, int bit) const {
        const int positive = columns_.count_of(1, segment, column, bit);
        const int negative = columns_.count_of(-1, segment, column, bit);
        const bool counts_ones = layer_.bit_op == BitOp::kAnd && !has_two_planes_;
        if (complements_both()) return layer_.input_is_signed ? products_ : products_ - positive + negative;
        if (counts_ones) return layer_.input_is_signed ? positive - negative : 0;
        return layer_.input_is_signed ? positive + negative : negative;
    }

    const Layer& layer_;
    const Step& step_;
    const Columns& columns_;
    bool has_two_planes_;  // of weights: what of the table is called masked
    int products_;
};

// Appends by column, `count` times, what `value` gives for a channel and 0 or kNever, as `padding` says, for none.
template <class Value>
size_t append_words(Layer& layer, const Columns& columns, int count, int32_t padding, Value value) {
    const size_t begin = layer.packed_weights.size();
    for (int column = 0; column < columns.count(); ++column)
        for (int i = 0; i < count; ++i)
            for (int bit = 0; bit < 32; ++bit)
                layer.packed_weights.push_back(
                    static_cast<uint32_t>(columns.channel(column, bit) < 0 ? padding : value(column, bit, i)));
    return begin;
}

// Of products of warpgroups: what the sums of two pixels start at.
void append_pair_starts(Layer& layer, int words) {
    layer.starts = layer.packed_weights.size();
    for (size_t i = 0; i < static_cast<size_t>(words) * 32; ++i)
        layer.packed_weights.push_back(
            pair_start(static_cast<int32_t>(layer.packed_weights[layer.accumulator_start + i])));
}

void append_chunks(Layer& layer, const KSchedule& schedule) {
    const auto taps = [](const KChunk& chunk) {
        uint32_t bits = 0;
        for (size_t w = 0; w < 4; ++w) bits |= static_cast<uint32_t>(chunk.words[w].tap >= 0) << w;
        return bits;
    };
    layer.chunks = layer.packed_weights.size();
    for (size_t i = 0; i < schedule.chunks.size(); i += 2) {
        const KChunk &first = schedule.chunks[i], &second = schedule.chunks[i + 1];
        for (uint32_t word :
             {static_cast<uint32_t>(first.offset), static_cast<uint32_t>(second.offset), taps(first), taps(second)})
            layer.packed_weights.push_back(word);
    }
}

}  // namespace

void pack_convolution(Layer& layer, const Step& step, bool has_warpgroups) {
    const Columns columns(step);
    const KSchedule schedule(conv_shape(layer));
    layer.masked = std::find(step.conv.weights.begin(), step.conv.weights.end(), 0) != step.conv.weights.end();
    layer.k_steps = is_up_conv(layer) ? schedule.filled_chunks() : static_cast<int>(schedule.chunks.size()) / 2;
    layer.by_warpgroups =
        has_warpgroups && !layer.general && layer.up == 1 && columns.count() % 2 == 0 && chunks_ascend(schedule);
    if (layer.by_warpgroups)
        append_warpgroup_weights(layer, columns, schedule);
    else if (is_up_conv(layer))
        append_up_weights(layer, columns, schedule);
    else
        append_weights(layer, columns, schedule);
    const Counting counting(layer, step, columns, schedule);
    const int halvings = layer.general ? 0 : counting.doubling();  // a part alone needs not be doubled
    layer.accumulator_start = append_words(layer, columns, step.levels(), kNever, [&](int column, int bit, int level) {
        const auto at = static_cast<size_t>(columns.channel(column, bit) * step.levels() + level);
        const int more = layer.by_warpgroups && layer.masked ? columns.count_of(-1, 0, column, bit) : 0;
        return (counting.reach(column, bit, step.thresholds[at]) >> halvings) + more;
    });
    if (layer.by_warpgroups) append_pair_starts(layer, columns.count());
    if (!layer.general && !layer.by_warpgroups) append_start_fragments(layer, columns.count());
    if (layer.general) {
        layer.worths = append_words(layer, columns, 1, 0, [&](int column, int bit, int) {
            return counting.worth(columns.channel(column, bit));
        });
        layer.shifts = layer.packed_weights.size();
        for (int part = 0; part < schedule.parts; ++part)
            append_words(layer, columns, 1, 0,
                         [&](int column, int bit, int) { return counting.shift(part, columns.channel(column, bit)); });
    }
    append_chunks(layer, schedule);
}

}  // namespace mbunet::cuda
