#include "k_schedule.hpp"

#include "kernels.hpp"

namespace mbunet::cuda {

namespace {

bool are_joined(const ConvShape& shape) {
    const std::vector<int>& channels = shape.input_channels;
    return shape.planes == 1 && channels.size() == 2 && pixel_words(channels[0]) == 2 && pixel_words(channels[1]) == 2;
}

}  // namespace

KSchedule::KSchedule(const ConvShape& shape) : joined(are_joined(shape)), parts(shape.segments * shape.planes) {
    joined ? join_tiles(shape) : place_tiles(shape);
    for (int segment = 0; segment < shape.segments; ++segment)
        for (int plane = 0; plane < shape.planes; ++plane)
            joined ? add_joined_part(shape, segment) : add_part(shape, segment, plane);
    part_steps = static_cast<int>(chunks.size()) / 2 / parts;
}

int KSchedule::filled_chunks() const {
    const bool last_is_empty = chunks.back().words[0].tap < 0;
    return part_steps * 2 - last_is_empty;
}

void KSchedule::place_tiles(const ConvShape& shape) {
    const SharedTile shared_tile(shape.kernel);
    size_t tile = 0;
    for (int channels : shape.input_channels)
        for (int plane = 0; plane < shape.planes; ++plane, ++tile) {
            const int slabs = slabs_of(pixel_words(channels));
            pitches.at(tile) = slab_pitch(shared_tile.pixels, slabs);
            offsets.at(tile) = shared_tile_bytes;
            shared_tile_bytes += pitches.at(tile) * slabs * 16;
        }
}

void KSchedule::join_tiles(const ConvShape& shape) {
    pitches[0] = pitches[1] = slab_pitch(SharedTile(shape.kernel).pixels, 1);
    offsets[1] = 8;
    shared_tile_bytes = pitches[0] * 16;
}

void KSchedule::add_joined_part(const ConvShape& shape, int segment) {
    const int first = shape.input_channels[0], end = first + shape.input_channels[1];
    const int width = SharedTile(shape.kernel).width;
    for (int tap = 0; tap < shape.kernel * shape.kernel; ++tap) {
        const int pixel = tap / shape.kernel * width + tap % shape.kernel;
        chunks.push_back(
            {{{{tap, 0, first}, {tap, 32, first}, {tap, first, end}, {tap, first + 32, end}}}, pixel * 16, segment});
    }
    complete_part(segment);
}

// A part has a whole number of K steps.
void KSchedule::complete_part(int segment) {
    if (chunks.size() % 2) chunks.push_back({{}, chunks.back().offset, segment});  // of nothing, wherever that is
}

void KSchedule::add_part(const ConvShape& shape, int segment, int plane) {
    int first = 0;
    for (size_t input = 0; input < shape.input_channels.size(); ++input) {
        const int channels = shape.input_channels[input], pixels = pixels_per_chunk(pixel_words(channels));
        const KChunk::Word all{0, first, first + channels};
        for (int row = 0; row < shape.kernel; ++row)
            for (int column = 0; column < shape.kernel; column += pixels)
                add_chunks(shape, input, all, plane, segment, row, column);
        first += channels;
    }
    complete_part(segment);
}

// Chunks of one plane of a pixel of one input, for the tap at (row, column) of the kernel and those to its right.
void KSchedule::add_chunks(const ConvShape& shape, size_t input, const KChunk::Word& all, int plane, int segment,
                           int row, int column) {
    const size_t tile = input * static_cast<size_t>(shape.planes) + static_cast<size_t>(plane);
    const int words = pixel_words(all.end - all.channel), width = SharedTile(shape.kernel).width;
    for (int slab = 0; slab < slabs_of(words); ++slab) {
        KChunk chunk{{}, offsets[tile] + (slab * pitches[tile] + row * width + column) * 16, segment};
        for (int w = 0; w < 4; ++w) {
            const int tap_column = column + w / words, channel = all.channel + slab * 128 + w % words * 32;
            if (tap_column < shape.kernel && channel < all.end)
                chunk.words[static_cast<size_t>(w)] = {row * shape.kernel + tap_column, channel, all.end};
        }
        chunks.push_back(chunk);
    }
}

}  // namespace mbunet::cuda
