// Every other convolution of bits: of several segments with an exponent for each channel, on one or two planes, with a
// kernel of one or three rows and columns at either resolution, to levels, with a residual.
//
// K steps come in parts, one for a segment and a plane of the inputs. What is counted of a part is added, doubled as
// often as its segment, its plane and the bit operation want it (conv_weights.hpp), to a total. Thresholds are compared
// with the total alone, so how parts are counted is the main loop's own business.
#pragma once

#include "levels.hpp"
#include "main_loop.hpp"

namespace mbunet::cuda {

struct GeneralConvArgs : MainLoopArgs<kMostInputs * kMostPlanes> {
    const int32_t* shifts;     // [part][output word][32]
    const int32_t* worths;     // [output word][32]: what a one of the residual adds, in its least significant plane
    const uint32_t* residual;  // or null
    int part_steps;            // K steps of a part
    int input_planes, output_planes;
    int up;
};

template <bool masked, int kernel>
struct GeneralConv {
    using Args = GeneralConvArgs;
    static constexpr bool kBeginsEarly = true;
    static constexpr int kWords = most_output_words(true);

    template <BitOp bit_op>
    MBUNET_DEVICE static void run(const GeneralConvArgs& args) {
        using Words = Sums<bit_op, masked, kWords>;
        const Block block = block_index();
        const int word = block.y, image = block.z;
        const Pixel origin = origin_of(block.x, args.extent.width);
        MainLoop<Words, kernel, Args> loop(args, image, origin.y, origin.x, word);
        Words sums;
        sums.clear();
        Totals totals{thread_index() / 32, thread_index() % 32, {}};
        int part = 0, left = args.part_steps;
        const auto add = [&](const typename Words::Step& step) {
            sums.next(step);
            if (--left) return;
            totals.add_part(args, sums, part++, word);
            sums.clear();
            left = args.part_steps;
        };
        loop.run(add, add);
        if (args.residual) totals.add_residual(args, image, origin, word);
        store_output(args, totals, image, origin, word);
    }

  private:
    // What a thread has of the totals: of its eight channels (see sign_bytes) at pixel 2 f + row.
    struct Totals {
        int warp, lane;
        int32_t of[4][8];

        template <class PartSums>
        MBUNET_DEVICE void add_part(const GeneralConvArgs& args, const PartSums& sums, int part, int word) {
            int32_t shifts[8];
            load_starts(shifts, args.shifts + (part * args.columns + word) * 32, lane);
            repeat<4>(
                [&](int i) { repeat<8>([&](int k) { of[i][k] += sums.value(i / 2, i % 2, 0, k) << shifts[k]; }); });
        }

        MBUNET_DEVICE void add_residual(const GeneralConvArgs& args, int image, const Pixel& origin, int word) {
            int32_t worths[8];
            load_starts(worths, args.worths + word * 32, lane);
            repeat<4>([&](int i) {
                const int y = origin.y + 2 * warp + i % 2, x = origin.x + i / 2 * 8 + lane / 4;
                if (y >= args.extent.height || x >= args.extent.width) return;
                const uint32_t* from =
                    word_at(args.residual, pixel_index(image, y, x, args.extent.height, args.extent.width),
                            args.input_planes * args.output_words, word);
                for (int plane = args.input_planes - 1; plane >= 0; --plane, from += args.output_words) {
                    const uint32_t bits = load(from) >> (lane % 4 * 8);
                    repeat<8>([&](int k) { of[i][k] += (bits >> k & 1 ? worths[k] : 0) << plane; });
                }
            });
        }

        // The output's words at pixel_of.
        MBUNET_DEVICE LevelWords words(const GeneralConvArgs& args, int word) const {
            const auto reached = [&](int level) {
                const int thresholds = 2 * args.output_planes - 1;
                int32_t start[8];
                load_starts(start, args.accumulator_start + (word * thresholds + level) * 32, lane);
                return sign_bytes([&](int i, int k) { return of[i][k] + start[k]; });
            };
            return args.output_planes > 1 ? two_planes(lane, reached) : one_plane(lane, reached);
        }
    };

    MBUNET_DEVICE static void store_output(const GeneralConvArgs& args, const Totals& totals, int image,
                                           const Pixel& origin, int word) {
        const Pixel pixel = pixel_of(totals.warp, totals.lane);
        const int y = origin.y + pixel.y, x = origin.x + pixel.x;
        const LevelWords words = totals.words(args, word);  // lanes part only after the last exchange
        const LevelWords pooled = args.pooled ? pool(words) : words;
        if (y >= args.extent.height || x >= args.extent.width) return;
        const int up = args.up, tap = word / args.output_words, own = word % args.output_words;
        const size_t at =
            pixel_index(image, up * y + tap / 2, up * x + tap % 2, up * args.extent.height, up * args.extent.width);
        store_levels(args.output, at, args.output_planes, args.output_words, own, words);
        if (!args.pooled || y % 2 || x % 2) return;
        const size_t half = pixel_index(image, y / 2, x / 2, args.extent.height / 2, args.extent.width / 2);
        store_levels(args.pooled, half, args.output_planes, args.output_words, own, pooled);
    }
};

}  // namespace mbunet::cuda
