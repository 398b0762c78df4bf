// The emulated instructions against the PTX ISA. Which element of a matrix is element i of a thread's fragment is
// written here as that document writes it, under "Matrix Fragments for mma.…" and "ldmatrix", one element at a time;
// nothing of the kernels' or the emulation's own arithmetic is used. Every shape gets random matrices.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "../../csrc/cuda/ptx.hpp"

namespace {

using namespace mbunet::cuda;

struct At {
    int row, column;
};

// A shape's fragments: element i of the thread `lane`, from the lowest bit of its first register on.
struct Fragments {
    int rows, k, bits;  // bits of an element of a and b
    int a_registers, b_registers, c_registers;
    At (*a)(int lane, int i);
    At (*b)(int lane, int i);
    At (*c)(int lane, int i);
};

int group(int lane) { return lane >> 2; }
int in_group(int lane) { return lane % 4; }

At c_of_8_rows(int lane, int i) { return {group(lane), in_group(lane) * 2 + i}; }
At c_of_16_rows(int lane, int i) { return {i < 2 ? group(lane) : group(lane) + 8, in_group(lane) * 2 + (i & 0x1)}; }

const Fragments kM8n8k128{8,
                          128,
                          1,
                          1,
                          1,
                          2,
                          [](int lane, int i) -> At { return {group(lane), in_group(lane) * 32 + i}; },
                          [](int lane, int i) -> At { return {in_group(lane) * 32 + i, group(lane)}; },
                          c_of_8_rows};

const Fragments kM8n8k16{8,
                         16,
                         8,
                         1,
                         1,
                         2,
                         [](int lane, int i) -> At { return {group(lane), in_group(lane) * 4 + i}; },
                         [](int lane, int i) -> At { return {in_group(lane) * 4 + i, group(lane)}; },
                         c_of_8_rows};

const Fragments kM16n8k256{
    16,
    256,
    1,
    4,
    2,
    4,
    [](int lane, int i) -> At {
        return {i < 32 || (i >= 64 && i < 96) ? group(lane) : group(lane) + 8,
                i < 64 ? in_group(lane) * 32 + (i & 0x1F) : in_group(lane) * 32 + (i & 0x1F) + 128};
    },
    [](int lane, int i) -> At {
        return {i < 32 ? in_group(lane) * 32 + (i & 0x1F) : in_group(lane) * 32 + (i & 0x1F) + 128, group(lane)};
    },
    c_of_16_rows};

const Fragments kM16n8k32{16,
                          32,
                          8,
                          4,
                          2,
                          4,
                          [](int lane, int i) -> At {
                              return {i < 4 || (i >= 8 && i < 12) ? group(lane) : group(lane) + 8,
                                      i < 8 ? in_group(lane) * 4 + (i & 0x3) : in_group(lane) * 4 + (i & 0x3) + 16};
                          },
                          [](int lane, int i) -> At {
                              return {i < 4 ? in_group(lane) * 4 + (i & 0x3) : in_group(lane) * 4 + (i & 0x3) + 16,
                                      group(lane)};
                          },
                          c_of_16_rows};

void require(bool holds, const char* what) {
    if (holds) return;
    std::printf("fails: %s\n", what);
    std::exit(1);
}

class Matrix {
  public:
    Matrix(int rows, int columns) : columns_(columns), elements_(static_cast<size_t>(rows * columns)) {}
    int& at(int row, int column) { return elements_.at(static_cast<size_t>(row * columns_ + column)); }
    int& at(At place) { return at(place.row, place.column); }
    void fill(std::mt19937& random, int bits) {
        for (int& element : elements_) element = static_cast<int>(random() % (1u << bits));
    }

  private:
    int columns_;
    std::vector<int> elements_;
};

using Registers = uint32_t[32][4];

void pack(Registers& registers, Matrix& matrix, int count, int bits, At (*place)(int, int)) {
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < count * 32 / bits; ++i)
            registers[lane][i * bits / 32] |= static_cast<uint32_t>(matrix.at(place(lane, i))) << (i * bits % 32);
}

using Scalar = int (*)(int a, int b);  // the product of two elements
using Instruction =
    std::function<void(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const int32_t (&c)[4])>;

void product(const char* name, const Fragments& fragments, Scalar times, const Instruction& instruction) {
    std::mt19937 random;
    Matrix a(fragments.rows, fragments.k), b(fragments.k, 8), c(fragments.rows, 8);
    a.fill(random, fragments.bits);
    b.fill(random, fragments.bits);
    c.fill(random, 20);
    Registers a_held{}, b_held{};
    pack(a_held, a, fragments.a_registers, fragments.bits, fragments.a);
    pack(b_held, b, fragments.b_registers, fragments.bits, fragments.b);
    int32_t sums[32][4] = {};
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < fragments.c_registers; ++i) sums[lane][i] = c.at(fragments.c(lane, i));
    emulation::run_grid({1, 1, 1}, 32, 0, 1, [&] {
        const int lane = thread_index();
        const uint32_t own[2] = {b_held[lane][0], b_held[lane][1]};
        const int32_t before[4] = {sums[lane][0], sums[lane][1], sums[lane][2], sums[lane][3]};
        std::fill_n(sums[lane], 4, -1);
        instruction(sums[lane], a_held[lane], own, before);
    });
    Matrix seen(fragments.rows, 8);
    for (int row = 0; row < fragments.rows; ++row)
        for (int column = 0; column < 8; ++column)
            for (int k = 0; k < fragments.k; ++k) c.at(row, column) += times(a.at(row, k), b.at(k, column));
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < fragments.c_registers; ++i) {
            const At place = fragments.c(lane, i);
            require(sums[lane][i] == c.at(place), name);
            ++seen.at(place);
        }
    for (int row = 0; row < fragments.rows; ++row)
        for (int column = 0; column < 8; ++column) require(seen.at(row, column) == 1, name);
}

// "Thread fragment layout for 8x8 matrix with 16-bit elements": thread T has, of row T / 4, elements 2 (T % 4) and the
// next, which are one register. Threads 0 to 7 give the rows of the first matrix, 8 to 15 of the second, and so on.
void matrices() {
    constexpr uint32_t kBytes = 32 * 16;
    uint32_t held[32][4];
    emulation::run_grid({1, 1, 1}, 32, kBytes, 1, [&] {
        const auto lane = static_cast<uint32_t>(thread_index());
        for (uint32_t i = 0; i < kBytes / 4 / 32; ++i) {  // every 16-bit element is its own number
            const uint32_t element = 2 * (i * 32 + lane);
            store_shared(shared_memory() + 2 * element, element | (element + 1) << 16);
        }
        barrier();
        ldmatrix(held[lane], shared_memory() + lane * 16);
    });
    for (int thread = 0; thread < 32; ++thread)
        for (int matrix = 0; matrix < 4; ++matrix)
            for (int i = 0; i < 2; ++i) {
                const int row = thread / 4, column = 2 * (thread % 4) + i, element = (matrix * 8 + row) * 8 + column;
                require(static_cast<int>(held[thread][matrix] >> (16 * i) & 0xFFFF) == element, "ldmatrix");
            }
}

// "Register Fragments and Shared Memory Matrix Layouts" of wgmma: the k'th bit of row i of an operand without swizzle,
// as a byte of shared memory behind the operand's begin, and which element of d is register i of a thread.
constexpr int kHalf = 2560 + 16, kGroup = 128 + 16;  // neither a multiple of the other

int operand_byte(int row, int k) { return k / 128 * kHalf + row / 8 * kGroup + row % 8 * 16 + k % 128 / 8; }

At d_of_64_rows(int thread, int i) {
    const int warp = thread / 32, lane = thread % 32;
    return {warp * 16 + group(lane) + (i % 4 < 2 ? 0 : 8), i / 4 * 8 + in_group(lane) * 2 + (i & 0x1)};
}

template <int kColumns>
void warpgroup(const char* name) {
    constexpr int kRows = 64, kSums = kColumns / 2, kK = 256, kSecond = 8192;  // where b begins
    emulation::capability = 90;
    std::mt19937 random;
    Matrix a(kRows, kK), b(kColumns, kK), c(kRows, kColumns);
    a.fill(random, 1);
    b.fill(random, 1);
    c.fill(random, 20);
    std::vector<uint8_t> bytes(2 * kSecond);
    for (int k = 0; k < kK; ++k) {
        for (int i = 0; i < kRows; ++i) bytes.at(operand_byte(i, k)) |= static_cast<uint8_t>(a.at(i, k) << k % 8);
        for (int i = 0; i < kColumns; ++i)
            bytes.at(kSecond + operand_byte(i, k)) |= static_cast<uint8_t>(b.at(i, k) << k % 8);
    }
    static int32_t sums[128][kSums];
    for (int thread = 0; thread < 128; ++thread)
        for (int i = 0; i < kSums; ++i) sums[thread][i] = c.at(d_of_64_rows(thread, i));
    emulation::run_grid({1, 1, 1}, 128, bytes.size(), 1, [&] {
        const auto thread = static_cast<uint32_t>(thread_index());
        for (size_t i = thread * 4; i < bytes.size(); i += 128 * 4) {
            uint32_t word;
            std::memcpy(&word, &bytes[i], 4);
            store_shared(shared_memory() + static_cast<uint32_t>(i), word);
        }
        fence_proxy_async();
        barrier();
        wgmma_fence();
        wgmma_and(sums[thread], matrix_descriptor(shared_memory(), kHalf, kGroup),
                  matrix_descriptor(shared_memory() + kSecond, kHalf, kGroup), true);
        wgmma_commit();
        wgmma_wait<0>();
    });
    for (int row = 0; row < kRows; ++row)
        for (int column = 0; column < kColumns; ++column)
            for (int k = 0; k < kK; ++k) c.at(row, column) += a.at(row, k) & b.at(column, k);
    for (int thread = 0; thread < 128; ++thread)
        for (int i = 0; i < kSums; ++i) require(sums[thread][i] == c.at(d_of_64_rows(thread, i)), name);
}

int exclusive_or(int a, int b) { return a ^ b; }
int both(int a, int b) { return a & b; }
int unsigned_signed(int a, int b) { return a * (b < 128 ? b : b - 256); }
int unsigned_unsigned(int a, int b) { return a * b; }

// An instruction on the pair of sums and the single words of a quarter.
template <class Quarter>
Instruction quarter(Quarter instruction) {
    return [=](int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const int32_t (&c)[4]) {
        d[0] = c[0];
        d[1] = c[1];
        instruction(d[0], d[1], a[0], b[0]);
    };
}

void products() {
    emulation::capability = 80;
    product("m16n8k256 xor", kM16n8k256, exclusive_or, mma_m16n8k256_xor);
    product("m16n8k256 and", kM16n8k256, both, mma_m16n8k256_and);
    product("m16n8k32 u8 s8", kM16n8k32, unsigned_signed, mma_m16n8k32_u8s8);
    product("m16n8k32 u8 u8", kM16n8k32, unsigned_unsigned, mma_m16n8k32_u8u8);
    emulation::capability = 75;
    product("m8n8k128 xor", kM8n8k128, exclusive_or, quarter(mma_m8n8k128_xor));
    product("m8n8k16 u8 s8", kM8n8k16, unsigned_signed, quarter(mma_m8n8k16_u8s8));
    product("m8n8k16 u8 u8", kM8n8k16, unsigned_unsigned, quarter(mma_m8n8k16_u8u8));
}

// What the kernels call has the fragments of the whole product on every architecture: Turing makes it of quarters.
void wholes() {
    for (const int capability : {75, 80}) {
        emulation::capability = capability;
        product("bits of the whole", kM16n8k256, exclusive_or, bmma_xor);
        product("bytes of the whole, signed", kM16n8k32, unsigned_signed, imma_u8s8);
        product("bytes of the whole, unsigned", kM16n8k32, unsigned_unsigned, imma_u8u8);
    }
}

}  // namespace

int main() {
    products();
    wholes();
    matrices();
    warpgroup<128>("m64n128k256 and");
    warpgroup<80>("m64n80k256 and");
    std::puts("holds");
}
