// 3x3 convolution by products of warpgroups where all weights of a block's output words fit into shared memory:
// sm_90a's own. All products of a fragment of pixels are begun one behind the other; while they run, the next tile is
// copied, and while this block makes bits of their sums, the products of the multiprocessor's other blocks run.
#pragma once

#include "resident_conv.hpp"

namespace mbunet::cuda {

struct WarpgroupConvArgs : ResidentConvArgs {
    uint32_t operands[kMostResidentSteps];  // by K step: low word of its pixels' descriptor, of tiles at address 0
};

// kPixelWords: of every input; 0 if they are others than 2 (joined or not), 4, 8 and 16. A fragment has a warpgroup of
// its own, or one warpgroup makes both, one after the other.
template <bool masked, int kPixelWords, bool joined, int kWarpgroups>
struct WarpgroupConv {
    using Args = WarpgroupConvArgs;
    static constexpr bool kBeginsEarly = true;
    static constexpr int kBlockThreads = kWarpgroups * kThreads;
    static constexpr int kBlocks = most_warpgroups(masked, kWarpgroups) / kWarpgroups;

    template <BitOp>
    MBUNET_DEVICE static void run(const WarpgroupConvArgs& args) {
        if constexpr (has_warpgroups()) {
            const Home home{args, block_index().y * args.block_words};
            const int warpgroup = own_warpgroup();
            const Own own(args, home.first_word);
            uint32_t starts[Sums::kWords][8];
            const auto load_starts_from = [&](int word) {
                repeat<Sums::kWords>([&](int w) { load_own_starts(starts[w], own.starts + (word + w) * 32); });
            };
            load_starts_from(0);
            home.run([&](const Tile& tile, uint32_t tiles, const auto& await, const auto& copy_next) {
                Place place(args, own, tile);
                await();
                MBUNET_ROLLED
                for (int word = 0; word < block_words(args); word += Sums::kWords) {
                    repeat<kFragments / kWarpgroups>([&](int f) {
                        Sums sums;
                        begin(args, sums, tiles + static_cast<uint32_t>((warpgroup + f) * kNextFragment),
                              home.slice(word), kOnePair ? Sums::kStepBytes : home.step_bytes());
                        if (f == 0 && word == 0) copy_next();
                        wgmma_wait<0>();
                        touch(sums.of);
                        place.store_fragment(args, f, sums.sign_bits(starts));
                    });
                    if (block_words(args) > Sums::kWords)
                        load_starts_from(word + Sums::kWords < args.block_words ? word + Sums::kWords : 0);
                    place.output += Sums::kWords;
                    place.pooled += Sums::kWords;
                }
            });
        }
    }

  private:
    using Sums = WarpgroupFragment<masked>;
    static constexpr bool kOnePair = has_one_pair(kPixelWords, kWarpgroups);
    static constexpr int kSteps = kPixelWords != 2 ? 0 : joined ? 5 : 3;  // where the inputs' pixels say it
    using Home = Residence<Sums, 3, kBlockThreads, kPixelWords, joined>;

    // Where the compiler knows that there are two, nothing is left of the loop over them.
    MBUNET_DEVICE static int block_words(const WarpgroupConvArgs& args) {
        return kOnePair ? Sums::kWords : args.block_words;
    }

    MBUNET_DEVICE static int own_warpgroup() { return kWarpgroups == 1 ? 0 : uniform(thread_index() / kThreads); }

    // Begins all products of a fragment.
    MBUNET_DEVICE static void begin(const WarpgroupConvArgs& args, Sums& sums, uint32_t tile, uint32_t slice,
                                    uint32_t step_bytes) {
        uint32_t weights = Sums::of_weights(slice);
        const auto next = [&](int k_step) {
            weights += step_bytes / 16;
            sums.add(args.operands[k_step] + tile / 16, weights, true);
        };
        touch(sums.of);
        wgmma_fence();
        sums.add(args.operands[0] + tile / 16, weights, false);
        if constexpr (kSteps) {
            repeat<kSteps - 1>([&](int i) { next(i + 1); });
        } else {
            MBUNET_UNROLLED_TWICE
            for (int k_step = 1; k_step < args.k_steps; ++k_step) next(k_step);
        }
        wgmma_commit();
    }

    // What is the thread's own in every tile. Thread t of a quad stores word t % 2 of row t / 2 of a fragment.
    struct Own {
        int y, x;                // in a tile
        uint32_t at, pooled_at;  // words from those of the tile's first pixel
        const int32_t* starts;   // of its channels of the block's first output word

        MBUNET_DEVICE Own(const WarpgroupConvArgs& args, int first_word) {
            const int lane = thread_index() % 32, width = args.extent.width, word = first_word + lane % 2;
            y = thread_index() % kThreads / 32 * 2 + lane % 4 / 2;
            x = own_warpgroup() * 8 + lane / 4;
            at = static_cast<uint32_t>(opaque((y * width + x) * args.output_words + word));
            pooled_at = static_cast<uint32_t>((y / 2 * (width / 2) + x / 2) * args.output_words + word);
            starts = args.starts + first_word * 32 + lane % 4 * 8;
        }
    };

    // Where the thread's words of a tile go.
    struct Place {
        uint32_t *output, *pooled;
        bool real[kFragments], pools;

        MBUNET_DEVICE Place(const WarpgroupConvArgs& args, const Own& own, const Tile& tile) {
            const int y = tile.y * kTileHeight, x = tile.x * kTileWidth, width = args.extent.width;
            repeat<kFragments>([&](int f) { real[f] = own.y < args.extent.height - y && own.x < width - x - f * 8; });
            pools = !(own.y % 2 || own.x % 2);
            output = opaque(image_at(args.output, tile.image, args.output_image_words) +
                            (y * width + x) * args.output_words) +
                     own.at;
            pooled = nullptr;
            if (!args.pooled) return;
            pooled = opaque(image_at(args.pooled, tile.image, args.pooled_image_words) +
                            (y / 2 * (width / 2) + x / 2) * args.output_words) +
                     own.pooled_at;
        }

        MBUNET_DEVICE void store_fragment(const WarpgroupConvArgs& args, int f, uint32_t bytes) const {
            const uint32_t bits = exchange(bytes, thread_index() % 32);
            if (real[f]) store(output + f * 8 * args.output_words, bits);
            if (!args.pooled) return;
            const uint32_t any = pool(bits, 2);
            if (real[f] && pools) store(pooled + f * 4 * args.output_words, any);
        }
    };
};

}  // namespace mbunet::cuda
