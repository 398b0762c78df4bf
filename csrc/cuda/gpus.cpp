#include "check.hpp"

namespace mbunet::cuda {

namespace {

std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

// Why the runtime counts no devices.
std::string reason(cudaError_t code) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    cudaGetLastError();
    if (driver == 0) return "there is no NVIDIA driver";
    if (code == cudaErrorInsufficientDriver)
        return "the NVIDIA driver is too old: it offers CUDA " + version(driver) + ", this build needs " +
               version(CUDART_VERSION);
    return cudaGetErrorString(code);
}

}  // namespace

std::vector<Gpu> gpus() {
    int count = 0;
    if (const cudaError_t code = cudaGetDeviceCount(&count); code != cudaSuccess) throw Error(reason(code));
    std::vector<Gpu> found;
    for (int i = 0; i < count; ++i) {
        cudaDeviceProp properties;
        check(cudaGetDeviceProperties(&properties, i), "looking at GPU " + std::to_string(i));
        char bus[32] = "";
        check(cudaDeviceGetPCIBusId(bus, sizeof bus, i), "looking at GPU " + std::to_string(i));
        found.push_back({properties.name, bus, 10 * properties.major + properties.minor, properties.totalGlobalMem});
    }
    return found;
}

}  // namespace mbunet::cuda
