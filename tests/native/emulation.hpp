// A GPU's thread block on the CPU: what csrc/cuda/ptx.hpp calls where there is no nvcc.
//
// Threads are fibers. A fiber runs until it waits for its block (barrier) or its warp (a collective instruction); who
// goes on is drawn by a seeded generator, so that what a kernel leaves unordered happens in many orders. Shared memory
// starts as poison. An asynchronous copy turns its target into poison at once, and lands when its own thread waits for
// it. Two threads that touch a word of shared memory with no barrier in between, one of them writing, are an error in
// whichever order they came. Global memory must be declared, and is checked at every access. An instruction that the
// emulated compute capability lacks, and a grid or a block larger than it allows, are errors. One emulated launch at a
// time.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace emulation {

struct Index {
    int x, y, z;
};

// A line with a barrier or a wait.
struct Site {
    std::string file;
    int line;
    auto operator<=>(const Site&) const = default;
};

inline int capability = 80;  // 10 * major + minor of the device that is emulated

constexpr uint32_t kSharedBase = 1024;  // not 0: an offset taken for an address must fail
constexpr int kWarp = 32;
constexpr size_t kStack = 64 * 1024;

[[noreturn]] inline void fail(const std::string& what) { throw std::runtime_error("emulation: " + what); }

// Bytes of shared memory that a block may have, by compute capability (CUDA C++ Programming Guide, "Technical
// Specifications per Compute Capability").
inline size_t shared_limit() {
    switch (capability) {
        case 75: return 64 * 1024;
        case 80:
        case 87: return 163 * 1024;
        case 90: return 227 * 1024;
        default: return 99 * 1024;  // 86, 89, 120
    }
}

// -- global memory

struct Range {
    uintptr_t begin, end;
    bool writable;
    std::vector<uint8_t> writes;  // by byte: how often a launch has written it
};

inline std::vector<Range> ranges;

inline void declare(const void* begin, size_t bytes, bool writable) {
    const auto address = reinterpret_cast<uintptr_t>(begin);
    for (const Range& other : ranges)
        if (address < other.end && other.begin < address + bytes) fail("tensors of one launch overlap");
    ranges.push_back({address, address + bytes, writable, std::vector<uint8_t>(writable ? bytes : 0)});
}

// The range of an access. What a launch writes it does not read: other blocks may be writing it.
inline Range& range_of(const void* at, size_t bytes, bool write) {
    const auto address = reinterpret_cast<uintptr_t>(at);
    if (address % bytes) fail("misaligned access to global memory");
    for (Range& range : ranges)
        if (range.begin <= address && address + bytes <= range.end && range.writable == write) return range;
    fail(write ? "write outside of global memory" : "read outside of global memory");
}

template <class T>
T load(const T* from) {
    range_of(from, sizeof(T), false);
    return *from;
}

template <class T>
void store(T* to, T value) {
    Range& range = range_of(to, sizeof(T), true);
    const size_t offset = reinterpret_cast<uintptr_t>(to) - range.begin;
    for (size_t i = 0; i < sizeof(T); ++i) ++range.writes[offset + i];
    *to = value;
}

// -- the block that runs

struct Copy {
    uint32_t to;
    const void* from;
    int bytes;
    bool real;
};

struct Fiber {
    enum State { kReady, kInWarp, kAtBarrier, kDone };
    State state = kDone;
    bool started = false;
    ucontext_t entry;
    jmp_buf resume;
    std::vector<char> stack = std::vector<char>(kStack);
    std::vector<std::vector<Copy>> groups;  // committed, oldest first
    std::vector<Copy> open;
    const void* operands;
};

// What happened to a word of shared memory since the last barrier.
struct Access {
    static constexpr int kSeveral = -1;
    long phase = -1;
    int thread = 0;  // who touched it
    bool written = false;
};

struct Warp {
    int arrived = 0;
    const char* operation = nullptr;
};

struct State {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<uint8_t> shared;
    std::vector<Access> accesses;  // by word of it
    long phase = 0;                // barriers passed so far
    std::mt19937 random;
    int current = 0;
    Index block{};
    const std::function<void()>* kernel = nullptr;
    jmp_buf scheduler;
    ucontext_t origin;
    std::string error;
    // over all launches
    std::set<Site> sites;
    const Site* left_out = nullptr;
    long bank_conflicts = 0;
};

inline State state;

inline int thread() { return state.current; }
inline Index block() { return state.block; }
inline Fiber& self() { return state.fibers[static_cast<size_t>(state.current)]; }

// Gives the processor back to the scheduler until somebody makes the fiber ready.
inline void wait_as(Fiber::State why) {
    self().state = why;
    if (_setjmp(self().resume) == 0) _longjmp(state.scheduler, 1);
}

inline void fiber_main() {
    try {
        (*state.kernel)();
    } catch (const std::exception& error) {
        state.error = error.what();
    }
    self().state = Fiber::kDone;
    _longjmp(state.scheduler, 1);
}

inline void resume(int index) {
    state.current = index;
    Fiber& fiber = self();
    if (_setjmp(state.scheduler)) return;
    if (fiber.started) _longjmp(fiber.resume, 1);
    fiber.started = true;
    getcontext(&fiber.entry);
    fiber.entry.uc_stack.ss_sp = fiber.stack.data();
    fiber.entry.uc_stack.ss_size = fiber.stack.size();
    fiber.entry.uc_link = nullptr;
    makecontext(&fiber.entry, fiber_main, 0);
    setcontext(&fiber.entry);
}

// A ready thread: of the warp that ran last or, at random, of another one. -1 if there is none.
inline int choose(int& warp, unsigned stay) {
    const int warps = static_cast<int>(state.warps.size());
    const auto draw = [](int n) { return static_cast<int>(state.random() % static_cast<unsigned>(n)); };
    if (state.random() % 16 >= stay) warp = draw(warps);
    for (int tries = 0; tries < warps; ++tries, warp = (warp + 1) % warps) {
        const int first = draw(kWarp);
        for (int i = 0; i < kWarp; ++i) {
            const int index = warp * kWarp + (first + i) % kWarp;
            if (state.fibers[static_cast<size_t>(index)].state == Fiber::kReady) return index;
        }
    }
    return -1;
}

inline void run_block() {
    for (Fiber& fiber : state.fibers) {
        fiber.state = Fiber::kReady;
        fiber.started = false;
        fiber.groups.clear();
        fiber.open.clear();
    }
    for (Warp& warp : state.warps) warp = {};
    for (uint8_t& byte : state.shared) byte = static_cast<uint8_t>(state.random());
    ++state.phase;
    int warp = 0;
    const unsigned stay = 16 - state.random() % 4 * 2;  // a block in four runs every warp as far as it gets
    while (state.error.empty()) {
        const int index = choose(warp, stay);
        if (index >= 0) {
            resume(index);
            continue;
        }
        const auto count = [](Fiber::State wanted) {
            return std::count_if(state.fibers.begin(), state.fibers.end(),
                                 [=](const Fiber& fiber) { return fiber.state == wanted; });
        };
        const auto size = static_cast<ptrdiff_t>(state.fibers.size());
        if (count(Fiber::kDone) == size) return;
        if (count(Fiber::kAtBarrier) != size) fail("deadlock");
        for (Fiber& fiber : state.fibers) fiber.state = Fiber::kReady;
        ++state.phase;
    }
    fail(state.error);
}

// Runs `kernel` as every thread of every block, blocks in random order.
inline void run_grid(Index grid, int threads, size_t shared_bytes, unsigned seed, const std::function<void()>& kernel) {
    if (grid.y > 65535 || grid.z > 65535) fail("a grid too large");
    if (shared_bytes > shared_limit()) fail("too much shared memory");
    state.random.seed(seed);
    state.error.clear();
    state.kernel = &kernel;
    state.fibers.resize(static_cast<size_t>(threads));
    state.warps.resize(static_cast<size_t>(threads / kWarp));
    state.shared.resize(shared_bytes);
    state.accesses.resize((shared_bytes + 3) / 4);
    std::vector<Index> blocks;
    for (int z = 0; z < grid.z; ++z)
        for (int y = 0; y < grid.y; ++y)
            for (int x = 0; x < grid.x; ++x) blocks.push_back({x, y, z});
    std::shuffle(blocks.begin(), blocks.end(), state.random);
    for (const Index& block : blocks) {
        state.block = block;
        run_block();
    }
}

// -- shared memory

inline void touch(Access& access, int thread, bool writes) {
    if (access.phase != state.phase) {
        access = {state.phase, thread, writes};
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
    for (size_t word = offset / 4; word < (offset + bytes) / 4; ++word) touch(state.accesses[word], thread, writes);
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

inline uint32_t shuffle_xor(uint32_t value, int mask) {
    struct Operands {
        uint32_t value;
        int mask;
        uint32_t* result;
    };
    uint32_t result = 0;
    meet<Operands>("shuffle", {value, mask, &result}, [](const Operands* const* lanes) {
        for (int lane = 0; lane < kWarp; ++lane) *lanes[lane]->result = lanes[lane ^ lanes[lane]->mask]->value;
    });
    return result;
}

inline void ldmatrix(uint32_t (&rows)[4], uint32_t from) {
    struct Operands {
        uint32_t from;
        uint32_t* rows;
    };
    meet<Operands>("ldmatrix", {from, rows}, [](const Operands* const* lanes) {
        for (int matrix = 0; matrix < 4; ++matrix) {
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

inline int32_t dot_xor(uint32_t a, uint32_t b) { return __builtin_popcount(a ^ b); }
inline int32_t dot_and(uint32_t a, uint32_t b) { return __builtin_popcount(a & b); }

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

inline void mma(const char* instruction, int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    const Dot dot = dot_of(instruction, "m16n8k256", "m16n8k32");
    if (capability < 80) fail("no such product on Turing");
    if (capability >= 90 && dot == dot_xor) fail("no XOR from Hopper on");
    multiply<16, 8>(instruction, dot, c, a, b);
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
