#include "raster.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace mbunet::cpu {

namespace {

constexpr int kHalf = 32;  // bits of a row that are dealt with at once, of the coarser grid

// A word of bits from `at` on; those behind a row's end are the caller's to leave out.
uint64_t bits_at(const uint64_t* words, size_t at) {
    const size_t word = at / 64, shift = at % 64;
    return words[word] >> shift | (shift ? words[word + 1] << (64 - shift) : 0);
}

// Sets bits from `at` on where `bits` has them. They were 0 before.
void set_bits(uint64_t* words, size_t at, uint64_t bits) {
    const size_t word = at / 64, shift = at % 64;
    words[word] |= bits << shift;
    if (shift) words[word + 1] |= bits >> (64 - shift);
}

uint64_t lowest(int count) { return (uint64_t{1} << count) - 1; }

constexpr uint64_t kMasks[] = {0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F,
                               0x00FF00FF00FF00FF, 0x0000FFFF0000FFFF, 0x00000000FFFFFFFF};

// Every second bit, the lowest first, in the lower half.
uint64_t every_second(uint64_t bits) {
    bits &= kMasks[0];
    for (int i = 1; i < 6; ++i) bits = (bits | bits >> (1 << (i - 1))) & kMasks[i];
    return bits;
}

// The lower half's bits with a 0 behind each.
uint64_t interleave_zeros(uint64_t bits) {
    for (int i = 5; i--;) bits = (bits | bits << (1 << i)) & kMasks[i];
    return bits;
}

// Calls run(tile row, first tile's column, how many) for all tiles, some of a row at a time.
template <class Run>
void each_stretch(const Grid& grid, const Run& run) {
    for (size_t row = 0; row < static_cast<size_t>(grid.images) * static_cast<size_t>(grid.rows); ++row)
        for (int column = 0; column < grid.columns; column += kHalf)
            run(row, static_cast<size_t>(column), std::min(kHalf, grid.columns - column));
}

}  // namespace

void read_raster(const Grid& grid, const uint8_t* from, size_t group_bytes, uint64_t* raster) {
    for (int g = 0; g < grid.groups; ++g, from += group_bytes, raster += grid.bytes / 8)
        std::memcpy(raster, from, grid.bytes);
}

void write_raster(const Grid& grid, const uint64_t* raster, uint8_t* to, size_t group_bytes) {
    for (int g = 0; g < grid.groups; ++g, to += group_bytes, raster += grid.bytes / 8)
        std::memcpy(to, raster, grid.bytes);
}

void pool_raster(const Grid& coarse, const Grid& fine_grid, int planes, const uint64_t* fine, uint64_t* to) {
    const size_t words = raster_words(coarse), fine_words = raster_words(fine_grid);
    std::fill_n(to, static_cast<size_t>(planes) * words, 0);
    const auto columns = static_cast<size_t>(coarse.columns);
    each_stretch(coarse, [&](size_t row, size_t column, int count) {
        const size_t upper = 2 * row * 2 * columns + 2 * column, out = row * columns + column;
        const auto store = [&](int plane, uint64_t pairs) {
            set_bits(to + static_cast<size_t>(plane) * words, out, every_second(pairs) & lowest(count));
        };
        const uint64_t most[2] = {bits_at(fine, upper), bits_at(fine, upper + 2 * columns)};
        if (planes == 1) {
            const uint64_t either = most[0] | most[1];
            return store(0, either | either >> 1);
        }
        const uint64_t less[2] = {bits_at(fine + fine_words, upper), bits_at(fine + fine_words, upper + 2 * columns)};
        const TwoBitLevels rows = higher({most[0], less[0]}, {most[1], less[1]}),
                           highest = higher(rows, {rows.most >> 1, rows.less >> 1});
        store(0, highest.most);
        store(1, highest.less);
    });
}

void join_rasters(const Grid& coarse, const uint64_t* parts, const Grid& fine, uint64_t* to) {
    std::fill_n(to, raster_words(fine), 0);
    const size_t words = raster_words(coarse), columns = static_cast<size_t>(coarse.columns);
    each_stretch(coarse, [&](size_t row, size_t column, int count) {
        const size_t from = row * columns + column, upper = 2 * row * 2 * columns + 2 * column;
        for (size_t lower = 0; lower < 2; ++lower) {
            const uint64_t* left = parts + 2 * lower * words;
            const uint64_t pairs = interleave_zeros(bits_at(left, from) & lowest(count)) |
                                   interleave_zeros(bits_at(left + words, from) & lowest(count)) << 1;
            set_bits(to, upper + lower * 2 * columns, pairs);
        }
    });
}

}  // namespace mbunet::cpu
