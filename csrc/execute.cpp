#include "execute.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace mbunet {

namespace {

constexpr size_t kTile = 4096;            // positions of one convolution task: neighbouring rows, read once
constexpr size_t kUpTile = 256;           // the same of a transposed convolution, which also keeps its results at hand
constexpr int kUpChannels = kSorted / 4;  // output channels of one transposed convolution task
constexpr int kPoolRows = 4;              // rows of one pooling task
constexpr int kHeadRows = 4;              // band rows of one task of the last layer
constexpr int kTasksPerThread = 16;       // enough that the threads end together

int groups_for(int positions, int threads, int channels) {
    const int wanted = (kTasksPerThread * threads + positions - 1) / positions;
    return std::clamp(wanted, 1, channels);
}

int divide_up(int n, int d) { return (n + d - 1) / d; }

// How the rows of a transposed convolution's input are cut into tasks.
struct UpconvTiles {
    int rows, count;
    size_t stride;

    explicit UpconvTiles(const Geometry& from) : stride(from.stride) {
        rows = std::max(1, static_cast<int>(kUpTile / stride));
        count = divide_up(from.rows, rows);
    }
    // Bytes that a tile's positions take at most, cut out of the plane at whole lines.
    size_t strip_bytes() const { return round_up(static_cast<size_t>(rows) * stride, kLine) + kLine; }
};

}  // namespace

void Executor::run(const Image* images, int count, std::vector<double>& seconds) {
    std::memset(arena_ + bound_.zero, 0, bound_.zero_bytes);
    for (size_t s = 0; s < network_.steps().size(); ++s) {
        const auto start = std::chrono::steady_clock::now();
        const Step& step = network_.steps()[s];
        switch (step.op) {
            case Op::kPixels: run_pixels(step, images, count); break;
            case Op::kConv: run_conv(step, bound_.lists[s]); break;
            case Op::kPool: run_pool(step); break;
            case Op::kUpconv: run_upconv(step, bound_.lists[s]); break;
            case Op::kHead: run_head(step, images, count); break;
        }
        if (step.output >= 0) fill_halos(step.output);
        seconds[s] += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
}

// What a thread needs for the greediest step: pixel pairs and bits, strips of a transposed convolution, logits.
size_t Executor::scratch_bytes(const Network& network, const Bound& bound) {
    size_t most = 0;
    for (const Step& step : network.steps()) {
        if (step.op == Op::kPixels)
            most = std::max(most, PixelScratch(bound.level(network.slot(step.output)).width, step.channels).bytes());
        if (step.op == Op::kUpconv)
            most =
                std::max(most, UpconvTiles(bound.level(network.slot(step.inputs[0]))).strip_bytes() * 4 * kUpChannels);
        if (step.op == Op::kHead)
            most = std::max(most, static_cast<size_t>(step.channels) * kLanes * kColumns * sizeof(int32_t));
    }
    return most;
}

namespace {

// Pairs of columns -1 and behind `columns`, where the row's own end: its last pixel is repeated up to `width`, and what
// lies outside is 0.
void pair_edges(int columns, int width, int32_t* red_green, int32_t* blue) {
    const int32_t last = blue[columns - 1];
    std::fill(red_green + columns, red_green + width, red_green[columns - 1]);
    std::fill(blue + columns - 1, blue + width, last | last << 16);
    blue[width - 1] = last;
    blue[-1] = static_cast<int32_t>(static_cast<uint32_t>(blue[0]) << 16);
    red_green[-1] = red_green[width] = blue[width] = 0;
}

}  // namespace

void Executor::run_pixels(const Step& step, const Image* images, int count) {
    constexpr int kPixelRows = PixelScratch::kRows;
    const Geometry& geometry = level(step.output);
    const PixelScratch sizes(geometry.width, step.channels);
    const int lanes = std::min(kLanes, count * bound_.bands);
    pool_.run(divide_up(geometry.rows, kPixelRows), [&](int task, int thread) {
        int32_t* pairs = reinterpret_cast<int32_t*>(scratch(thread));
        uint8_t* bits = scratch(thread) + sizes.pairs_bytes;
        const int first = task * kPixelRows, last = std::min(first + kPixelRows, geometry.rows);
        for (int lane = 0; lane < lanes; ++lane)
            for (int row = first - 1; row <= last; ++row) {
                int32_t* red_green = pairs + sizes.row(lane, row - first + 1);
                pair_row(images[lane / bound_.bands], lane % bound_.bands * geometry.rows + row, geometry, red_green,
                         red_green + sizes.row_ints);
            }
        for (int row = first; row < last; ++row) {
            std::memset(bits, 0, sizes.bits_bytes);
            for (int lane = 0; lane < lanes; ++lane)
                if (geometry.lanes_of_row(row) >> lane & 1)
                    pixel_row(step, sizes, pairs + sizes.row(lane, row - first), lane, bits);
            store_row(step, sizes, bits, static_cast<size_t>(row) * geometry.stride);
        }
    });
}

// One image row as the pairs of PixelRows, columns -1 ... width: edges replicated to the padded shape, zero outside
// it. `red_green` and `blue` point at column 0.
void Executor::pair_row(const Image& image, int y, const Geometry& geometry, int32_t* red_green, int32_t* blue) {
    if (y < 0 || y >= geometry.height) {
        std::fill(red_green - 1, red_green + geometry.width + 1, 0);
        std::fill(blue - 1, blue + geometry.width + 1, 0);
        return;
    }
    const size_t bytes = static_cast<size_t>(image.width) * 3;
    const uint8_t* row = image.pixels + static_cast<size_t>(std::min(y, image.height - 1)) * bytes;
    kernels_.pairs(row, image.width, red_green, blue);
    pair_edges(image.width, geometry.width, red_green, blue);
}

// First layer on one row of one lane, from the pairs of the row above it on.
void Executor::pixel_row(const Step& step, const PixelScratch& sizes, const int32_t* pairs, int lane, uint8_t* bits) {
    const PixelArgs args{step.weights.data(), step.offsets.data(), step.channels};
    bits += lane;
    for (size_t block = 0; block < sizes.blocks; ++block, pairs += kColumns, bits += kColumns) {
        PixelRows rows;
        for (size_t i = 0; i < 3; ++i) {
            rows.red_green[i] = pairs + i * 2 * sizes.row_ints;
            rows.blue[i] = rows.red_green[i] + sizes.row_ints;
        }
        kernels_.pixels(args, rows, bits, sizes.channel_bytes);
    }
}

// Turns one row's bits, eight columns of a lane to the byte, into bytes of eight lanes of a column.
void Executor::store_row(const Step& step, const PixelScratch& sizes, const uint8_t* bits, size_t position) {
    const Geometry& geometry = level(step.output);
    uint8_t* line = row0(step.output) + position;
    for (int channel = 0; channel < step.channels; ++channel, bits += sizes.channel_bytes, line += geometry.plane) {
        kernels_.columns(bits, line, geometry.width);
        line[geometry.width] = 0;  // the border byte
    }
}

void Executor::run_conv(const Step& step, const Lists& lists) {
    const Geometry& geometry = level(step.output);
    const size_t span = geometry.span();
    const int tiles = static_cast<int>((span + kTile - 1) / kTile);
    const int groups = groups_for(tiles, pool_.size(), step.channels);
    uint8_t* out = row0(step.output);
    pool_.run(tiles * groups, [&](int task, int) {
        const size_t begin = static_cast<size_t>(task / groups) * kTile;
        const int group = task % groups;
        count(lists, geometry, out, geometry.plane, begin, std::min(begin + kTile, span),
              step.channels * group / groups, step.channels * (group + 1) / groups);
    });
}

// Output planes [channel, channel_end) at positions [begin, end), by the kernel that fits the lists.
void Executor::count(const Lists& lists, const Geometry& geometry, uint8_t* out, size_t out_plane, size_t begin,
                     size_t end, int channel, int channel_end) {
    if (lists.dense.empty())
        kernels_.count({arena_, lists.taps.data(), lists.sparse.data(), geometry.valid.data(), out, out_plane}, begin,
                       end, channel, channel_end);
    else
        kernels_.count_dense({arena_, lists.taps.data(), lists.dense.data(), lists.all, lists.levels,
                              geometry.valid.data(), out, out_plane},
                             begin, end, channel, channel_end);
}

void Executor::run_pool(const Step& step) {
    const Geometry& from = level(step.inputs[0]);
    const Geometry& to = level(step.output);
    const uint8_t* in = row0(step.inputs[0]);
    uint8_t* out = row0(step.output);
    pool_.run(divide_up(to.rows, kPoolRows), [&](int task, int) {
        const int begin = task * kPoolRows, end = std::min(begin + kPoolRows, to.rows);
        for (int channel = 0; channel < step.channels; ++channel)
            for (int row = begin; row < end; ++row) {
                const uint8_t* upper =
                    in + static_cast<size_t>(channel) * from.plane + static_cast<size_t>(2 * row) * from.stride;
                uint8_t* line = out + static_cast<size_t>(channel) * to.plane + static_cast<size_t>(row) * to.stride;
                kernels_.pool(upper, upper + from.stride, line, to.width);
                line[to.width] = 0;
            }
    });
}

void Executor::run_upconv(const Step& step, const Lists& lists) {
    const Geometry& from = level(step.inputs[0]);
    const Geometry& to = level(step.output);
    uint8_t* out = row0(step.output);
    const UpconvTiles tiles(from);
    const int groups = divide_up(step.channels, kUpChannels);
    pool_.run(tiles.count * groups, [&](int task, int thread) {
        const int row_begin = task / groups * tiles.rows, row_end = std::min(row_begin + tiles.rows, from.rows);
        const int channel_begin = task % groups * kUpChannels,
                  channel_end = std::min(channel_begin + kUpChannels, step.channels);
        const size_t begin = static_cast<size_t>(row_begin) * from.stride / kLine * kLine;
        const size_t end = round_up(static_cast<size_t>(row_end) * from.stride, kLine), strip = end - begin;
        uint8_t* strips = scratch(thread);
        // the count's output channels are (channel, tap), sorted within a group; their planes are the strips
        count(lists, from, strips - begin - static_cast<size_t>(channel_begin) * 4 * strip, strip, begin, end,
              channel_begin * 4, channel_end * 4);
        for (int channel = channel_begin; channel < channel_end; ++channel)
            for (int row = row_begin; row < row_end; ++row)
                for (int i = 0; i < 2; ++i) {
                    const uint8_t* left = strips + static_cast<size_t>((channel - channel_begin) * 4 + i * 2) * strip +
                                          static_cast<size_t>(row) * from.stride - begin;
                    uint8_t* line =
                        out + static_cast<size_t>(channel) * to.plane + static_cast<size_t>(2 * row + i) * to.stride;
                    kernels_.interleave(left, left + strip, line, from.width);
                    line[to.width] = 0;
                }
    });
}

namespace {

// Decides the mask of `columns` pixels from logits [class][kLanes][kColumns] of one lane.
void decide(const int32_t* logits, int classes, int32_t threshold, int columns, uint8_t* mask) {
    constexpr int kNext = kLanes * kColumns;
    if (classes == 1) {
        for (int x = 0; x < columns; ++x) mask[x] = logits[x] >= threshold;
        return;
    }
    for (int x = 0; x < columns; ++x) {
        int best = 0;
        for (int c = 1; c < classes; ++c)
            if (logits[c * kNext + x] > logits[best * kNext + x]) best = c;
        mask[x] = static_cast<uint8_t>(best);
    }
}

}  // namespace

void Executor::run_head(const Step& step, const Image* images, int count) {
    const Geometry& geometry = level(step.inputs[0]);
    const HeadArgs args{row0(step.inputs[0]), geometry.plane,     step.input_channels[0], step.channels,
                        step.weights.data(),  step.tables.data(), step.offsets.data()};
    constexpr int kClass = kLanes * kColumns;
    pool_.run(divide_up(geometry.rows, kHeadRows), [&](int task, int thread) {
        int32_t* logits = reinterpret_cast<int32_t*>(scratch(thread));
        for (int row = task * kHeadRows; row < std::min((task + 1) * kHeadRows, geometry.rows); ++row)
            for (int x = 0; x < geometry.width; x += kColumns) {
                kernels_.head(args, static_cast<size_t>(row) * geometry.stride + static_cast<size_t>(x), logits);
                for (int lane = 0; lane < kLanes && lane / bound_.bands < count; ++lane) {
                    const Image& image = images[lane / bound_.bands];
                    const int y = lane % bound_.bands * geometry.rows + row,
                              columns = std::min(kColumns, image.width - x);
                    if (y >= image.height || columns <= 0) continue;
                    const size_t at =
                        static_cast<size_t>(y) * static_cast<size_t>(image.width) + static_cast<size_t>(x);
                    const int32_t* own = logits + lane * kColumns;
                    decide(own, step.channels, image.threshold, columns, image.mask + at);
                    if (image.logits)
                        for (int i = 0; i < columns; ++i)
                            for (int c = 0; c < step.channels; ++c)
                                image.logits[(at + static_cast<size_t>(i)) * static_cast<size_t>(step.channels) +
                                             static_cast<size_t>(c)] = own[c * kClass + i];
                }
            }
    });
}

void Executor::fill_halos(int slot) {
    const Geometry& geometry = level(slot);
    const int channels = network_.slot(slot).channels, tasks = pool_.size();
    pool_.run(tasks, [&](int task, int) {
        for (int channel = channels * task / tasks; channel < channels * (task + 1) / tasks; ++channel)
            kernels_.halo(geometry, row0(slot) + static_cast<size_t>(channel) * geometry.plane);
    });
}

}  // namespace mbunet
