// The kernel tables of the instruction sets; which of them exist depends on the architecture compiled for.
#pragma once

#include "kernels.hpp"

namespace mbunet::cpu {

namespace portable {
extern const Kernels kernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
namespace avx512vnni {
extern const Kernels kernels;
}
#elif defined(__aarch64__)
namespace neon {
extern const Kernels kernels;
}
#endif

}  // namespace mbunet::cpu
