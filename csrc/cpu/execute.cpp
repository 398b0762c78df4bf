#include "execute.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "pixel_rows.hpp"
#include "raster.hpp"

namespace mbunet::cpu {

namespace {

constexpr size_t kTile = 2048;       // bytes of a plane that one convolution task computes: its inputs stay in L2
constexpr int kTasksPerThread = 16;  // enough that the threads end together
constexpr int kShortTasks = 2;       // of a step that takes microseconds: beginning a task costs a part of one

// Logits of a block of lanes at one row.
size_t head_logits(const Step& step, const Grid& grid) {
    return static_cast<size_t>(step.channels) * static_cast<size_t>(grid.side) * kHeadLanes;
}

// Into how many parts the channels are cut, so that `tasks` of them are enough for the threads.
int parts_for(int tasks, int threads, int channels, int tasks_per_thread = kTasksPerThread) {
    return std::clamp(divide_up(tasks_per_thread * threads, tasks), 1, channels);
}

// Rows of a plane that one task computes or reads.
int tile_rows(const Plane& plane) { return std::clamp(static_cast<int>(kTile / plane.row_bytes()), 1, plane.side); }

// Copies the first `bytes` of every line of `bits` to a channel's plane, `size` apart.
template <class Bytes>
void scatter_bits(const uint8_t* bits, int channels, size_t size, uint8_t* out, Bytes bytes) {
    for (int channel = 0; channel < channels; ++channel, bits += kLine, out += size) std::memcpy(out, bits, bytes);
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
            case Op::kTransposedConv: run_transposed_conv(step, plan_.lists[s]); break;
            case Op::kHead: run_head(step, packed_[s].data(), images); break;
        }
        if (plan_.needs_halo[s]) fill_halos(step);
        seconds[s] += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
}

// What a thread needs for the greediest step: pixels and bits, or a border's lanes, or rasters, or logits and masks.
size_t Executor::scratch_bytes(const Network& network, const ShapePlan& plan) {
    const Grid& grid = plan.grid(1);
    size_t most = std::max(halo_bytes(plan.deepest), halo_bytes(plan.others));
    most = std::max(most, (raster_words(plan.others) + 4 * raster_words(plan.deepest)) * sizeof(uint64_t));
    for (const Step& step : network.steps()) {
        if (step.op == Op::kStem)
            most = std::max(most, static_cast<size_t>(step.channels) * kLine + PixelRows::bytes(grid));
        if (step.op == Op::kHead)
            most =
                std::max(most, head_logits(step, grid) * sizeof(int32_t) + static_cast<size_t>(grid.side) * kHeadLanes);
    }
    return most;
}

// Calls work(task, channel, end channel, thread) for `tasks` short tasks, each cut into some channels at a time.
template <class Work>
void Executor::each_channels(const Step& step, int tasks, const Work& work) {
    const int parts = parts_for(tasks, pool_.size(), step.channels, kShortTasks);
    pool_.run(tasks * parts, [&](int task, int thread) {
        const int part = task % parts;
        work(task / parts, step.channels * part / parts, step.channels * (part + 1) / parts, thread);
    });
}

void Executor::run_stem(const Step& step, const int32_t* packed, const Image* images) {
    const Grid& grid = grid_of(step.output);
    const Plane& to = plane(step.output);
    const StemArgs args{packed, step.thresholds.data(), step.channels};
    // two rows more are read than computed, so tasks are long: two for every thread
    const int tiles = std::clamp(divide_up(2 * pool_.size(), grid.groups), 1, divide_up(grid.side, 2));
    const int lanes = static_cast<int>(grid.bytes) * 8;
    pool_.run(grid.groups * tiles, [&](int task, int thread) {
        uint8_t* bits = scratch(thread);
        PixelRows rows(kernels_, grid, images, task / tiles, bits + static_cast<size_t>(step.channels) * kLine);
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
                with_bytes(grid.bytes, [&](auto bytes) { scatter_bits(bits, step.channels, to.size, out, bytes); });
            }
        }
    });
}

void Executor::run_conv(const Step& step, const SparseLists& lists) {
    const Plane& own = plane(step.output);
    const int groups = grid_of(step.output).groups, rows = tile_rows(own), tiles = divide_up(own.side, rows);
    const int parts = parts_for(groups * tiles, pool_.size(), step.channels);
    pool_.run(groups * tiles * parts, [&](int task, int) {
        const int first = task / parts % tiles * rows;
        const size_t begin = static_cast<size_t>(first) * own.row;
        count(lists, task / parts / tiles,
              {begin, own.row, begin, own.row, own.row_bytes(), std::min(rows, own.side - first)}, task % parts, parts);
    });
}

void Executor::run_transposed_conv(const Step& step, const SparseLists& lists) {
    const bool joins = plan_.crosses(network_, step);
    const Plane from = plane(step.inputs[0]), to = joins ? plan_.joint_plane() : plane(step.output);
    const int entries = step.channels * step.taps(), groups = grid_of(step.inputs[0]).groups;
    const int parts = parts_for(groups * from.side, pool_.size(), divide_up(entries, kSorted));
    pool_.run(groups * from.side * parts, [&](int task, int) {
        const auto row = static_cast<size_t>(task / parts % from.side);
        count(lists, task / parts / from.side,
              {row * from.row, from.bytes, 2 * row * to.row, 2 * to.bytes, from.bytes, from.side}, task % parts, parts);
    });
    if (joins) join(step);
}

// Brings what a transposed convolution has written to the tiles of its level.
void Executor::join(const Step& step) {
    const Plane from = plan_.joint_plane();
    const Plane& to = plane(step.output);
    each_channels(step, 1, [&](int, int begin, int end, int thread) {
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
void Executor::count(const SparseLists& lists, int group_index, const StridedRanges& ranges, int part, int parts) {
    const int channels = static_cast<int>(lists.channels.size() + lists.dense_channels.size());
    const int first = channels * part / parts, last = channels * (part + 1) / parts;
    if (lists.dense_channels.empty())
        kernels_.count({group(group_index), lists.taps.data(), lists.channels.data()}, ranges, first, last);
    else
        kernels_.count_dense(
            {group(group_index), lists.taps.data(), lists.dense_channels.data(), lists.all, lists.levels}, ranges,
            first, last);
}

void Executor::run_pool(const Step& step) {
    const Plane& from = plane(step.inputs[0]);
    const Plane& to = plane(step.output);
    if (plan_.crosses(network_, step)) return pool_across(step);
    // cut as the convolution before was: a thread finds what it wrote
    const int rows = divide_up(tile_rows(from), 2), tiles = divide_up(to.side, rows);
    each_channels(step, grid_of(step.output).groups * tiles, [&](int task, int begin, int end, int) {
        const int g = task / tiles, first = task % tiles * rows;
        for (int row = first; row < std::min(first + rows, to.side); ++row) {
            const uint8_t* upper = at(g, step.inputs[0], 2 * row, 0) + static_cast<size_t>(begin) * from.size;
            uint8_t* out = at(g, step.output, row, 0) + static_cast<size_t>(begin) * to.size;
            for (int channel = begin; channel < end; ++channel, upper += from.size, out += to.size)
                kernels_.pool(upper, upper + from.row, out, to.side, to.bytes);
        }
    });
}

// Pooling to the deepest level from tiles of one position.
void Executor::pool_across(const Step& step) {
    const Plane& from = plane(step.inputs[0]);
    const Plane& to = plane(step.output);
    each_channels(step, 1, [&](int, int begin, int end, int thread) {
        uint64_t* fine = reinterpret_cast<uint64_t*>(scratch(thread));
        uint64_t* pooled = fine + raster_words(plan_.others);
        for (auto channel = static_cast<size_t>(begin); channel < static_cast<size_t>(end); ++channel) {
            read_raster(plan_.others, at(0, step.inputs[0], 0, 0) + channel * from.size, plan_.group_bytes, fine);
            pool_raster(plan_.deepest, fine, pooled);
            write_raster(plan_.deepest, pooled, at(0, step.output, 0, 0) + channel * to.size, plan_.group_bytes);
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
        each_channels(step, grid.groups,
                      [&](int group, int begin, int end, int) { copy_edges(grid, own, args(group, begin, end)); });
    each_channels(step, grid.groups, [&](int group, int begin, int end, int thread) {
        kernels_.halo(grid, own, args(group, begin, end), scratch(thread));
    });
}

namespace {

// Masks of kHeadLanes lanes at one position, from logits [class][lane].
void decide(const int32_t* logits, int classes, const int32_t* thresholds, uint8_t* masks) {
    if (classes == 1) {
        for (int i = 0; i < kHeadLanes; ++i) masks[i] = logits[i] >= thresholds[i];
        return;
    }
    for (int i = 0; i < kHeadLanes; ++i) {
        int best = 0;
        for (int c = 1; c < classes; ++c)
            if (logits[c * kHeadLanes + i] > logits[best * kHeadLanes + i]) best = c;
        masks[i] = static_cast<uint8_t>(best);
    }
}

// The row of an image's pixels that row `r` of a tile is; `columns` of them are inside the image, or none.
struct Line {
    int columns;
    size_t pixel;

    Line(const Image& image, const Tile& tile, int r, int side)
        : columns(tile.y + r < image.height ? std::clamp(image.width - tile.x, 0, side) : 0),
          pixel(static_cast<size_t>(tile.y + r) * static_cast<size_t>(image.width) + static_cast<size_t>(tile.x)) {}
};

}  // namespace

void Executor::run_head(const Step& step, const int32_t* packed, const Image* images) {
    const Grid& grid = plan_.grid(1);
    const HeadArgs args{plane(step.inputs[0]).size,
                        step.input_channels[0],
                        step.channels,
                        step.weights.data(),
                        packed,
                        step.base.data()};
    const int classes = step.channels, side = grid.side, blocks = static_cast<int>(grid.bytes) * 8 / kHeadLanes;
    pool_.run(grid.groups * side, [&](int task, int thread) {
        int32_t* logits = reinterpret_cast<int32_t*>(scratch(thread));                // [column][class][lane]
        uint8_t* masks = scratch(thread) + head_logits(step, grid) * sizeof *logits;  // [column][lane]
        const int g = task / side, r = task % side;
        for (int block = 0; block < blocks; ++block) {
            const int first = (g * blocks + block) * kHeadLanes, lanes = std::min(kHeadLanes, grid.lanes - first);
            if (lanes <= 0) break;
            const Tile* tiles = &grid.tiles[static_cast<size_t>(first)];
            int32_t thresholds[kHeadLanes] = {};
            for (int i = 0; i < lanes; ++i) thresholds[i] = images[tiles[i].image].threshold;
            for (int c = 0; c < side; ++c) {
                int32_t* own = logits + c * classes * kHeadLanes;
                kernels_.head(args, at(g, step.inputs[0], r, c) + block * kHeadLanes / 8, own);
                decide(own, classes, thresholds, masks + c * kHeadLanes);
            }
            for (int i = 0; i < lanes; ++i) {
                const Image& image = images[tiles[i].image];
                const Line line(image, tiles[i], r, side);
                for (int c = 0; c < line.columns; ++c)
                    image.mask[line.pixel + static_cast<size_t>(c)] = masks[c * kHeadLanes + i];
                for (int c = 0; image.logits && c < line.columns * classes; ++c)
                    image.logits[line.pixel * static_cast<size_t>(classes) + static_cast<size_t>(c)] =
                        logits[c * kHeadLanes + i];
            }
        }
    });
}

}  // namespace mbunet::cpu
