// Which kernel tables this machine can run, decided once at run time. With MBUNET_PORTABLE, which some tests define to
// compile one set only, the portable ones alone.
#include <stdexcept>

#include "tables.hpp"

namespace mbunet::cpu {

std::vector<const Kernels*> available_kernels() {
    std::vector<const Kernels*> found;
#if defined(MBUNET_PORTABLE)
#elif defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
        if (__builtin_cpu_supports("avx512vnni")) found.push_back(&avx512vnni::kernels);
        found.push_back(&avx512::kernels);
    }
    if (__builtin_cpu_supports("avx2")) found.push_back(&avx2::kernels);
#elif defined(__aarch64__)
    found.push_back(&neon::kernels);  // part of the architecture
#endif
    found.push_back(&portable::kernels);
    return found;
}

const Kernels& kernels_named(const std::string& name) {
    std::string names = "auto";
    for (const Kernels* kernels : available_kernels()) {
        if (name == "auto" || name == kernels->name) return *kernels;
        names += std::string(", ") + kernels->name;
    }
    throw std::invalid_argument("no kernel '" + name + "' on this machine; there are: " + names);
}

}  // namespace mbunet::cpu
