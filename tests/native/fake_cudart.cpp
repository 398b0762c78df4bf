// The CUDA runtime's calls that the session makes, played by the host, and mbunet::cuda::launch on top of the emulated
// kernels. Stricter than a GPU where that finds mistakes: what a stream is told happens only when somebody waits for
// it, memory that was never written holds garbage, a copy must stay within one allocation of the right kind, nothing is
// copied back that was never set or copied there (what kernels write it does not see), an error that nobody fetched is
// its thread's next launch's, freeing memory that a stream still uses is an error, and so is what a thread asks of the
// device before it has chosen one. Copies may be asked for by several threads at once.
#include "fake_cudart.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "../../csrc/cuda/kernels.hpp"
#include "emulated_launch.hpp"
#include "emulation.hpp"

using Work = std::vector<std::function<void()>>;

struct CUstream_st {
    Work waiting;
    CUgraph_st* recording = nullptr;
    bool spoilt = false;  // whether a launch failed in the recording
};
struct CUgraph_st {
    Work work;
};
struct CUgraphExec_st {
    Work work;
};
struct CUevent_st {};

namespace {

struct Allocation {
    size_t bytes;
    bool device;
    std::vector<uint8_t> set;  // by byte of device memory: whether a call has written it
};

constexpr int kDevice = 0;  // which there is

std::map<uint8_t*, Allocation> allocations;
std::set<cudaStream_t> streams;
std::mutex copying;
thread_local cudaError_t last_error = cudaSuccess;
thread_local int chosen = -1;  // the device of this thread, if it has chosen one

cudaError_t answer(cudaError_t code) { return code == cudaSuccess ? code : last_error = code; }

size_t allocated(bool device) {
    size_t bytes = 0;
    for (const auto& [begin, allocation] : allocations)
        if (allocation.device == device) bytes += allocation.bytes;
    return bytes;
}

uint8_t* allocate(size_t bytes, bool device) {
    constexpr size_t kAlign = 256;
    auto* memory = static_cast<uint8_t*>(std::aligned_alloc(kAlign, (bytes + kAlign - 1) / kAlign * kAlign));
    std::memset(memory, 0xCD, bytes);
    allocations[memory] = {bytes, device, std::vector<uint8_t>(device ? bytes : 0)};
    return memory;
}

cudaError_t release(void* memory) {
    if (chosen != kDevice || fake_cudart::waiting()) return answer(cudaErrorInvalidValue);
    if (!allocations.erase(static_cast<uint8_t*>(memory))) return answer(cudaErrorInvalidValue);
    std::free(memory);
    return cudaSuccess;
}

// The one allocation on the device (or in pinned memory) in which the bytes lie, and where in it; or null.
std::pair<Allocation*, size_t> find(const void* memory, size_t bytes, bool device) {
    const auto* begin = static_cast<const uint8_t*>(memory);
    for (auto& [start, allocation] : allocations)
        if (allocation.device == device && begin >= start && begin + bytes <= start + allocation.bytes)
            return {&allocation, static_cast<size_t>(begin - start)};
    return {nullptr, 0};
}

bool within(const void* memory, size_t bytes, bool device) { return find(memory, bytes, device).first; }

// Marks device memory as set; false where there is none.
bool set(const void* memory, size_t bytes) {
    const auto [allocation, offset] = find(memory, bytes, true);
    if (allocation) std::fill_n(allocation->set.begin() + static_cast<ptrdiff_t>(offset), bytes, uint8_t{1});
    return allocation;
}

bool is_set(const void* memory, size_t bytes) {
    const auto [allocation, offset] = find(memory, bytes, true);
    return allocation && std::count(allocation->set.begin() + static_cast<ptrdiff_t>(offset),
                                    allocation->set.begin() + static_cast<ptrdiff_t>(offset + bytes), 0) == 0;
}

cudaError_t tell(cudaStream_t stream, std::function<void()> work) {
    if (chosen != kDevice) return answer(cudaErrorInvalidDevice);
    (stream->recording ? stream->recording->work : stream->waiting).push_back(std::move(work));
    return cudaSuccess;
}

void finish(cudaStream_t stream) {
    for (const auto& work : stream->waiting) work();
    stream->waiting.clear();
}

}  // namespace

size_t fake_cudart::allocated() { return ::allocated(true) + ::allocated(false); }

size_t fake_cudart::device_allocated() { return ::allocated(true); }

bool fake_cudart::waiting() {
    return std::any_of(streams.begin(), streams.end(), [](cudaStream_t stream) { return !stream->waiting.empty(); });
}

namespace mbunet::cuda {

int loaded_code(LoadedCode& code) {
    code = {fake_cudart::capability, fake_cudart::has_warpgroups};
    return answer(static_cast<cudaError_t>(fake_cudart::loading_fails_with));
}

int launch(const Launch& launch, const Device& device, Stream stream) {
    if (fake_cudart::launches_until_failure >= 0 && fake_cudart::launches_until_failure-- == 0) {
        stream->spoilt = true;
        return answer(cudaErrorLaunchOutOfResources);
    }
    if (last_error != cudaSuccess) return cudaGetLastError();
    return tell(stream, [=] {
        ++fake_cudart::kernels_run;
        emulation::capability = fake_cudart::capability;
        emulate(launch, device, stream);
    });
}

int peak(const Device&, int iterations, double& operations, Stream) {
    operations = iterations;
    return cudaSuccess;
}

}  // namespace mbunet::cuda

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
    *count = fake_cudart::gpus;
    if (fake_cudart::driver < CUDART_VERSION) return answer(cudaErrorInsufficientDriver);
    return answer(fake_cudart::gpus ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaDriverGetVersion(int* version) {
    *version = fake_cudart::driver;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    *properties = {};
    std::strcpy(properties->name, "Fake GPU");
    properties->major = 8;
    properties->totalGlobalMem = fake_cudart::capacity;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* bus, int, int) {
    std::strcpy(bus, "0000:01:00.0");
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
    *value = which == cudaDevAttrIntegrated                     ? fake_cudart::integrated
             : which == cudaDevAttrMaxSharedMemoryPerBlockOptin ? static_cast<int>(fake_cudart::shared_per_block)
                                                                : 4;  // multiprocessors
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
    *device = std::max(chosen, 0);
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    chosen = device;
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t code) {
    return code == cudaErrorMemoryAllocation         ? "out of memory"
           : code == cudaErrorNoKernelImageForDevice ? "no kernel image is available for execution on the device"
           : code == cudaErrorNoDevice               ? "no CUDA-capable device is detected"
                                                     : "some CUDA error";
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    *total = fake_cudart::capacity;
    *free = fake_cudart::capacity - allocated(true);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
    if (chosen != kDevice) return answer(cudaErrorInvalidDevice);
    if (allocated(true) + bytes > fake_cudart::capacity) return answer(cudaErrorMemoryAllocation);
    *memory = allocate(bytes, true);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
    if (fake_cudart::pinning_fails && bytes >= size_t{1} << 20) return answer(cudaErrorMemoryAllocation);
    *memory = allocate(bytes, false);
    return cudaSuccess;
}

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
    if (!fake_cudart::integrated || fake_cudart::mapping_fails) return answer(cudaErrorInvalidValue);
    *device = host;
    return cudaSuccess;
}

cudaError_t cudaFree(void* memory) { return memory ? release(memory) : cudaSuccess; }
cudaError_t cudaFreeHost(void* memory) { return release(memory); }

// To the device from any memory of the host; back into pinned memory only. There is no cudaMemcpy: from pageable memory
// it returns before the device has everything, and the session's stream would not wait for it.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    const std::lock_guard<std::mutex> lock(copying);
    if (fake_cudart::copies_until_failure >= 0 && fake_cudart::copies_until_failure-- == 0)
        return answer(cudaErrorUnknown);
    const bool up = kind == cudaMemcpyHostToDevice;
    if (!(up ? set(to, bytes) : is_set(from, bytes) && within(to, bytes, false))) return answer(cudaErrorInvalidValue);
    fake_cudart::copied.emplace(static_cast<const uint8_t*>(up ? from : to), bytes);
    return tell(stream, [=] { std::memcpy(to, from, bytes); });
}

cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
    if (!set(memory, bytes) && !within(memory, bytes, false)) return answer(cudaErrorInvalidValue);
    std::memset(memory, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
    if (!set(memory, bytes)) return answer(cudaErrorInvalidValue);
    return tell(stream, [=] { std::memset(memory, value, bytes); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = new CUstream_st;
    streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    if (stream->recording) return answer(cudaErrorStreamCaptureUnsupported);
    finish(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    if (stream->recording) return answer(cudaErrorIllegalState);
    stream->recording = new CUgraph_st;
    stream->spoilt = false;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    *graph = std::exchange(stream->recording, nullptr);
    if (stream->spoilt) {
        cudaGraphDestroy(std::exchange(*graph, nullptr));
        return answer(cudaErrorStreamCaptureInvalidated);
    }
    return *graph ? cudaSuccess : answer(cudaErrorIllegalState);
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
    *executable = new CUgraphExec_st{graph->work};
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    if (!graph) return answer(cudaErrorInvalidValue);
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    if (!executable) return answer(cudaErrorInvalidValue);
    delete executable;
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    ++fake_cudart::graphs_launched;
    for (const auto& work : executable->work) tell(stream, work);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
    *event = new CUevent_st;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
    *milliseconds = 1;
    return cudaSuccess;
}

}  // extern "C"
