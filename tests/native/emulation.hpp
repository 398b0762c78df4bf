// A GPU's instructions on the CPU: what csrc/cuda/ptx.hpp calls where there is no nvcc.
//
// Threads are fibers. A fiber runs until it waits for its block (barrier) or its warp (a collective instruction); who
// goes on is drawn by a seeded generator, so that what a kernel leaves unordered happens in many orders. Shared memory
// starts as poison. An asynchronous copy turns its target into poison at once, and lands when its own thread waits for
// it. Two threads that touch a word of shared memory with no barrier in between, one of them writing, are an error in
// whichever order they came. Global memory must be declared, and is checked at every access; what is not constant is
// touched only by a thread that has waited for the kernel before. An instruction that the emulated compute capability
// lacks, and a grid or a block larger than it allows, are errors. One emulated launch at a time.
#pragma once

#include <cstring>
#include <string_view>

#include "emulated_block.hpp"

namespace emulation {

// -- shared memory

inline void touch(Access& access, int thread, bool writes) {
    if (access.phase != state.phase) {
        access = {state.phase, thread, writes, access.unfenced};
    } else if (access.thread == thread) {
        access.written |= writes;
    } else {
        if (writes || access.written) fail("a race for shared memory");
        access.thread = Access::kSeveral;
    }
}

inline uint8_t* shared_at(uint32_t address, size_t bytes, bool writes, int thread) {
    if (address % bytes) fail("misaligned access to shared memory");
    if (address < kSharedBase || address - kSharedBase + bytes > state.shared.size()) fail("outside of shared memory");
    const size_t offset = address - kSharedBase;
    for (size_t word = offset / 4; word < (offset + bytes) / 4; ++word) {
        touch(state.accesses[word], thread, writes);
        if (!writes) continue;
        state.accesses[word].unfenced = true;
        self().unfenced.push_back(word);
    }
    return &state.shared[offset];
}

template <class T>
T load_shared(uint32_t from) {
    T value;
    std::memcpy(&value, shared_at(from, sizeof(T), false, state.current), sizeof(T));
    return value;
}

template <class T>
void store_shared(uint32_t to, T value) {
    std::memcpy(shared_at(to, sizeof(T), true, state.current), &value, sizeof(T));
}

inline void cp_async(uint32_t to, const void* from, int bytes, bool real) {
    const auto size = static_cast<size_t>(bytes);
    uint8_t* target = shared_at(to, size, true, state.current);
    for (size_t i = 0; i < size; ++i) target[i] = static_cast<uint8_t>(state.random());
    if (real) range_of(from, size, false);
    self().open.push_back({to, from, bytes, real});
}

inline void cp_async_commit() {
    self().groups.push_back(std::move(self().open));
    self().open.clear();
}

inline bool left_out(const Site& site) {
    state.sites.insert(site);
    return state.left_out && *state.left_out == site;
}

inline void grid_dependency_wait(const Site& site) {
    if (!left_out(site)) self().has_waited = true;
}

inline void cp_async_wait(int pending, const Site& site) {
    if (left_out(site)) return;
    auto& groups = self().groups;
    while (groups.size() > static_cast<size_t>(pending)) {
        for (const Copy& copy : groups.front()) {
            uint8_t* target = shared_at(copy.to, static_cast<size_t>(copy.bytes), true, state.current);
            if (copy.real)
                std::memcpy(target, copy.from, static_cast<size_t>(copy.bytes));
            else
                std::memset(target, 0, static_cast<size_t>(copy.bytes));
        }
        groups.erase(groups.begin());
    }
}

// -- bytes

inline uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) {
    if (selector & 0xFFFF8888u) fail("a selector that replicates signs, or is longer than four digits");
    const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
    uint32_t result = 0;
    for (int i = 0; i < 4; ++i)
        result |= static_cast<uint32_t>(both >> ((selector >> (4 * i) & 7) * 8) & 0xFF) << (8 * i);
    return result;
}

inline uint32_t permute_sign_bits(uint32_t a, uint32_t b, uint32_t selector) {
    uint32_t result = permute_bytes(a, b, selector) >> 7 & 0x01010101u;
    return result * 0xFF;
}

// -- products of warpgroups

inline int32_t dot_xor(uint32_t a, uint32_t b) { return __builtin_popcount(a ^ b); }
inline int32_t dot_and(uint32_t a, uint32_t b) { return __builtin_popcount(a & b); }

inline void fence_proxy_async(const Site& site) {
    if (left_out(site)) return;
    for (size_t word : self().unfenced) state.accesses[word].unfenced = false;
    self().unfenced.clear();
}

inline void wgmma_fence(const Site& site) {
    if (!left_out(site)) self().is_fenced = true;
}

// 32 bytes along K of row (or column) `i` of the operand that a descriptor describes.
inline void read_operand(uint32_t (&words)[8], uint64_t descriptor, int i) {
    const auto field = [&](int shift) { return static_cast<uint32_t>(descriptor >> shift & 0x3FFF) * 16; };
    for (uint32_t half = 0; half < 2; ++half) {
        const uint32_t at =
            field(0) + half * field(16) + static_cast<uint32_t>(i / 8) * field(32) + static_cast<uint32_t>(i % 8) * 16;
        std::memcpy(words + 4 * half, shared_at(at, 16, false, state.current), 16);
        for (size_t word = (at - kSharedBase) / 4; word < (at - kSharedBase) / 4 + 4; ++word)
            if (state.accesses[word].unfenced) fail("a product reads what was written without fence.proxy.async");
    }
}

inline void multiply(Product& product) {
    const int warp = state.current / kWarp % 4, lane = state.current % kWarp;
    uint32_t rows[2][8];
    for (int row = 0; row < 2; ++row) read_operand(rows[row], product.a, warp * 16 + row * 8 + lane / 4);
    for (int i = 0; i < static_cast<int>(product.count) / 2; ++i) {
        uint32_t column[8];
        read_operand(column, product.b, i / 2 * 8 + lane % 4 * 2 + i % 2);
        for (int row = 0; row < 2; ++row) {
            int32_t& sum = product.early[static_cast<size_t>(i / 2 * 4 + row * 2 + i % 2)] = 0;
            for (int word = 0; word < 8; ++word) sum += dot_and(rows[row][word], column[word]);
        }
    }
}

// The operands are read now or, as the generator wills, as late as when somebody waits; the sums hold poison until
// then.
inline void wgmma(int32_t* sums, size_t count, uint64_t a, uint64_t b, bool adds) {
    if (capability != 90) fail("no products of warpgroups but on Hopper");
    auto& in_flight = self().in_flight;
    if (!in_flight.contains(sums)) {
        if (!self().is_fenced) fail("a product of a warpgroup without wgmma.fence");
        in_flight[sums].assign(sums, sums + count);
        std::generate_n(sums, count, [] { return static_cast<int32_t>(state.random()); });
    }
    Product product{sums, count, a, b, adds, state.random() % 2 == 0, {}};
    if (product.is_early) multiply(product);
    self().products.push_back(product);
}

inline void wgmma_commit(const Site& site) {
    if (left_out(site)) return;
    self().product_groups.push_back(std::move(self().products));
    self().products.clear();
}

inline void wgmma_wait(int pending, const Site& site) {
    if (left_out(site)) return;
    auto& groups = self().product_groups;
    std::set<int32_t*> busy;
    while (groups.size() > static_cast<size_t>(pending)) {
        for (Product& product : groups.front()) {
            if (!product.is_early) multiply(product);
            auto& sums = self().in_flight[product.sums];
            for (size_t i = 0; i < product.count; ++i) sums[i] = product.early[i] + (product.adds ? sums[i] : 0);
        }
        groups.erase(groups.begin());
    }
    for (const auto& group : groups)
        for (const Product& product : group) busy.insert(product.sums);
    for (const Product& product : self().products) busy.insert(product.sums);
    for (auto held = self().in_flight.begin(); held != self().in_flight.end();)
        if (busy.contains(held->first)) {
            ++held;
        } else {
            std::copy(held->second.begin(), held->second.end(), held->first);
            held = self().in_flight.erase(held);
            self().is_fenced = false;
        }
}

// -- collectives

inline void barrier(const Site& site) {
    if (!left_out(site)) wait_as(Fiber::kAtBarrier);
}

// The lanes of a warp meet with their operands; the last to come calls `compute` on all of them.
template <class Operands>
void meet(const char* operation, const Operands& own, const std::function<void(const Operands* const*)>& compute) {
    const int first = state.current / kWarp * kWarp;
    Warp& warp = state.warps[static_cast<size_t>(state.current / kWarp)];
    self().operands = &own;
    if (warp.arrived++ == 0) warp.operation = operation;
    if (std::strcmp(warp.operation, operation) != 0) fail("lanes meet in different instructions");
    if (warp.arrived < kWarp) return wait_as(Fiber::kInWarp);
    const Operands* lanes[kWarp];
    for (int lane = 0; lane < kWarp; ++lane) {
        Fiber& fiber = state.fibers[static_cast<size_t>(first + lane)];
        lanes[lane] = static_cast<const Operands*>(fiber.operands);
        fiber.state = Fiber::kReady;
    }
    warp.arrived = 0;
    compute(lanes);
}

inline uint32_t shuffle(uint32_t value, uint32_t lane) {
    struct Operands {
        uint32_t value, lane;
        uint32_t* result;
    };
    uint32_t result = 0;
    meet<Operands>("shuffle", {value, lane, &result}, [](const Operands* const* lanes) {
        for (int lane = 0; lane < kWarp; ++lane) *lanes[lane]->result = lanes[lanes[lane]->lane % kWarp]->value;
    });
    return result;
}

inline uint32_t shuffle_xor(uint32_t value, int mask) {
    return shuffle(value, static_cast<uint32_t>(state.current % kWarp ^ mask));
}

template <int kMatrices>
void ldmatrix(uint32_t (&rows)[kMatrices], uint32_t from) {
    struct Operands {
        uint32_t from;
        uint32_t* rows;
    };
    meet<Operands>("ldmatrix", {from, rows}, [](const Operands* const* lanes) {
        for (int matrix = 0; matrix < kMatrices; ++matrix) {
            std::set<uint32_t> addresses, banks;
            for (int row = 0; row < 8; ++row) {
                const int lane = matrix * 8 + row;
                const uint32_t address = lanes[lane]->from;
                addresses.insert(address);
                banks.insert(address / 16 % 8);
                const uint8_t* bytes = shared_at(address, 16, false, state.current / kWarp * kWarp + lane);
                for (int word = 0; word < 4; ++word)
                    std::memcpy(&lanes[row * 4 + word]->rows[matrix], bytes + 4 * word, 4);
            }
            state.bank_conflicts += static_cast<long>(addresses.size() - banks.size());
        }
    });
}

// -- matrix products

// Sum of products of four unsigned bytes with four bytes of type B.
template <class B>
int32_t dot4(uint32_t a, uint32_t b) {
    int32_t sum = 0;
    for (int i = 0; i < 32; i += 8) sum += static_cast<uint8_t>(a >> i) * static_cast<B>(b >> i);
    return sum;
}

using Dot = int32_t (*)(uint32_t, uint32_t);  // multiplies two words

// What an instruction of this shape and these types does, by its name: the device gets the same one.
inline Dot dot_of(std::string_view instruction, std::string_view bits, std::string_view bytes) {
    const auto is = [&](std::string_view shape, std::string_view rest) {
        return instruction.size() == shape.size() + rest.size() && instruction.substr(0, shape.size()) == shape &&
               instruction.substr(shape.size()) == rest;
    };
    if (is(bits, ".row.col.s32.b1.b1.s32.xor.popc")) return dot_xor;
    if (is(bits, ".row.col.s32.b1.b1.s32.and.popc")) return dot_and;
    if (is(bytes, ".row.col.s32.u8.s8.s32")) return dot4<int8_t>;
    if (is(bytes, ".row.col.s32.u8.u8.s32")) return dot4<uint8_t>;
    fail("no such product");
}

// c[kRows][8] += a[kRows][kWords words] * b[kWords words][8], in the fragments that ptx.hpp describes.
template <int kRows, int kWords>
void multiply(const char* instruction, Dot dot, int32_t* c, const uint32_t* a, const uint32_t* b) {
    struct Operands {
        int32_t* c;
        const uint32_t *a, *b;
    };
    meet<Operands>(instruction, {c, a, b}, [dot](const Operands* const* lanes) {
        for (int row = 0; row < kRows; ++row)
            for (int column = 0; column < 8; ++column) {
                int32_t sum = 0;
                for (int word = 0; word < kWords; ++word)
                    sum += dot(lanes[row % 8 * 4 + word % 4]->a[row / 8 + word / 4 * 2],
                               lanes[column * 4 + word % 4]->b[word / 4]);
                lanes[row % 8 * 4 + column / 2]->c[row / 8 * 2 + column % 2] += sum;
            }
    });
}

inline void mma(const char* instruction, int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                const int32_t (&c)[4]) {
    const Dot dot = dot_of(instruction, "m16n8k256", "m16n8k32");
    if (capability < 80) fail("no such product on Turing");
    if (capability >= 90 && dot == dot_xor) fail("no XOR from Hopper on");
    std::copy_n(c, 4, d);
    multiply<16, 8>(instruction, dot, d, a, b);
}

inline void mma_quarter(const char* instruction, int32_t& c0, int32_t& c1, uint32_t a, uint32_t b) {
    const Dot dot = dot_of(instruction, "m8n8k128", "m8n8k16");
    if (dot == dot_and) fail("no AND of this shape before Ampere");
    int32_t c[2] = {c0, c1};
    multiply<8, 4>(instruction, dot, c, &a, &b);
    c0 = c[0];
    c1 = c[1];
}

}  // namespace emulation
