// The executor's last step: logits by blocks of lanes, then masks and logits by rows of the images.
#include <algorithm>

#include "doubling.hpp"
#include "execute.hpp"

namespace mbunet::cpu {

namespace {

// Logits of a block of lanes at one row of a tile's `side` positions.
size_t head_logits(const Step& step, int side) {
    return static_cast<size_t>(step.channels) * static_cast<size_t>(side) * kHeadLanes;
}

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

// Mask and logits of `columns` pixels from `pixel` on, of logits [class][column], `width` apart.
void write_row(const int32_t* logits, int classes, size_t width, const Image& image, size_t pixel, int columns) {
    for (int x = 0; x < columns; ++x, ++pixel) {
        const int32_t* own = logits + x;
        int best = 0;
        for (int c = 1; c < classes; ++c)
            if (own[static_cast<size_t>(c) * width] > own[static_cast<size_t>(best) * width]) best = c;
        image.mask[pixel] = static_cast<uint8_t>(classes == 1 ? *own >= image.threshold : best);
        for (int c = 0; image.logits && c < classes; ++c)
            image.logits[pixel * static_cast<size_t>(classes) + static_cast<size_t>(c)] =
                own[static_cast<size_t>(c) * width];
    }
}

}  // namespace

size_t Executor::head_bytes(const Step& step, int side) {
    return head_logits(step, side) * sizeof(int32_t) + static_cast<size_t>(side) * kHeadLanes;
}

// Calls work(group, row, block of lanes, logits [column][class][lane], masks [column][lane], thread) for all of them;
// the masks' place is free.
template <class Work>
void Executor::each_logits(const Step& step, const int32_t* packed, const Work& work) {
    const Plane& from = plane(step.inputs[0]);
    const Grid& grid = grid_of(step.inputs[0]);
    const HeadArgs args{from.size, bit_planes(step.inputs[0]),   step.channels,
                        packed,    packed + step.weights.size(), step.base.data()};
    const int blocks = static_cast<int>(grid.bytes) * 8 / kHeadLanes;
    pool_.run(grid.groups * from.side, [&](int task, int thread) {
        int32_t* logits = reinterpret_cast<int32_t*>(scratch(thread));
        uint8_t* masks = scratch(thread) + head_logits(step, from.side) * sizeof *logits;
        const int g = task / from.side, r = task % from.side;
        for (int block = 0; block < blocks; ++block) {
            const int first = (g * blocks + block) * kHeadLanes, lanes = std::min(kHeadLanes, grid.lanes - first);
            if (lanes <= 0) break;
            for (int c = 0; c < from.side; ++c)
                kernels_.head(args, at(g, step.inputs[0], r, c) + block * kHeadLanes / 8,
                              logits + c * step.channels * kHeadLanes);
            work(&grid.tiles[static_cast<size_t>(first)], lanes, r, logits, masks);
        }
    });
}

void Executor::run_head(const Step& step, const int32_t* packed, const Image* images) {
    if (step.doublings) return run_coarse_head(step, packed, images);
    const int classes = step.channels, side = plane(step.inputs[0]).side;
    each_logits(step, packed, [&](const Tile* tiles, int lanes, int r, const int32_t* logits, uint8_t* masks) {
        int32_t thresholds[kHeadLanes] = {};
        for (int i = 0; i < lanes; ++i) thresholds[i] = images[tiles[i].image].threshold;
        for (int c = 0; c < side; ++c)
            decide(logits + c * classes * kHeadLanes, classes, thresholds, masks + c * kHeadLanes);
        for (int i = 0; i < lanes; ++i) {
            const Image& image = images[tiles[i].image];
            const Line line(image, tiles[i], r, side);
            for (int c = 0; c < line.columns; ++c)
                image.mask[line.pixel + static_cast<size_t>(c)] = masks[c * kHeadLanes + i];
            for (int c = 0; image.logits && c < line.columns * classes; ++c)
                image.logits[line.pixel * static_cast<size_t>(classes) + static_cast<size_t>(c)] =
                    logits[c * kHeadLanes + i];
        }
    });
}

// A head at lower resolution: all its logits first, then, row by row, those of the image's resolution.
void Executor::run_coarse_head(const Step& step, const int32_t* packed, const Image* images) {
    const Grid& grid = plan_.grid(1);
    const int classes = step.channels, side = plane(step.inputs[0]).side, scale = 1 << step.doublings;
    const int height = grid.height / scale, width = grid.width / scale;
    int32_t* coarse = reinterpret_cast<int32_t*>(arena_ + plan_.logits());  // [image][row][class][column]
    each_logits(step, packed, [&](const Tile* tiles, int lanes, int r, const int32_t* logits, uint8_t*) {
        for (int i = 0; i < lanes; ++i) {
            const Tile& tile = tiles[i];
            const int row = tile.image * height + tile.y / scale + r;
            for (int k = 0; k < classes; ++k) {
                int32_t* out = coarse + static_cast<size_t>(row * classes + k) * static_cast<size_t>(width) +
                               static_cast<size_t>(tile.x / scale);
                for (int c = 0; c < side; ++c) out[c] = logits[(c * classes + k) * kHeadLanes + i];
            }
        }
    });
    pool_.run(grid.images * height, [&](int task, int thread) {
        const Image& image = images[task / height];
        const CoarseLogits own{
            coarse + static_cast<size_t>(task / height * height * classes) * static_cast<size_t>(width), height, width,
            classes};
        for (int y = task % height * scale; y < std::min((task % height + 1) * scale, image.height); ++y) {
            const int32_t* row = fine_row(own, step.doublings, y, reinterpret_cast<int32_t*>(scratch(thread)));
            write_row(row, classes, static_cast<size_t>(grid.width), image,
                      static_cast<size_t>(y) * static_cast<size_t>(image.width), image.width);
        }
    });
}

}  // namespace mbunet::cpu
