// First layer: 3x3 over uint8 RGB with int16 weights, exact in int32, on integer Tensor Cores.
//
// A weight is 256 times a signed high byte plus an unsigned low byte, so two products of bytes give the sum. Its 27
// factors fit one product of K = 32: word j < 8 along K holds the colors of tap j and, in the fourth byte, for j < 3
// color j of tap 8.
#pragma once

#include "heuristics.hpp"
#include "levels.hpp"
#include "sums.hpp"

namespace mbunet::cuda {

struct StemArgs {
    const uint32_t* weights;  // [output word][block][lane][4]: high bytes of K words t and t + 4, then the low bytes
    const int32_t* accumulator_start;  // [output word][threshold][32]: -theta
    const ImageParams* params;         // by image
    const uint8_t* pixels;
    uint32_t* output;
    int height, width, output_words;
    const int32_t* starts;  // [output word][kStartWords], of one threshold
    TileWalk walk;          // of pairs of tiles, one below the other
};

// The pixels that a pair of tiles reads, a word each: red, green, blue, and a byte whose weights are zero. A thread
// copies four neighbours of a row at once.
class StemTile {
  public:
    static constexpr SharedTile kShared{3};
    static constexpr int kGroup = 4, kGroups = divide_up(kShared.width, kGroup), kPitch = kGroups * kGroup;
    static constexpr int kRows = kShared.height + kTileHeight, kBytes = kRows * kPitch * 4;
    static constexpr int kLowerTile = kTileHeight * kPitch * 4;  // bytes to the second one
    static_assert(kRows * kGroups <= kThreads);

    // Four pixels as they are under way: `skew` bytes behind where their words begin, or each a word already.
    struct Group {
        static constexpr uint32_t kWordEach = 4;
        Words4 words;
        uint32_t skew;
    };

    // The thread's four of a tile. Nothing waits for them yet, but at an image's edge.
    MBUNET_DEVICE static Group load_group(const StemArgs& args, const Tile& tile) {
        const int y = tile.y * 2 * kTileHeight - 1 + row(), x = tile.x * kTileWidth - 1 + column();
        if (row() >= kRows || !is_within(y, args.height)) return {{}, Group::kWordEach};
        const ImageParams params = load_params(args.params + tile.image);
        const uint8_t* line = opaque(image_at(args.pixels, tile.image, args.height * args.width * 3)) +
                              static_cast<uint32_t>((y < params.height ? y : params.height - 1) * params.width * 3);
        if (x >= 0 && x + kGroup + 1 < params.width) return load_inner(line + static_cast<uint32_t>(x * 3));
        uint32_t pixels[kGroup];
        repeat<kGroup>([&](int i) {
            const int from = x + i < params.width ? x + i : params.width - 1;
            pixels[i] = is_within(x + i, args.width) ? load_pixel(line + from * 3) : 0;
        });
        return {{pixels[0], pixels[1], pixels[2], pixels[3]}, Group::kWordEach};
    }

    MBUNET_DEVICE static void store_group(uint32_t tile, const Group& group) {
        if (row() >= kRows) return;
        store_shared(tile + static_cast<uint32_t>((row() * kPitch + column()) * 4),
                     group.skew == Group::kWordEach ? group.words : unpack(group));
    }

  private:
    MBUNET_DEVICE static int row() { return thread_index() / kGroups; }
    MBUNET_DEVICE static int column() { return thread_index() % kGroups * kGroup; }

    MBUNET_DEVICE static uint32_t load_pixel(const uint8_t* at) {
        return load(at) | static_cast<uint32_t>(load(at + 1)) << 8 | static_cast<uint32_t>(load(at + 2)) << 16;
    }

    // Four pixels behind which there are two more: all words with a byte of theirs are words of the image.
    MBUNET_DEVICE static Group load_inner(const uint8_t* at) {
        const auto skew = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(at) % 4);
        const auto* words = reinterpret_cast<const uint32_t*>(at - skew);
        return {{load(words), load(words + 1), load(words + 2), load(words + 3)}, skew};
    }

    MBUNET_DEVICE static Words4 unpack(const Group& group) {
        const uint32_t on = 0x3210 + 0x1111 * group.skew;
        const uint32_t first = permute_bytes(group.words.x, group.words.y, on);
        const uint32_t second = permute_bytes(group.words.y, group.words.z, on);
        const uint32_t third = permute_bytes(group.words.z, group.words.w, on);
        return {first, permute_bytes(first, second, 0x6543), permute_bytes(second, third, 0x5432), third >> 8};
    }
};

// Blocks stay: a thread has its weights of some output words in registers, and the pixels of the next tile are under
// way while those of this one are multiplied. Shared memory has two tiles, and behind them what sums start at.
template <int kPlanes, int kWords>  // of the output; output words of a block
struct Stem {
    using Args = StemArgs;
    static constexpr int kBlocks = kPlanes > 1 ? kResidentBlocks : 5;  // of a multiprocessor
    static constexpr bool kBeginsEarly = true;
    static constexpr int kStarts = 2 * StemTile::kBytes, kSharedBytes = kStarts + kWords * kStartWords * 4;

    template <BitOp>
    MBUNET_DEVICE static void run(const StemArgs& args) {
        const Block block = block_index();
        const int word = block.y * kWords;
        Weights weights;
        weights.load(args, word);
        if (kPlanes == 1 && thread_index() < kWords * kStartWords / 4) {
            const int at = thread_index() * 4;
            store_shared(start(at), load(reinterpret_cast<const Words4*>(args.starts + word * kStartWords + at)));
        }
        wait_for_inputs();
        uint32_t here = shared_memory(), there = here + StemTile::kBytes;
        Tile tile = args.walk.at(block.x);
        StemTile::store_group(here, StemTile::load_group(args, tile));
        do {
            barrier();  // everyone's pixels of this tile are there, and nobody reads the last one any more
            const Tile next = args.walk.after(tile);
            StemTile::Group group{};
            if (args.walk.has(next)) group = StemTile::load_group(args, next);
            MBUNET_ROLLED
            for (int lower = 0; lower < 2; ++lower)
                multiply(args, weights, here + static_cast<uint32_t>(lower * StemTile::kLowerTile), tile.image,
                         (2 * tile.y + lower) * kTileHeight, tile.x * kTileWidth, word);
            StemTile::store_group(there, group);
            tile = next;
            const uint32_t last = here;
            here = there;
            there = last;
        } while (args.walk.has(tile));
    }

  private:
    struct Weights {
        uint32_t high[kWords * 4][2], low[kWords * 4][2];

        MBUNET_DEVICE void load(const StemArgs& args, int word) {
            repeat<kWords * 4>([&](int n) {
                const auto* from = reinterpret_cast<const Words4*>(args.weights) + (word * 4 + n) * 32;
                const Words4 own = cuda::load(from + thread_index() % 32);
                high[n][0] = own.x, high[n][1] = own.y, low[n][0] = own.z, low[n][1] = own.w;
            });
        }
    };

    // Where word `at` of the starts is.
    MBUNET_DEVICE static uint32_t start(int at) { return shared_memory() + static_cast<uint32_t>(kStarts + at * 4); }

    // Of the tile at (y, x) of an image.
    MBUNET_DEVICE static void multiply(const StemArgs& args, const Weights& weights, uint32_t pixels, int image, int y,
                                       int x, int word) {
        const int warp = thread_index() / 32, lane = thread_index() % 32;
        uint32_t a[kFragments][4];
        load_factors(a, pixels, warp, lane);
        LevelWords words[kWords];
        repeat<kWords>([&](int w) { words[w] = output_word(args, a, weights, lane, word, w); });
        const Pixel pixel = pixel_of(warp, lane);
        y += pixel.y;
        x += pixel.x;
        if (y >= args.height || x >= args.width) return;
        const int pixel_words = kPlanes * args.output_words;
        uint32_t* output = opaque(image_at(args.output, image, args.height * args.width * pixel_words));
        uint32_t* to = output + static_cast<uint32_t>((y * args.width + x) * pixel_words + word);
        if constexpr (kWords == 2)
            store(reinterpret_cast<Words2*>(to), Words2{words[0].high, words[1].high});
        else
            store(to, words[0].high);
        if constexpr (kPlanes > 1) store(to + args.output_words, words[0].low);
    }

    // Of fragment f: word lane % 4 (+ 4 in the second half) along K of the pixel in fragment row lane / 4 (+ 8).
    MBUNET_DEVICE static void load_factors(uint32_t (&a)[kFragments][4], uint32_t pixels, int warp, int lane) {
        const int t = lane % 4, pixel = 2 * warp * StemTile::kPitch + lane / 4;
        const auto tap = [&](int i) {
            return pixels + static_cast<uint32_t>((pixel + i / 3 * StemTile::kPitch + i % 3) * 4);
        };
        const uint32_t first = tap(t), second = tap(t + 4), last = tap(8);
        const uint32_t color = t < 3 ? 0x4210 + static_cast<uint32_t>(t << 12) : 0x3210;  // of tap 8, in fourth place
        repeat<kFragments>([&](int f) {
            repeat<2>([&](int lower) {
                const auto on = static_cast<uint32_t>((lower * StemTile::kPitch + f * 8) * 4);
                a[f][lower] = permute_bytes(load_shared(first + on), load_shared(last + on), color);
                a[f][2 + lower] = load_shared(second + on);
            });
        });
    }

    MBUNET_DEVICE static LevelWords output_word(const StemArgs& args, const uint32_t (&a)[kFragments][4],
                                                const Weights& weights, int lane, int word, int w) {
        if constexpr (kPlanes == 1) {  // as sign_bytes, as soon as a sum is there
            uint32_t bytes[4] = {};
            each_sum(a, weights, lane, w, [&](int i, int, int32_t sum) { bytes[i] = push_sign(bytes[i], sum); });
            const uint32_t even = permute_bytes(bytes[0], bytes[2], 0x3430), odd = bytes[1] | bytes[3] << 16;
            return {exchange(~(even | odd << 8), lane), 0};
        } else {
            int32_t sums[4][8];
            each_sum(a, weights, lane, w, [&](int i, int k, int32_t sum) { sums[i][k] = sum; });
            return two_planes(lane, [&](int level) {
                int32_t start[8];
                load_starts(start, args.accumulator_start + ((word + w) * 3 + level) * 32, lane);
                return sign_bytes([&](int i, int k) { return sums[i][k] + start[k]; });
            });
        }
    }

    // Calls visit(i, k, sum) for pixel i and channel k of sign_bytes, of a pixel the last channel first.
    template <class Visit>
    MBUNET_DEVICE static void each_sum(const uint32_t (&a)[kFragments][4], const Weights& weights, int lane, int w,
                                       const Visit& visit) {
        repeat<4>([&](int i) {
            const int block = 3 - i, n = w * 4 + block;
            const int32_t zeros[4] = {};
            int32_t begin[4] = {};  // of the sums too: what the low bytes add is not scaled
            if constexpr (kPlanes == 1) {
                const Words4 own = load_shared4(start((n * 4 + lane % 4) * 4));
                const uint32_t all[4] = {own.x, own.y, own.z, own.w};
                repeat<4>([&](int c) { begin[c] = static_cast<int32_t>(all[c]); });
            }
            repeat<kFragments>([&](int f) {
                int32_t high[4], low[4];
                imma_u8s8(high, a[f], weights.high[n], zeros);
                imma_u8u8(low, a[f], weights.low[n], begin);
                repeat<4>([&](int c) {
                    const int last = 3 - c;
                    visit(f * 2 + last / 2, block * 2 + last % 2, 256 * high[last] + low[last]);
                });
            });
        });
    }
};

}  // namespace mbunet::cuda
