// One function per PTX instruction, named after it. On the device each is that instruction; compiled by a C++ compiler
// each is what the emulation (tests/native/emulation.hpp) does for it, so that one kernel source serves both. Where
// Turing lacks an instruction, the function behind it says of which others it is made there.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define MBUNET_DEVICE __device__ __forceinline__
#define MBUNET_SITE
// before a loop that stays one: its turns are few, its code is long
#define MBUNET_ROLLED _Pragma("unroll 1")
#define MBUNET_UNROLLED_TWICE _Pragma("unroll 2")
#define MBUNET_UNROLLED _Pragma("unroll 4")
#else
#include <emulation.hpp>
#define MBUNET_DEVICE inline
#define MBUNET_ROLLED
#define MBUNET_UNROLLED_TWICE
#define MBUNET_UNROLLED
// where a barrier or a wait stands, so that a test can leave it out
#define MBUNET_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#endif

namespace mbunet::cuda {

// body(0), body(1), … without a loop, so that arrays indexed by it can be registers.
template <int kCount, class Body>
MBUNET_DEVICE void repeat(const Body& body) {
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int i = 0; i < kCount; ++i) body(i);
}

// -- who and where

// Compute capability, 10 * major + minor, that the kernel is compiled for.
#if !defined(__CUDACC__)
inline int capability() { return emulation::capability; }
#elif defined(__CUDA_ARCH__)
__device__ constexpr int capability() { return __CUDA_ARCH__ / 10; }
#else  // host code only names the kernels
__device__ constexpr int capability() { return 0; }
#endif

// Whether it is compiled for products of warpgroups.
#if defined(__CUDACC__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
__host__ __device__ constexpr bool has_warpgroups() { return false; }
#elif defined(__CUDACC__)
__host__ __device__ constexpr bool has_warpgroups() { return true; }
#else
constexpr bool has_warpgroups() { return true; }
#endif

MBUNET_DEVICE int thread_index() {
#ifdef __CUDACC__
    const auto index = static_cast<int>(threadIdx.x);
    __builtin_assume(index >= 0 && index < 1024);  // divisions become shifts
    return index;
#else
    return emulation::thread();
#endif
}

// Of a value that all threads of a warp have: so that the compiler knows.
MBUNET_DEVICE int uniform(int value) {
#ifdef __CUDACC__
    return __shfl_sync(0xFFFFFFFFu, value, 0);
#else
    return value;
#endif
}

struct Block {
    int x, y, z;
};

MBUNET_DEVICE Block block_index() {
#ifdef __CUDACC__
    return {static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z)};
#else
    const emulation::Index at = emulation::block();
    return {at.x, at.y, at.z};
#endif
}

// -- kernels that follow each other

// Waits until the kernel before this one in its stream has ended and what it wrote is there. A kernel that may begin
// before that touches nothing but its weights until then. Before Hopper none begins early, and it is nothing.
MBUNET_DEVICE void grid_dependency_wait(MBUNET_SITE) {
#ifndef __CUDACC__
    emulation::grid_dependency_wait({file, line});
#elif __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The same, once the thread has computed the address `known`, which the compiler would else do behind the wait.
#ifndef __CUDACC__
inline void grid_dependency_wait(const void*, MBUNET_SITE) { emulation::grid_dependency_wait({file, line}); }
#else
MBUNET_DEVICE void grid_dependency_wait(const void* known) {
#if __CUDA_ARCH__ >= 900
    asm volatile("{\n.reg .pred p;\nsetp.ne.u64 p, %0, 0;\n@p griddepcontrol.wait;\n}" ::"l"(known) : "memory");
#endif
}
#endif

// Lets the next kernel of the stream begin, once all blocks have said so or ended.
MBUNET_DEVICE void grid_launch_dependents() {
#if defined(__CUDACC__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// -- memory

// Address of the block's dynamic shared memory; addresses of shared memory are 32-bit byte addresses throughout.
MBUNET_DEVICE uint32_t shared_memory() {
#ifdef __CUDACC__
    extern __shared__ uint4 shared[];
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
#else
    return emulation::kSharedBase;
#endif
}

struct alignas(8) Words2 {
    uint32_t x, y;
};

struct alignas(16) Words4 {
    uint32_t x, y, z, w;
};

// The same address, of which the compiler knows nothing any more: sums of it and 32-bit offsets stay one instruction.
template <class T>
MBUNET_DEVICE T* opaque(T* address) {
#ifdef __CUDACC__
    asm("" : "+l"(address));
#endif
    return address;
}

// The same value, which a loop keeps in a register rather than to compute it anew.
MBUNET_DEVICE int opaque(int value) {
#ifdef __CUDACC__
    asm("" : "+r"(value));
#endif
    return value;
}

// Reads what no kernel running at the same time writes.
template <class T>
MBUNET_DEVICE T load(const T* from) {
#ifdef __CUDACC__
    if constexpr (sizeof(T) == 16) {
        const uint4 value = __ldg(reinterpret_cast<const uint4*>(from));
        return T{value.x, value.y, value.z, value.w};
    } else if constexpr (sizeof(T) == 8) {
        const uint2 value = __ldg(reinterpret_cast<const uint2*>(from));
        return T{value.x, value.y};
    } else {
        return __ldg(from);
    }
#else
    return emulation::load(from);
#endif
}

template <class T>
MBUNET_DEVICE void store(T* to, T value) {
#ifdef __CUDACC__
    *to = value;
#else
    emulation::store(to, value);
#endif
}

MBUNET_DEVICE Words4 load_shared4(uint32_t from) {
#ifdef __CUDACC__
    Words4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(from)
                 : "memory");
    return v;
#else
    return emulation::load_shared<Words4>(from);
#endif
}

MBUNET_DEVICE uint32_t load_shared(uint32_t from) {
#ifdef __CUDACC__
    uint32_t v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(from) : "memory");
    return v;
#else
    return emulation::load_shared<uint32_t>(from);
#endif
}

template <class T>
MBUNET_DEVICE void store_shared(uint32_t to, T value) {
#ifndef __CUDACC__
    emulation::store_shared(to, value);
#else
    if constexpr (sizeof(T) == 16)
        asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(value.x), "r"(value.y), "r"(value.z),
                     "r"(value.w)
                     : "memory");
    else if constexpr (sizeof(T) == 8)
        asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(to), "r"(value.x), "r"(value.y) : "memory");
    else
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
#endif
}

// What cp_async does, done now.
template <class T>
MBUNET_DEVICE void copy(uint32_t to, const void* from, bool real) {
    store_shared(to, real ? load(static_cast<const T*>(from)) : T{});
}

// Copies kBytes (4, 8 or 16) to shared memory, or zeros where not `real`; `from` is a valid address even then. What was
// copied is there for the own thread after cp_async_wait, for others after a barrier behind it. Turing has no
// asynchronous copy: there it is done at once, and commit and wait are nothing.
template <int kBytes>
MBUNET_DEVICE void cp_async(uint32_t to, const void* from, bool real) {
    if (capability() < 80) {
        if constexpr (kBytes == 16)
            copy<Words4>(to, from, real);
        else if constexpr (kBytes == 8)
            copy<Words2>(to, from, real);
        else
            copy<uint32_t>(to, from, real);
        return;
    }
#ifndef __CUDACC__
    emulation::cp_async(to, from, kBytes, real);
#else
    const int size = real ? kBytes : 0;
    if constexpr (kBytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
                     "r"(size)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
                     "n"(kBytes), "r"(size)
                     : "memory");
#endif
}

// Closes the group of the copies begun since the last commit.
MBUNET_DEVICE void cp_async_commit() {
    if (capability() < 80) return;
#ifndef __CUDACC__
    emulation::cp_async_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the kPending groups committed last are under way.
template <int kPending>
MBUNET_DEVICE void cp_async_wait(MBUNET_SITE) {
    if (capability() < 80) return;
#ifndef __CUDACC__
    emulation::cp_async_wait(kPending, {file, line});
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// a * factor + b on the units that multiply: those that add and shift have enough to do.
MBUNET_DEVICE uint32_t multiply_add(uint32_t a, uint32_t factor, uint32_t b) {
#ifdef __CUDACC__
    asm("" : "+r"(factor));
#endif
    return a * factor + b;
}

// -- bytes

// Byte i of the result is the one that digit i of `selector` (4 bits, the lowest first) says: 0 to 3 of a, 4 to 7 of b.
MBUNET_DEVICE uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) {
#ifdef __CUDACC__
    return __byte_perm(a, b, selector);
#else
    return emulation::permute_bytes(a, b, selector);
#endif
}

// The same, but each byte is 0xFF where the highest bit of the chosen one is set, and else 0.
MBUNET_DEVICE uint32_t permute_sign_bits(uint32_t a, uint32_t b, uint32_t selector) {
#ifdef __CUDACC__
    uint32_t found;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(found) : "r"(a), "r"(b), "r"(selector | 0x8888u));
    return found;
#else
    return emulation::permute_sign_bits(a, b, selector);
#endif
}

// Shifts the highest bit of `word` into `bits` from the right.
MBUNET_DEVICE uint32_t push_highest(uint32_t bits, uint32_t word) {
#ifdef __CUDACC__
    asm("shf.l.wrap.b32 %0, %1, %0, 1;" : "+r"(bits) : "r"(word));
    return bits;
#else
    return bits << 1 | word >> 31;
#endif
}

// -- collectives of a block and of a warp

MBUNET_DEVICE void barrier(MBUNET_SITE) {
#ifdef __CUDACC__
    __syncthreads();
#else
    emulation::barrier({file, line});
#endif
}

MBUNET_DEVICE uint32_t shuffle_xor(uint32_t value, int mask) {
#ifdef __CUDACC__
    return __shfl_xor_sync(0xFFFFFFFFu, value, mask);
#else
    return emulation::shuffle_xor(value, mask);
#endif
}

// The value of lane `lane % 32`.
MBUNET_DEVICE uint32_t shuffle(uint32_t value, uint32_t lane) {
#ifdef __CUDACC__
    return __shfl_sync(0xFFFFFFFFu, value, static_cast<int>(lane));
#else
    return emulation::shuffle(value, lane);
#endif
}

// Four matrices of 8 rows of 16 bytes: lane l gives the address of row l % 8 of matrix l / 8 and gets of each matrix
// word l % 4 of row l / 4.
MBUNET_DEVICE void ldmatrix(uint32_t (&rows)[4], uint32_t from) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(rows[0]), "=r"(rows[1]), "=r"(rows[2]), "=r"(rows[3])
                 : "r"(from)
                 : "memory");
#else
    emulation::ldmatrix(rows, from);
#endif
}

// The same of two matrices: the addresses are those of the first 16 lanes.
MBUNET_DEVICE void ldmatrix(uint32_t (&rows)[2], uint32_t from) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(rows[0]), "=r"(rows[1])
                 : "r"(from)
                 : "memory");
#else
    emulation::ldmatrix(rows, from);
#endif
}

// -- matrix products
//
// d[16][8] = a[16][K] * b[K][8] + c[16][8]. Lane l = 4 g + t holds, counting words of 32 bits along K:
//   a[0] = row g, word t      a[1] = row g + 8, word t      a[2] = row g, word t + 4      a[3] = row g + 8, word t + 4
//   b[0] = column g, word t   b[1] = column g, word t + 4
//   c[0], c[1] = row g, columns 2 t and 2 t + 1             c[2], c[3] = row g + 8, the same columns; d likewise
// m8n8 are quarters of it, with half the K: their fragments are single words of these, and a pair of sums, to which
// they add.

using Sums4 = int32_t[4];
using RowWords = uint32_t[4];
using ColumnWords = uint32_t[2];

// clang-format off
#ifdef __CUDACC__
#define MBUNET_MMA(instruction)                                                                              \
    asm("mma.sync.aligned." instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"\
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])                                                     \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]),                                  \
          "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]))
#define MBUNET_MMA_QUARTER(instruction)                                                                  \
    asm("mma.sync.aligned." instruction " {%0, %1}, {%2}, {%3}, {%0, %1};" : "+r"(c0), "+r"(c1) : "r"(a), "r"(b))
#else
#define MBUNET_MMA(instruction) emulation::mma(instruction, d, a, b, c)
#define MBUNET_MMA_QUARTER(instruction) emulation::mma_quarter(instruction, c0, c1, a, b)
#endif
// clang-format on

// Bits, K = 256: popcount(a xor b).
MBUNET_DEVICE void mma_m16n8k256_xor(Sums4& d, const RowWords& a, const ColumnWords& b, const Sums4& c) {
    MBUNET_MMA("m16n8k256.row.col.s32.b1.b1.s32.xor.popc");
}

MBUNET_DEVICE void mma_m8n8k128_xor(int32_t& c0, int32_t& c1, uint32_t a, uint32_t b) {
    MBUNET_MMA_QUARTER("m8n8k128.row.col.s32.b1.b1.s32.xor.popc");
}

// Bits, K = 256: popcount(a and b). Turing has nothing of the kind.
MBUNET_DEVICE void mma_m16n8k256_and(Sums4& d, const RowWords& a, const ColumnWords& b, const Sums4& c) {
    MBUNET_MMA("m16n8k256.row.col.s32.b1.b1.s32.and.popc");
}

// Bytes, K = 32, four to a word: unsigned times signed.
MBUNET_DEVICE void mma_m16n8k32_u8s8(Sums4& d, const RowWords& a, const ColumnWords& b, const Sums4& c) {
    MBUNET_MMA("m16n8k32.row.col.s32.u8.s8.s32");
}

MBUNET_DEVICE void mma_m8n8k16_u8s8(int32_t& c0, int32_t& c1, uint32_t a, uint32_t b) {
    MBUNET_MMA_QUARTER("m8n8k16.row.col.s32.u8.s8.s32");
}

// Bytes, K = 32: unsigned times unsigned.
MBUNET_DEVICE void mma_m16n8k32_u8u8(Sums4& d, const RowWords& a, const ColumnWords& b, const Sums4& c) {
    MBUNET_MMA("m16n8k32.row.col.s32.u8.u8.s32");
}

MBUNET_DEVICE void mma_m8n8k16_u8u8(int32_t& c0, int32_t& c1, uint32_t a, uint32_t b) {
    MBUNET_MMA_QUARTER("m8n8k16.row.col.s32.u8.u8.s32");
}

#undef MBUNET_MMA
#undef MBUNET_MMA_QUARTER

// A whole product by a product of quarters.
template <class Product>
MBUNET_DEVICE void by_quarters(Sums4& d, const RowWords& a, const ColumnWords& b, const Sums4& c,
                               const Product& product) {
    repeat<4>([&](int i) { d[i] = c[i]; });
    repeat<4>([&](int i) {
        const int row = i % 2, k = i / 2;
        product(d[2 * row], d[2 * row + 1], a[row + 2 * k], b[k]);
    });
}

MBUNET_DEVICE void bmma_xor(Sums4& d, const RowWords& a, const ColumnWords& b, const Sums4& c) {
    if (capability() >= 80) return mma_m16n8k256_xor(d, a, b, c);
    by_quarters(d, a, b, c, [](int32_t& c0, int32_t& c1, uint32_t x, uint32_t y) { mma_m8n8k128_xor(c0, c1, x, y); });
}

MBUNET_DEVICE void bmma_and(Sums4& d, const RowWords& a, const ColumnWords& b, const Sums4& c) {
    mma_m16n8k256_and(d, a, b, c);
}

MBUNET_DEVICE void imma_u8s8(Sums4& d, const RowWords& a, const ColumnWords& b, const Sums4& c) {
    if (capability() >= 80) return mma_m16n8k32_u8s8(d, a, b, c);
    by_quarters(d, a, b, c, [](int32_t& c0, int32_t& c1, uint32_t x, uint32_t y) { mma_m8n8k16_u8s8(c0, c1, x, y); });
}

MBUNET_DEVICE void imma_u8u8(Sums4& d, const RowWords& a, const ColumnWords& b, const Sums4& c) {
    if (capability() >= 80) return mma_m16n8k32_u8u8(d, a, b, c);
    by_quarters(d, a, b, c, [](int32_t& c0, int32_t& c1, uint32_t x, uint32_t y) { mma_m8n8k16_u8u8(c0, c1, x, y); });
}

// -- matrix products of a warpgroup
//
// d[64][N] += a[64][256] * b[256][N], bits, by four warps together; the operands lie in shared memory, where
// descriptors find them. Warp w, lane 4 g + t: d[4 n], d[4 n + 1] = row 16 w + g, columns 8 n + 2 t and 8 n + 2 t + 1;
// d[4 n + 2], d[4 n + 3] = row 16 w + g + 8, the same columns. The product runs on its own: d and the operands must not
// be touched before it is waited for.

// Of an operand without swizzle: rows (of a) or columns (of b) in groups of eight, of each 16 bytes behind each other.
// `half` bytes from the first 128 bits along K to the second, `group` from one group to the next. All are multiples of
// 16 below 256 KiB.
MBUNET_DEVICE uint64_t matrix_descriptor(uint32_t address, uint32_t half, uint32_t group) {
    return static_cast<uint64_t>((address & 0x3FFFF) >> 4) | static_cast<uint64_t>(half >> 4) << 16 |
           static_cast<uint64_t>(group >> 4) << 32;
}

// Before the first product, and before one whose sums have been touched since the last.
MBUNET_DEVICE void wgmma_fence(MBUNET_SITE) {
#ifndef __CUDACC__
    emulation::wgmma_fence({file, line});
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

// Closes the group of the products begun since the last commit.
MBUNET_DEVICE void wgmma_commit(MBUNET_SITE) {
#ifndef __CUDACC__
    emulation::wgmma_commit({file, line});
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Waits until at most the kPending groups committed last are under way.
template <int kPending>
MBUNET_DEVICE void wgmma_wait(MBUNET_SITE) {
#ifndef __CUDACC__
    emulation::wgmma_wait(kPending, {file, line});
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#endif
}

// Makes what this thread has copied or written to shared memory visible to products of warpgroups.
MBUNET_DEVICE void fence_proxy_async(MBUNET_SITE) {
#ifndef __CUDACC__
    emulation::fence_proxy_async({file, line});
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// Adds, or, where not `adds`, sets: of 128 columns,
MBUNET_DEVICE void wgmma_and(int32_t (&d)[64], uint64_t a, uint64_t b, bool adds) {
#ifndef __CUDACC__
    emulation::wgmma(d, 64, a, b, adds);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k256.s32.b1.b1.and.popc {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, p;\n}"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]), "+r"(d[4]), "+r"(d[5]), "+r"(d[6]), "+r"(d[7]), "+r"(d[8]),
          "+r"(d[9]), "+r"(d[10]), "+r"(d[11]), "+r"(d[12]), "+r"(d[13]), "+r"(d[14]), "+r"(d[15]), "+r"(d[16]),
          "+r"(d[17]), "+r"(d[18]), "+r"(d[19]), "+r"(d[20]), "+r"(d[21]), "+r"(d[22]), "+r"(d[23]), "+r"(d[24]),
          "+r"(d[25]), "+r"(d[26]), "+r"(d[27]), "+r"(d[28]), "+r"(d[29]), "+r"(d[30]), "+r"(d[31]), "+r"(d[32]),
          "+r"(d[33]), "+r"(d[34]), "+r"(d[35]), "+r"(d[36]), "+r"(d[37]), "+r"(d[38]), "+r"(d[39]), "+r"(d[40]),
          "+r"(d[41]), "+r"(d[42]), "+r"(d[43]), "+r"(d[44]), "+r"(d[45]), "+r"(d[46]), "+r"(d[47]), "+r"(d[48]),
          "+r"(d[49]), "+r"(d[50]), "+r"(d[51]), "+r"(d[52]), "+r"(d[53]), "+r"(d[54]), "+r"(d[55]), "+r"(d[56]),
          "+r"(d[57]), "+r"(d[58]), "+r"(d[59]), "+r"(d[60]), "+r"(d[61]), "+r"(d[62]), "+r"(d[63])
        : "l"(a), "l"(b), "r"(static_cast<int32_t>(adds)));
#endif
}

// and of 80.
MBUNET_DEVICE void wgmma_and(int32_t (&d)[40], uint64_t a, uint64_t b, bool adds) {
#ifndef __CUDACC__
    emulation::wgmma(d, 40, a, b, adds);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %42, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n80k256.s32.b1.b1.and.popc {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39}, "
        "%40, %41, p;\n}"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]), "+r"(d[4]), "+r"(d[5]), "+r"(d[6]), "+r"(d[7]), "+r"(d[8]),
          "+r"(d[9]), "+r"(d[10]), "+r"(d[11]), "+r"(d[12]), "+r"(d[13]), "+r"(d[14]), "+r"(d[15]), "+r"(d[16]),
          "+r"(d[17]), "+r"(d[18]), "+r"(d[19]), "+r"(d[20]), "+r"(d[21]), "+r"(d[22]), "+r"(d[23]), "+r"(d[24]),
          "+r"(d[25]), "+r"(d[26]), "+r"(d[27]), "+r"(d[28]), "+r"(d[29]), "+r"(d[30]), "+r"(d[31]), "+r"(d[32]),
          "+r"(d[33]), "+r"(d[34]), "+r"(d[35]), "+r"(d[36]), "+r"(d[37]), "+r"(d[38]), "+r"(d[39])
        : "l"(a), "l"(b), "r"(static_cast<int32_t>(adds)));
#endif
}

// Keeps the compiler from moving accesses to sums across it: it does not know how long a product runs.
template <int kCount>
MBUNET_DEVICE void touch(int32_t (&d)[kCount]) {
#ifdef __CUDACC__
    repeat<kCount>([&](int i) { asm volatile("" : "+r"(d[i])::"memory"); });
#else
    static_cast<void>(d);
#endif
}

}  // namespace mbunet::cuda
