// The kernels on the device. Every kernel is compiled with the bit operation of its architecture.
#include <cuda_runtime.h>

#include "dispatch.hpp"
#include "heuristics.hpp"
#include "peak.hpp"

namespace mbunet::cuda {

namespace {

#ifdef __CUDA_ARCH__
constexpr BitOp kBitOp = bit_op_of(__CUDA_ARCH__ / 10);
#else
constexpr BitOp kBitOp = BitOp::kXor;  // host code only names the kernels
#endif

template <class Kernel>
constexpr int blocks_of() {
    if constexpr (requires { Kernel::kBlocks; })
        return Kernel::kBlocks;
    else
        return kResidentBlocks;
}

template <class Kernel>
__global__ void __launch_bounds__(threads_of<Kernel>(), blocks_of<Kernel>()) entry(const typename Kernel::Args args) {
    run_kernel<Kernel, kBitOp>(args);
}

__device__ int loaded_has_warpgroups = has_warpgroups();

}  // namespace

int loaded_code(LoadedCode& code) {
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, entry<Head>);
    if (error != cudaSuccess) return error;
    int warpgroups = 0;
    code.capability = attributes.ptxVersion;  // __CUDA_ARCH__ / 10, of machine code too
    const cudaError_t copied = cudaMemcpyFromSymbol(&warpgroups, loaded_has_warpgroups, sizeof warpgroups);
    code.has_warpgroups = warpgroups != 0;
    return copied;
}

int launch(const Launch& launch, const Device& device, Stream stream) {
    return dispatch(launch, device, [&]<class Kernel>(const Grid& grid, const typename Kernel::Args& args) -> int {
        constexpr size_t kAlways = 48 * 1024;  // what every block may have without asking
        if (grid.shared_bytes > kAlways) {
            // All there is, not what this launch needs: the kernel keeps one limit, and another session may launch it
            // with more between these two calls.
            const cudaError_t error =
                cudaFuncSetAttribute(entry<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, device.shared_bytes);
            if (error != cudaSuccess) return error;
        }
        void* arguments[] = {const_cast<typename Kernel::Args*>(&args)};
        const auto* kernel = reinterpret_cast<const void*>(entry<Kernel>);
        const dim3 blocks(grid.x, grid.y, grid.z);
        if (!device.overlaps || !launch.follows)
            return cudaLaunchKernel(kernel, blocks, dim3(threads_of<Kernel>()), arguments, grid.shared_bytes, stream);
        cudaLaunchAttribute early{};
        early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        early.val.programmaticStreamSerializationAllowed = 1;
        const cudaLaunchConfig_t config{blocks, dim3(threads_of<Kernel>()), grid.shared_bytes, stream, &early, 1};
        return cudaLaunchKernelExC(&config, kernel, arguments);
    });
}

int peak(const Device& device, int iterations, double& operations, Stream stream) {
    const int blocks = device.multiprocessors * kResidentBlocks;
    operations = 2.0 * 16 * 8 * 256 * Peak::kIndependent * iterations * kWarps * blocks;
    entry<Peak><<<blocks, kThreads, kThreads * sizeof(int32_t), stream>>>({iterations});
    return cudaGetLastError();
}

}  // namespace mbunet::cuda
