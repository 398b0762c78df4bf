#include "pinned_pool.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <iterator>

#include "../rounding.hpp"

namespace mbunet::cuda {

namespace {

constexpr size_t kAlign = 256;  // bytes, of a part

}  // namespace

std::shared_ptr<PinnedPool> PinnedPool::make(int gpu, size_t bytes) {
    void* memory = nullptr;
    if (cudaHostAlloc(&memory, bytes, cudaHostAllocDefault) == cudaSuccess)
        return std::shared_ptr<PinnedPool>(new PinnedPool(gpu, static_cast<uint8_t*>(memory), bytes));
    cudaGetLastError();  // so that the next call does not report it again
    return nullptr;
}

PinnedPool::~PinnedPool() {
    int current = 0;  // of whichever thread ends it, which may be at work on another
    cudaGetDevice(&current);
    cudaSetDevice(gpu_);
    cudaFreeHost(memory_);
    cudaSetDevice(current);
}

std::shared_ptr<uint8_t> PinnedPool::take(size_t bytes) {
    bytes = round_up(std::max(bytes, size_t{1}), kAlign);
    const std::optional<size_t> offset = take_gap(bytes);
    if (!offset) return nullptr;
    return {memory_ + *offset,
            [pool = shared_from_this(), offset = *offset, bytes](uint8_t*) { pool->give_back(offset, bytes); }};
}

std::optional<size_t> PinnedPool::take_gap(size_t bytes) {
    const std::lock_guard lock(taking_);
    const auto gap = std::find_if(gaps_.begin(), gaps_.end(), [&](const auto& some) { return some.second >= bytes; });
    if (gap == gaps_.end()) return std::nullopt;
    const auto [offset, free] = *gap;
    gaps_.erase(gap);
    if (free > bytes) gaps_.emplace(offset + bytes, free - bytes);
    return offset;
}

bool PinnedPool::holds(const void* memory, size_t bytes) const {
    const auto begin = reinterpret_cast<uintptr_t>(memory), own = reinterpret_cast<uintptr_t>(memory_);
    return begin >= own && begin - own <= size_ && bytes <= size_ - (begin - own);
}

void PinnedPool::give_back(size_t offset, size_t bytes) {
    const std::lock_guard lock(taking_);
    auto here = gaps_.emplace(offset, bytes).first;
    if (const auto next = std::next(here); next != gaps_.end() && here->first + here->second == next->first) {
        here->second += next->second;
        gaps_.erase(next);
    }
    if (here == gaps_.begin()) return;
    if (const auto before = std::prev(here); before->first + before->second == here->first) {
        before->second += here->second;
        gaps_.erase(here);
    }
}

}  // namespace mbunet::cuda
