#include "memory.hpp"

#include "check.hpp"

namespace mbunet::cuda {

namespace {

std::string mebibytes(size_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB"; }

}  // namespace

bool DeviceMemory::reserve(size_t bytes, const char* purpose) {
    if (bytes <= size_) return false;
    release();
    if (const cudaError_t code = cudaMalloc(reinterpret_cast<void**>(&data_), bytes); code != cudaSuccess) {
        data_ = nullptr;
        size_t free = 0, total = 0;
        cudaMemGetInfo(&free, &total);
        check(code, mebibytes(bytes) + " of GPU memory for " + purpose + ", of which " + mebibytes(free) + " of " +
                        mebibytes(total) + " are free");
    }
    size_ = bytes;
    return true;
}

void DeviceMemory::release() {
    cudaFree(data_);
    data_ = nullptr;
    size_ = 0;
}

bool Staging::reserve(size_t bytes) {
    if (bytes <= size_) return false;
    release();
    if (!shared_) device_.reserve(bytes, "images and results");
    void* host = nullptr;
    check(cudaHostAlloc(&host, bytes, shared_ ? cudaHostAllocMapped : cudaHostAllocDefault),
          mebibytes(bytes) + " of pinned memory for images and results");
    host_ = static_cast<uint8_t*>(host);
    if (shared_) check(cudaHostGetDevicePointer(reinterpret_cast<void**>(&mapped_), host, 0), "mapping pinned memory");
    size_ = bytes;
    return true;
}

void Staging::release() {
    if (host_) cudaFreeHost(host_);
    device_.release();
    host_ = mapped_ = nullptr;
    size_ = 0;
}

}  // namespace mbunet::cuda
