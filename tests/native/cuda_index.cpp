// The kernels' index arithmetic by itself: what is written once, what comes back where it was put, which banks meet.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "../../csrc/cuda/dispatch.hpp"

namespace {

using namespace mbunet;
using namespace mbunet::cuda;

void require(bool holds, const char* what, int at = 0) {
    if (holds) return;
    std::printf("fails: %s (%d)\n", what, at);
    std::exit(1);
}

// Lanes that one phase of a 16-byte access serves meet in no bank.
template <class Address>
bool free_of_conflicts(int lanes, Address address) {
    for (int first = 0; first < lanes; first += 8) {
        std::set<int> banks;
        for (int lane = first; lane < first + 8; ++lane) banks.insert(address(lane) / 16 % 8);
        if (banks.size() != 8) return false;
    }
    return true;
}

// Tiles cover an image, none of them twice.
void grids() {
    for (const int height : {1, 8, 9, 100, 4096})
        for (const int width : {1, 16, 17, 300}) {
            std::set<std::pair<int, int>> origins;
            for (int tile = 0; tile < tiles_of(height, width); ++tile) {
                const Pixel origin = origin_of(tile, width);
                require(
                    origin.y % kTileHeight == 0 && origin.y < height && origin.x % kTileWidth == 0 && origin.x < width,
                    "tiles lie in the image", tile);
                origins.insert({origin.y, origin.x});
            }
            require(
                origins.size() == static_cast<size_t>(divide_up(height, kTileHeight) * divide_up(width, kTileWidth)),
                "tiles cover an image", height);
        }
}

// Blocks that stay take every tile of a batch, none of them twice, whatever their number.
void walks() {
    for (const int images : {1, 3})
        for (const int height : {1, 9, 40})
            for (const int width : {16, 17, 100})
                for (const int blocks : {1, 2, 3, 7, 64, 1000}) {
                    std::set<std::tuple<int, int, int>> seen;
                    const TileWalk walk(images, height, width, blocks);
                    int taken = 0;
                    for (int block = 0; block < blocks && block < walk.count(); ++block)
                        for (Tile tile = walk.at(block); walk.has(tile); tile = walk.after(tile), ++taken) {
                            require(tile.y < walk.down && tile.x < walk.across, "a walk stays in the image", blocks);
                            seen.insert({tile.image, tile.y, tile.x});
                        }
                    require(taken == images * tiles_of(height, width) && seen.size() == static_cast<size_t>(taken),
                            "every tile is taken once", blocks);
                }
}

// Two sums that begin at pair_start have in their highest bits whether they would not be negative.
void pair_starts() {
    constexpr int kMost = (kMostResidentSteps * 2 / 9 * 9) * 128;  // what nine taps count
    for (const int32_t start : {kNever, -kMost - 1, -kMost, -1, 0, 1, kMost, 1 << 30})
        for (const int32_t upper : {-kMost, -1, 0, 1, kMost})
            for (const int32_t lower : {-kMost, -1, 0, 1, kMost}) {
                const uint32_t sums = pair_start(start) + static_cast<uint32_t>(upper + lower * 65536);
                require((sums >> 15 & 1) == (start + upper >= 0), "the upper pixel's sum", start);
                require(sums >> 31 == (start + lower >= 0), "the lower pixel's sum", start);
            }
}

Launch launch_of(const Layer& layer, int images, int side) {
    Launch launch{};
    launch.layer = &layer;
    launch.images = images;
    launch.height = launch.width = side;
    return launch;
}

// Where blocks stay: with all their output words where that leaves enough of them, with fewer where tiles are few, not
// at all where weights are large or every tile has a block of its own.
void residents() {
    const Device device{BitOp::kAnd, 132, 227 * 1024, false, true};
    const auto blocks = [](std::vector<int> inputs, int images, int side, const Device& device) {
        Layer layer{Op::kConv, BitOp::kAnd, 64, std::move(inputs)};
        layer.masked = true;
        const KSchedule schedule(conv_shape(layer));
        layer.k_steps = static_cast<int>(schedule.chunks.size()) / 2;
        return conv_blocks(launch_of(layer, images, side), schedule, pixel_words(layer.channels), device);
    };
    const ConvBlocks full = blocks({64}, 8, 512, device);
    require(full.resident && full.block_words == 2 && full.count == 132 * kResidentBlocks, "64 channels stay");
    require(!blocks({512}, 8, 64, device).resident, "large weights stream");
    require(!blocks({64}, 1, 128, device).resident, "a tile for every block streams");
    const auto by_warpgroups = [&](std::vector<int> inputs, int channels, int images, int side) {
        Layer layer{Op::kConv, BitOp::kAnd, channels, std::move(inputs)};
        layer.masked = layer.by_warpgroups = true;
        const KSchedule schedule(conv_shape(layer));
        layer.k_steps = static_cast<int>(schedule.chunks.size()) / 2;
        return warpgroup_blocks(launch_of(layer, images, side), schedule, pixel_words(channels), device);
    };
    const ConvBlocks fine = by_warpgroups({64}, 64, 8, 512), coarse = by_warpgroups({512}, 512, 8, 64);
    require(fine.resident && fine.warpgroups == 1 && fine.count == 4 * 132, "a block has a warpgroup");
    require(coarse.resident && coarse.warpgroups == 2 && coarse.count == 2 * 132 / 8, "two share large weights");
    require(by_warpgroups({128}, 128, 8, 256).block_words == 4, "pixels are copied once for all output words");
    require(by_warpgroups({64}, 128, 8, 256).block_words == 2, "a pair of words of inputs of 64 channels");
    require(by_warpgroups({512, 512}, 256, 8, 64).count == 132 / 4, "the largest weights fill a multiprocessor");
    require(by_warpgroups({256}, 256, 1, 128).warpgroups == 2, "two share weights where tiles are few");
    require(!by_warpgroups({2048}, 512, 8, 64).resident, "larger weights stream");
    const Device orin{BitOp::kXor, 8, 163 * 1024, false, false};
    require(blocks({64, 64}, 1, 512, orin).resident, "two inputs of 64 channels stay on 163 KiB");
}

// A transposed convolution's blocks: all output words where tiles are many, fewer where that leaves more to do.
void transposed() {
    const Device device{BitOp::kAnd, 132, 227 * 1024, false, true};
    const auto blocks = [&](int channels, int images, int side) {
        Layer layer{Op::kConv, BitOp::kAnd, channels, {channels}};
        layer.kernel = 1;
        layer.up = 2;
        const KSchedule schedule(conv_shape(layer));
        layer.k_steps = schedule.filled_chunks();
        require(layer.k_steps == divide_up(channels, 128), "no product is of nothing", channels);
        const int columns = 4 * pixel_words(channels);
        const UpBlocks found = up_blocks(launch_of(layer, images, side), schedule, columns, device);
        require(columns % found.block_words == 0 && found.block_words % (2 * found.words) == 0,
                "blocks and their warps divide the output words", channels);
        return found;
    };
    const UpBlocks full = blocks(64, 8, 256), few = blocks(512, 1, 32);
    require(full.words == 4 && full.block_words == 8 && full.count == 132 * kResidentBlocks, "pixels are copied once");
    require(few.words == 2 && few.block_words == 4 && few.count == 8, "few tiles are shared by output words");
    require(blocks(32, 8, 256).words == 2, "an output row of two words is stored at once");
}

// The largest launches, which images of any shape lead to, stay within a grid's dimensions.
void limits() {
    constexpr int kLong = 1 << 22;  // times 16 are the session's 64 Mi pixels
    for (const auto& [op, upsamples] : {std::pair{Op::kStem, false},
                                        {Op::kConv, false},
                                        {Op::kPool, false},
                                        {Op::kConv, true},
                                        {Op::kGate, false},
                                        {Op::kHead, false}})
        for (const bool masked : {false, true})
            for (const auto& [images, height, width, channels] :
                 {std::tuple{1, kLong, 16, 800}, {1, 16, kLong, 800}, {512, 512, 256, 4096}}) {
                Layer layer{op, BitOp::kXor, channels, {128}};
                layer.masked = masked;
                layer.k_steps = 9;
                layer.kernel = upsamples ? 1 : 3;
                layer.up = upsamples ? 2 : 1;
                Launch launch{};
                launch.layer = &layer;
                launch.images = images;
                launch.height = height;
                launch.width = width;
                dispatch(launch, {BitOp::kXor, 1, 0, false, false},
                         [&]<class Kernel>(const Grid& grid, const typename Kernel::Args&) {
                             require(grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.y < 65536 && grid.z < 65536,
                                     "a grid is as CUDA allows it", static_cast<int>(op));
                             return 0;
                         });
            }
    // Turing offers a block the least, 64 KiB: enough for twice the paper's width
    Layer widest{Op::kConv, BitOp::kXor, 512, {1024, 1024}};
    widest.masked = true;
    require(shared_bytes(widest) <= 64 * 1024, "twice the paper's width fits everywhere");
    widest.input_channels = {512, 512};
    widest.input_planes = 2;
    widest.general = true;
    require(shared_bytes(widest) <= 64 * 1024, "the paper's width with two planes fits everywhere");
}

// Every pixel of a tile belongs to one fragment row, and is stored by one thread.
void tiles() {
    const SharedTile shared_tile(1);
    std::set<int> rows, stored;
    for (int warp = 0; warp < kWarps; ++warp)
        for (int lane = 0; lane < 32; ++lane) {
            for (int f = 0; f < kFragments && lane < 16; ++f)
                rows.insert(row_offset(warp, lane, shared_tile.width) + f * kNextFragment);
            const Pixel pixel = pixel_of(warp, lane);
            require(pixel.y >= 0 && pixel.y < kTileHeight && pixel.x >= 0 && pixel.x < kTileWidth,
                    "pixels in the tile");
            stored.insert(pixel.y * kTileWidth + pixel.x);
            // what a thread stores it also computed, as fragment f and half r of word index 2 f + r = lane % 4
            const int owner =
                row_offset(warp, lane / 4 + lane % 2 * 8, shared_tile.width) + lane % 4 / 2 * kNextFragment;
            require(owner == (pixel.y * shared_tile.width + pixel.x) * 16, "a quad computes the pixels that it stores",
                    lane);
        }
    require(rows.size() == kTileWidth * kTileHeight && *rows.rbegin() == (kTileWidth * kTileHeight - 1) * 16,
            "every pixel of a tile is a fragment row");
    require(stored.size() == kTileWidth * kTileHeight, "every pixel of a tile is stored once");
}

// The eight channels of a thread are a byte of the output word, in order, and all threads have all 32.
void channels() {
    for (int t = 0; t < 4; ++t)
        for (int k = 0; k < 8; ++k)
            require(channel_of(k / 2, 2 * t + k % 2) == 8 * t + k, "sign_byte's order is that of the channels", k);
}

// ldmatrix reads rows of eight pixels at any tap, lanes copy pieces of pixels as they lie in the tensor.
void banks() {
    for (const int kernel : {1, 3}) {
        const SharedTile shared_tile(kernel);
        for (int warp = 0; warp < kWarps; ++warp)
            require(free_of_conflicts(16, [&](int lane) { return row_offset(warp, lane, shared_tile.width); }),
                    "ldmatrix meets no bank twice", warp);
        for (const int words : {4, 8, 16, 32, 64, 128}) {
            const int slabs = slabs_of(words), pitch = slab_pitch(shared_tile.pixels, slabs);
            require(pitch >= shared_tile.pixels && pitch < shared_tile.pixels + 8, "slabs do not overlap", words);
            require(free_of_conflicts(shared_tile.pixels / 8 * 8 * slabs,
                                      [&](int i) { return piece_offset(i / slabs, i % slabs, words, pitch); }),
                    "copies meet no bank twice", words);
        }
        for (const int words : {1, 2}) {  // copied piece by piece, which lie behind each other
            const int pieces = pixels_per_chunk(words);
            for (int i = 0; i < shared_tile.pixels * pieces; ++i)
                require(piece_offset(i / pieces, i % pieces, words, 0) == i * 4 * words,
                        "copies of narrow pixels meet no bank twice", words);
        }
    }
}

// Copying a shared tile writes every chunk of it once, whatever the number of channels, and never behind its end.
void shared_tiles() {
    for (const int count : {1, 32, 33, 64, 65, 128, 129, 152, 256, 300, 512, 1000, 1024}) {
        const KSchedule schedule(ConvShape{{count, 24}});
        const SharedTile shared_tile(3);
        const int words = pixel_words(count), slabs = slabs_of(words);
        const int pieces = words < 4 ? pixels_per_chunk(words) : slabs, bytes = words < 4 ? 4 * words : 16;
        std::vector<int> written(static_cast<size_t>(schedule.shared_tile_bytes / 4), 0);
        for (int pixel = 0; pixel < shared_tile.pixels; ++pixel)
            for (int piece = 0; piece < pieces; ++piece)
                for (int byte = 0; byte < bytes; byte += 4)
                    ++written.at(static_cast<size_t>(
                        (schedule.offsets[0] + piece_offset(pixel, piece, words, schedule.pitches[0]) + byte) / 4));
        int sum = 0;
        for (int n : written) {
            require(n <= 1, "a word of a shared tile is written once", count);
            sum += n;
        }
        require(sum == shared_tile.pixels * slabs * 4, "all of a shared tile is written", count);
        for (int i = schedule.offsets[1] / 4; i < schedule.shared_tile_bytes / 4; ++i)
            require(!written[static_cast<size_t>(i)], "shared tiles do not overlap", count);
    }
}

// Of two inputs that share a slab each has its half of every chunk.
void joined_tiles() {
    const KSchedule schedule(ConvShape{{64, 40}});
    std::set<int> written;
    for (size_t input = 0; input < 2; ++input)
        for (int pixel = 0; pixel < SharedTile(3).pixels; ++pixel)
            written.insert(schedule.offsets[input] + piece_offset(pixel, 0, 2, schedule.pitches[input]));
    require(schedule.joined && written.size() == 2 * static_cast<size_t>(SharedTile(3).pixels) &&
                *written.rbegin() + 8 <= schedule.shared_tile_bytes,
            "joined tiles do not overlap");
    require(schedule.part_steps == 5, "nine taps of two inputs of 64 channels are five K steps");
}

// A chunk's words lie where their taps were copied to.
void require_place(const ConvShape& shape, const KSchedule& schedule, const KChunk& chunk, size_t plane, int w) {
    const KChunk::Word& word = chunk.words[static_cast<size_t>(w)];
    const size_t input = shape.input_channels.size() > 1 && word.channel >= shape.input_channels[0];
    const size_t tile = input * static_cast<size_t>(shape.planes) + plane;
    const int channel = word.channel - (input ? shape.input_channels[0] : 0);
    const int words = pixel_words(shape.input_channels[input]);
    // the first pixel of the tile: pixel + i is what lies as piece i of a narrow pixel's chunk
    const int pixel = word.tap / shape.kernel * SharedTile(shape.kernel).width + word.tap % shape.kernel;
    const int at = chunk.offset - (schedule.joined ? 0 : schedule.offsets[tile]);
    const bool same = schedule.joined ? at == pixel * 16 && w % 2 * 32 == channel && (w >= 2) == (input == 1)
                      : words < 4     ? at / 16 + w / words == pixel && w % words * 32 == channel
                                      : at == piece_offset(pixel, channel / 128, words, schedule.pitches[tile]) &&
                                            w * 32 == channel % 128;
    require(same, "a chunk's word lies where its tap was copied to", word.tap);
}

// Every part of a layer, of each segment and plane, holds every tap and every channel once.
void chunks_of(const ConvShape& shape) {
    const KSchedule schedule(shape);
    int total = 0;
    for (int n : shape.input_channels) total += n;
    const size_t per_part = static_cast<size_t>(2 * schedule.part_steps);
    require(schedule.chunks.size() == per_part * static_cast<size_t>(shape.segments * shape.planes),
            "parts are equally long, and chunks come in pairs");
    for (size_t part = 0; part * per_part < schedule.chunks.size(); ++part) {
        std::vector<int> seen(static_cast<size_t>(shape.kernel * shape.kernel * total), 0);
        const size_t plane = part % static_cast<size_t>(shape.planes);
        for (size_t i = 0; i < per_part; ++i) {
            const KChunk& chunk = schedule.chunks[part * per_part + i];
            require(chunk.segment == static_cast<int>(part) / shape.planes, "segments follow each other");
            for (int w = 0; w < 4; ++w) {
                const KChunk::Word& word = chunk.words[static_cast<size_t>(w)];
                if (word.tap < 0) continue;
                require_place(shape, schedule, chunk, plane, w);
                for (int c = word.channel; c < std::min(word.channel + 32, word.end); ++c)
                    ++seen[static_cast<size_t>(word.tap * total + c)];
            }
        }
        for (int n : seen) require(n == 1, "every weight is in one chunk of a part");
    }
}

void chunks() {
    for (const int kernel : {1, 3})
        for (const int planes : {1, 2})
            for (const int segments : {1, 3})
                for (const std::vector<int>& inputs : std::vector<std::vector<int>>{{1},
                                                                                    {32},
                                                                                    {40},
                                                                                    {64},
                                                                                    {100},
                                                                                    {128},
                                                                                    {256},
                                                                                    {3, 3},
                                                                                    {33, 100},
                                                                                    {64, 64},
                                                                                    {512, 512},
                                                                                    {152, 19}})
                    chunks_of({inputs, kernel, planes, segments});
}

}  // namespace

int main() {
    grids();
    walks();
    pair_starts();
    residents();
    transposed();
    limits();
    tiles();
    channels();
    banks();
    shared_tiles();
    joined_tiles();
    chunks();
    std::puts("holds");
}
