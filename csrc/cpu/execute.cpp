#include "execute.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "doubling.hpp"
#include "pixel_rows.hpp"
#include "raster.hpp"

namespace mbunet::cpu {

namespace {

constexpr size_t kTile = 2048;       // bytes of a plane that one task of a step computes
constexpr size_t kInputs = 1 << 20;  // bytes that one convolution task reads again for every channel: they stay in L2
constexpr int kTasksPerThread = 16;  // enough that the threads end together
constexpr int kShortTasks = 2;       // of a step that takes microseconds: beginning a task costs a part of one

// Into how many parts the channels are cut, so that `tasks` of them are enough for the threads.
int parts_for(int tasks, int threads, int channels, int tasks_per_thread = kTasksPerThread) {
    return std::clamp(divide_up(tasks_per_thread * threads, tasks), 1, channels);
}

// Rows of a plane that one task computes or reads.
int tile_rows(const Plane& plane) { return std::clamp(static_cast<int>(kTile / plane.row_bytes()), 1, plane.side); }

// Copies the first `bytes` of lines of `bits`, `stride` apart, to the channels' planes, `size` apart.
template <class Stride, class Bytes>
void scatter_bits(const uint8_t* bits, Stride stride, int channels, size_t size, uint8_t* out, Bytes bytes) {
    for (int channel = 0; channel < channels; ++channel, bits += stride, out += size) std::memcpy(out, bits, bytes);
}

// Of three lines a channel, one for each threshold, makes the first two those of the level's two bits. The thresholds
// ascend, so that reaching the second is the more significant bit.
void make_levels(uint8_t* lines, int channels) {
    constexpr size_t kWords = kLine / sizeof(uint64_t);
    for (int channel = 0; channel < channels; ++channel, lines += 3 * kLine) {
        uint64_t reached[3][kWords], less[kWords];
        std::memcpy(reached, lines, sizeof reached);
        for (size_t i = 0; i < kWords; ++i) less[i] = reached[0][i] ^ reached[1][i] ^ reached[2][i];
        std::memcpy(lines, reached[1], kLine);
        std::memcpy(lines + kLine, less, kLine);
    }
}

// Fills the edges of some channels of a group.
void copy_edges(const Grid& grid, const Plane& plane, const HaloArgs& args) {
    const size_t own = static_cast<size_t>(args.group) * args.group_bytes, edge = grid.edge;
    const uint8_t* from = args.first + own;
    uint8_t* to = args.edges + own;
    const auto copy = [&](size_t first) {
        for (int c = 0; c < plane.side; ++c, first += plane.bytes, to += edge)
            for (size_t b = 0; b < edge; b += 8) std::memcpy(to + b, from + first + b, 8);
    };
    for (int channel = 0; channel < args.channels; ++channel, from += plane.size) {
        copy(plane.at(0, 0));
        copy(plane.at(plane.side - 1, 0) + plane.bytes - edge);
    }
}

}  // namespace

void Executor::run(const Image* images, std::vector<double>& seconds) {
    pool_.run(plan_.others.groups, [&](int g, int) { std::memset(group(g) + plan_.zero, 0, plan_.zero_bytes); });
    for (size_t s = 0; s < network_.steps().size(); ++s) {
        const auto start = std::chrono::steady_clock::now();
        const Step& step = network_.steps()[s];
        switch (step.op) {
            case Op::kStem: run_stem(step, packed_[s].data(), images); break;
            case Op::kConv: run_conv(step, plan_.lists[s]); break;
            case Op::kPool: run_pool(step); break;
            case Op::kGate: run_gate(step); break;
            case Op::kHead: run_head(step, packed_[s].data(), images); break;
        }
        if (plan_.needs_halo[s]) fill_halos(step);
        seconds[s] += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
}

// What a thread needs for the greediest step: pixels and bits, or a border's lanes, or rasters, or logits and masks, or
// rows of logits.
size_t Executor::scratch_bytes(const Network& network, const ShapePlan& plan) {
    const Grid& grid = plan.grid(1);
    size_t most = std::max(halo_bytes(plan.deepest), halo_bytes(plan.others));
    const size_t pooled = 2 * (raster_words(plan.others) + raster_words(plan.deepest)),
                 joined = raster_words(plan.others) + 4 * raster_words(plan.deepest);
    most = std::max(most, std::max(pooled, joined) * sizeof(uint64_t));
    for (const Step& step : network.steps()) {
        if (step.op == Op::kStem) most = std::max(most, step.thresholds.size() * kLine + PixelRows::bytes(grid));
        if (step.op != Op::kHead) continue;
        const int side = plan.plane(network.tensor(step.inputs[0])).side;
        most = std::max(most, head_bytes(step, side));
        if (step.doublings)
            most = std::max(most, doubling_bytes(grid.width >> step.doublings, step.channels, step.doublings));
    }
    return most;
}

// Calls work(task, channel, end channel, thread) for `tasks` short tasks, each cut into some of `channels` at a time.
template <class Work>
void Executor::each_channels(int channels, int tasks, const Work& work) {
    const int parts = parts_for(tasks, pool_.size(), channels, kShortTasks);
    pool_.run(tasks * parts, [&](int task, int thread) {
        const int part = task % parts;
        work(task / parts, channels * part / parts, channels * (part + 1) / parts, thread);
    });
}

void Executor::run_stem(const Step& step, const int32_t* packed, const Image* images) {
    const Grid& grid = grid_of(step.output);
    const Plane& to = plane(step.output);
    const StemArgs args{packed, step.thresholds.data(), step.channels, step.levels()};
    const int levels = step.levels();
    // two rows more are read than computed, so tasks are long: two for every thread
    const int tiles = std::clamp(divide_up(2 * pool_.size(), grid.groups), 1, divide_up(grid.side, 2));
    const int lanes = static_cast<int>(grid.bytes) * 8;
    pool_.run(grid.groups * tiles, [&](int task, int thread) {
        uint8_t* bits = scratch(thread);
        PixelRows rows(kernels_, grid, images, task / tiles, bits + step.thresholds.size() * kLine);
        const int first = grid.side * (task % tiles) / tiles, last = grid.side * (task % tiles + 1) / tiles;
        rows.read(first - 1);
        rows.read(first);
        for (int r = first; r < last; ++r) {
            rows.read(r + 1);
            for (int c = 0; c < grid.side; ++c) {
                const uint32_t* taps[9];
                for (int lane = 0; lane < lanes; lane += kStemLanes) {
                    rows.point(r, c, lane, taps);
                    kernels_.stem(args, taps, bits + lane / 8);
                }
                uint8_t* out = at(task / tiles, step.output, r, c);
                with_bytes(grid.bytes, [&](auto width) {
                    if (levels == 1)
                        return scatter_bits(bits, std::integral_constant<size_t, kLine>{}, step.channels, to.size, out,
                                            width);
                    make_levels(bits, step.channels);
                    for (size_t plane = 0; plane < 2; ++plane)
                        scatter_bits(bits + plane * kLine, 3 * kLine, step.channels, 2 * to.size, out + plane * to.size,
                                     width);
                });
            }
        }
    });
}

// How many rows one task of a convolution computes at most.
int Executor::conv_rows(const Step& step) const {
    const Plane& from = plane(step.inputs[0]);
    size_t planes = 0;
    for (int input : step.inputs) planes += static_cast<size_t>(bit_planes(input));
    const int most = static_cast<int>(kInputs / (planes * from.row)) - (step.conv.kernel - 1);
    return std::clamp(most, 1, tile_rows(plane(step.output)));
}

void Executor::run_conv(const Step& step, const SparseLists& lists) {
    if (step.conv.up > 1) return upsample(step, lists);
    const Plane& own = plane(step.output);
    const int groups = grid_of(step.output).groups, tiles = divide_up(own.side, conv_rows(step)),
              rows = divide_up(own.side, tiles);
    const int parts = parts_for(groups * tiles, pool_.size(), step.channels);
    pool_.run(groups * tiles * parts, [&](int task, int) {
        const int first = task / parts % tiles * rows;
        const size_t begin = static_cast<size_t>(first) * own.row;
        count(step, lists, task / parts / tiles,
              {begin, own.row, begin, own.row, own.row_bytes(), std::min(rows, own.side - first)}, task % parts, parts);
    });
}

// A convolution with four outputs for every position of its input.
void Executor::upsample(const Step& step, const SparseLists& lists) {
    const bool joins = plan_.crosses(network_, step);
    const Plane from = plane(step.inputs[0]), to = joins ? plan_.joint_plane() : plane(step.output);
    const int groups = grid_of(step.inputs[0]).groups;
    const int parts = parts_for(groups * from.side, pool_.size(), divide_up(lists.entries(), kSorted));
    pool_.run(groups * from.side * parts, [&](int task, int) {
        const auto row = static_cast<size_t>(task / parts % from.side);
        count(step, lists, task / parts / from.side,
              {row * from.row, from.bytes, 2 * row * to.row, 2 * to.bytes, from.bytes, from.side}, task % parts, parts);
    });
    if (joins) join(step);
}

// Brings what an upsampling has written to the tiles of its level.
void Executor::join(const Step& step) {
    const Plane from = plan_.joint_plane();
    const Plane& to = plane(step.output);
    each_channels(bit_planes(step.output), 1, [&](int, int begin, int end, int thread) {
        uint64_t* parts = reinterpret_cast<uint64_t*>(scratch(thread));
        const size_t words = raster_words(plan_.deepest);
        for (auto channel = static_cast<size_t>(begin); channel < static_cast<size_t>(end); ++channel) {
            const uint8_t* first = group(0) + plan_.joint + channel * from.size;
            for (int part = 0; part < 4; ++part)
                read_raster(plan_.deepest, first + from.at(part / 2, part % 2), plan_.group_bytes,
                            parts + static_cast<size_t>(part) * words);
            uint64_t* joined = parts + 4 * words;
            join_rasters(plan_.deepest, parts, plan_.others, joined);
            write_raster(plan_.others, joined, at(0, step.output, 0, 0) + channel * to.size, plan_.group_bytes);
        }
    });
}

// The part of the lists' output channels at `ranges`, by the kernel that fits the lists.
void Executor::count(const Step& step, const SparseLists& lists, int group_index, const StridedRanges& ranges, int part,
                     int parts) {
    const int first = lists.entries() * part / parts, last = lists.entries() * (part + 1) / parts;
    uint8_t* from = group(group_index);
    if (!lists.channels.empty())
        return kernels_.count({from, lists.taps.data(), lists.channels.data()}, ranges, first, last);
    if (!lists.dense_channels.empty())
        return kernels_.count_dense({from, lists.taps.data(), lists.dense_channels.data(), lists.all, lists.levels},
                                    ranges, first, last);
    const Plane& out = plan_.crosses(network_, step) ? plan_.joint_plane() : plane(step.output);
    kernels_.count_weighted({from, lists.taps.data(), lists.terms.data(), lists.weighted_channels.data(),
                             lists.terms.data() + lists.terms.size() - static_cast<size_t>(lists.all_terms),
                             lists.all_terms, network_.tensor(step.inputs[0]).planes,
                             network_.tensor(step.output).planes, plane(step.inputs[0]).size, out.size},
                            ranges, first, last);
}

void Executor::run_pool(const Step& step) {
    const Plane& from = plane(step.inputs[0]);
    const Plane& to = plane(step.output);
    if (plan_.crosses(network_, step)) return pool_across(step);
    const auto planes = static_cast<size_t>(network_.tensor(step.output).planes);
    const size_t from_size = planes * from.size, to_size = planes * to.size;  // of a channel
    // cut as the convolution before was: a thread finds what it wrote
    const int rows = divide_up(tile_rows(from), 2), tiles = divide_up(to.side, rows);
    each_channels(step.channels, grid_of(step.output).groups * tiles, [&](int task, int begin, int end, int) {
        const int g = task / tiles, first = task % tiles * rows;
        for (int row = first; row < std::min(first + rows, to.side); ++row) {
            const uint8_t* upper = at(g, step.inputs[0], 2 * row, 0) + static_cast<size_t>(begin) * from_size;
            uint8_t* out = at(g, step.output, row, 0) + static_cast<size_t>(begin) * to_size;
            for (int channel = begin; channel < end; ++channel, upper += from_size, out += to_size)
                if (planes > 1)
                    kernels_.pool_levels(upper, upper + from.row, from.size, out, to.size, to.side, to.bytes);
                else
                    kernels_.pool(upper, upper + from.row, out, to.side, to.bytes);
        }
    });
}

// Pooling to the deepest level from tiles of one position.
void Executor::pool_across(const Step& step) {
    const Plane& from = plane(step.inputs[0]);
    const Plane& to = plane(step.output);
    const int planes = network_.tensor(step.output).planes;
    const size_t fine_words = raster_words(plan_.others), words = raster_words(plan_.deepest);
    each_channels(step.channels, 1, [&](int, int begin, int end, int thread) {
        uint64_t* fine = reinterpret_cast<uint64_t*>(scratch(thread));
        uint64_t* pooled = fine + static_cast<size_t>(planes) * fine_words;
        for (int channel = begin; channel < end; ++channel) {
            for (int plane = 0; plane < planes; ++plane)
                read_raster(plan_.others,
                            at(0, step.inputs[0], 0, 0) + static_cast<size_t>(channel * planes + plane) * from.size,
                            plan_.group_bytes, fine + static_cast<size_t>(plane) * fine_words);
            pool_raster(plan_.deepest, plan_.others, planes, fine, pooled);
            for (int plane = 0; plane < planes; ++plane)
                write_raster(plan_.deepest, pooled + static_cast<size_t>(plane) * words,
                             at(0, step.output, 0, 0) + static_cast<size_t>(channel * planes + plane) * to.size,
                             plan_.group_bytes);
        }
    });
}

void Executor::run_gate(const Step& step) {
    const Plane& own = plane(step.output);
    const int gates = network_.tensor(step.inputs[1]).channels, planes = network_.tensor(step.output).planes;
    each_channels(bit_planes(step.output), grid_of(step.output).groups, [&](int g, int begin, int end, int) {
        for (int plane = begin; plane < end; ++plane) {
            const size_t offset = static_cast<size_t>(plane) * own.size,
                         gate = static_cast<size_t>(plane / planes % gates) * own.size;
            for (int row = 0; row < own.side; ++row) {
                const uint8_t* in = at(g, step.inputs[0], row, 0) + offset;
                const uint8_t* by = at(g, step.inputs[1], row, 0) + gate;
                uint8_t* out = at(g, step.output, row, 0) + offset;
                for (size_t b = 0; b < own.row_bytes(); ++b) out[b] = in[b] & by[b];
            }
        }
    });
}

void Executor::fill_halos(const Step& step) {
    const Grid& grid = grid_of(step.output);
    const Plane& own = plane(step.output);
    uint8_t* first = group(0) + plan_.tensor_offsets[static_cast<size_t>(step.output)];
    // Where every group has a core of its own, it needs a few bytes of lines in another's cache: they are packed there
    // first. Of many groups the lines are in no core's cache, and packing would fetch them once more.
    const bool packed = grid.edge && grid.groups > 1 && grid.groups <= pool_.size();
    uint8_t* edges = group(0) + plan_.edges;
    const auto args = [&](int group, int begin, int end) {
        const auto channel = static_cast<size_t>(begin);
        return HaloArgs{first + channel * own.size, packed ? edges + channel * own.edges(grid) : nullptr,
                        plan_.group_bytes, group, end - begin};
    };
    if (packed)
        each_channels(bit_planes(step.output), grid.groups,
                      [&](int group, int begin, int end, int) { copy_edges(grid, own, args(group, begin, end)); });
    each_channels(bit_planes(step.output), grid.groups, [&](int group, int begin, int end, int thread) {
        kernels_.halo(grid, own, args(group, begin, end), scratch(thread));
    });
}

}  // namespace mbunet::cpu
