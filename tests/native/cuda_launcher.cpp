// kernels.cu as nvcc compiles it, launching on a CUDA that only looks on. Two sessions run the same kernel with more
// shared memory than every block may have; the second launches while the first is between raising the kernel's limit
// and its own launch. Then a kernel that follows another: where the device lets it begin early, the launch says so.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <functional>
#include <map>
#include <utility>

#include "../../csrc/cuda/kernels.hpp"

namespace {

using namespace mbunet;

constexpr int kOffered = 99 * 1024;

std::map<const void*, int> limits;  // by kernel
std::function<void()> in_between;   // called once, when a limit has been raised
int launches = 0, early_launches = 0;

// Whether a convolution over inputs of so many channels is launched.
bool launches_one(const std::vector<int>& input_channels, bool follows = false, bool overlaps = false) {
    cuda::Layer layer{Op::kConv, cuda::BitOp::kXor, 64, input_channels};
    layer.masked = true;
    layer.k_steps = 2;
    cuda::Launch launch{};
    launch.layer = &layer;
    launch.images = 3;
    launch.height = launch.width = 64;
    launch.follows = follows;
    return cuda::launch(launch, {cuda::BitOp::kXor, 1, kOffered, 0, overlaps}, nullptr) == cudaSuccess;
}

}  // namespace

extern "C" cudaError_t __wrap_cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
    if (value > kOffered) return cudaErrorInvalidValue;
    limits[kernel] = value;
    if (const auto act = std::exchange(in_between, nullptr)) act();
    return cudaSuccess;
}

namespace {

cudaError_t launched(const void* kernel, dim3 grid, dim3 block, size_t shared) {
    const int limit = limits.contains(kernel) ? limits[kernel] : 48 * 1024;
    const bool right = grid.x == 32 && grid.y == 1 && grid.z == 3 && block.x == 128;
    ++launches;
    return right && shared <= static_cast<size_t>(limit) ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

extern "C" cudaError_t __wrap_cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void**, size_t shared,
                                               cudaStream_t) {
    return launched(kernel, grid, block, shared);
}

extern "C" cudaError_t __wrap_cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel, void**) {
    const bool early = config->numAttrs == 1 &&
                       config->attrs->id == cudaLaunchAttributeProgrammaticStreamSerialization &&
                       config->attrs->val.programmaticStreamSerializationAllowed == 1;
    early_launches += early;
    return launched(kernel, config->gridDim, config->blockDim, config->dynamicSmemBytes);
}

int main() {
    bool other = false;
    in_between = [&] { other = launches_one({1024, 512}); };
    const bool own = launches_one({1024, 1024});
    bool right = own && other && launches == 2;
    right &= launches_one({512}, true, false) && launches_one({512}, false, true) && early_launches == 0;
    right &= launches_one({512}, true, true) && early_launches == 1 && launches == 5;
    std::puts(right ? "holds" : "fails");
}
