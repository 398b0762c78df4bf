// A GPU's thread block on the CPU: its threads, who of them runs, and the memory that they may touch. What they do is
// in emulation.hpp.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
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
    bool constant;                // no kernel ever writes it
    std::vector<uint8_t> writes;  // by byte: how often a launch has written it
};

inline std::vector<Range> ranges;

inline void declare(const void* begin, size_t bytes, bool writable, bool constant = false) {
    const auto address = reinterpret_cast<uintptr_t>(begin);
    for (const Range& other : ranges)
        if (address < other.end && other.begin < address + bytes) fail("tensors of one launch overlap");
    ranges.push_back({address, address + bytes, writable, constant, std::vector<uint8_t>(writable ? bytes : 0)});
}

// -- the block that runs

struct Copy {
    uint32_t to;
    const void* from;
    int bytes;
    bool real;
};

// A product of a warpgroup that one of its threads has begun: its own sums of it.
constexpr size_t kMostSums = 64;
struct Product {
    int32_t* sums;
    size_t count;
    uint64_t a, b;
    bool adds;
    bool is_early;  // it has read its operands already
    std::array<int32_t, kMostSums> early;
};

struct Fiber {
    enum State { kReady, kInWarp, kAtBarrier, kDone };
    State state = kDone;
    bool started = false;
    bool has_waited = false;  // for the kernel before
    ucontext_t entry;
    jmp_buf resume;
    std::vector<char> stack = std::vector<char>(kStack);
    std::vector<std::vector<Copy>> groups;  // committed, oldest first
    std::vector<Copy> open;
    std::vector<std::vector<Product>> product_groups;  // committed, oldest first
    std::vector<Product> products;
    std::map<int32_t*, std::vector<int32_t>> in_flight;  // sums of products under way, by where they go
    bool is_fenced = false;                              // wgmma.fence since they were last touched
    std::vector<size_t> unfenced;                        // words of shared memory written since fence.proxy.async
    const void* operands;
};

// What happened to a word of shared memory since the last barrier.
struct Access {
    static constexpr int kSeveral = -1;
    long phase = -1;
    int thread = 0;  // who touched it
    bool written = false;
    bool unfenced = false;  // written, and no fence.proxy.async since: products of warpgroups may not see it
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

// The range of an access. What a launch writes it does not read: other blocks may be writing it.
inline Range& range_of(const void* at, size_t bytes, bool write) {
    const auto address = reinterpret_cast<uintptr_t>(at);
    if (address % bytes) fail("misaligned access to global memory");
    for (Range& range : ranges)
        if (range.begin <= address && address + bytes <= range.end && range.writable == write) {
            if (!range.constant && !self().has_waited)
                fail("memory of the kernel before is touched before that has ended");
            return range;
        }
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
        fiber.started = fiber.has_waited = false;
        fiber.groups.clear();
        fiber.open.clear();
        fiber.product_groups.clear();
        fiber.products.clear();
        fiber.in_flight.clear();
        fiber.unfenced.clear();
        fiber.is_fenced = false;
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
    throw std::runtime_error(state.error);
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

}  // namespace emulation
