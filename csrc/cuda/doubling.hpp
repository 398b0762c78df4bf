// The head's logits doubled in size, several times at once, and the decision of the mask.
//
// Doubling makes 3 Z[i] + Z[i - 1] and 3 Z[i] + Z[i + 1] of Z[i] along each axis, indices clamped. So a logit depends,
// whatever the number of doublings, on three neighbors along each axis: its weights for them follow doubling by
// doubling, the finest first.
#pragma once

#include "head.hpp"

namespace mbunet::cuda {

struct DoublingArgs {
    const int32_t* coarse;  // [image][height][width][class]
    Batch batch;
    int height, width;  // of it
    int classes, doublings;
};

struct Doubling {
    using Args = DoublingArgs;

    template <BitOp>
    MBUNET_DEVICE static void run(const DoublingArgs& args) {
        const int height = args.height << args.doublings, width = args.width << args.doublings;
        const Block block = block_index();
        const int image = block.z, at = block.x * kThreads + thread_index();
        const int y = at / width, x = at % width;
        const ImageParams params = load_params(args.batch.params + image);
        if (y >= params.height || x >= params.width) return;
        const size_t pixel =
            pixel_index(image, 0, 0, height, width) + pixel_index(0, y, x, params.height, params.width);
        const Axis rows = along(y, args.height, args.doublings), columns = along(x, args.width, args.doublings);
        Decision decision;
        for (int c = 0; c < args.classes; ++c) {
            const int32_t value = logit(args, image, rows, columns, c);
            if (args.batch.logits)
                store(args.batch.logits + pixel * static_cast<size_t>(args.classes) + static_cast<size_t>(c), value);
            decision.add(c, value);
        }
        store(args.batch.masks + pixel, decision.mask(params, args.classes));
    }

  private:
    // Weights of the values at center - 1, center and center + 1; 0 for those that do not exist.
    struct Axis {
        int center;
        int32_t weights[3];
    };

    MBUNET_DEVICE static int32_t logit(const DoublingArgs& args, int image, const Axis& rows, const Axis& columns,
                                       int c) {
        int32_t sum = 0;
        repeat<3>([&](int i) {
            repeat<3>([&](int j) {
                const int32_t weight = rows.weights[i] * columns.weights[j];
                if (!weight) return;
                const size_t from =
                    pixel_index(image, rows.center + i - 1, columns.center + j - 1, args.height, args.width);
                sum += weight * load(args.coarse + from * static_cast<size_t>(args.classes) + c);
            });
        });
        return sum;
    }

    MBUNET_DEVICE static Axis along(int at, int size, int doublings) {
        Axis axis{at, {0, 1, 0}};
        for (int finer = doublings; finer--;) {
            const auto [before, own, behind] = axis.weights;
            const int last = (size << finer) - 1;
            if (axis.center % 2)
                axis = {axis.center / 2, {before, 3 * before + 3 * own + behind, own + 3 * behind}};
            else
                axis = {axis.center / 2, {3 * before + own, before + 3 * own + 3 * behind, behind}};
            if (axis.center == 0) axis = {0, {0, axis.weights[0] + axis.weights[1], axis.weights[2]}};
            if (axis.center == last) axis = {last, {axis.weights[0], axis.weights[1] + axis.weights[2], 0}};
        }
        return axis;
    }
};

}  // namespace mbunet::cuda
