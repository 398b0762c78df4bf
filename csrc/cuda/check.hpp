// CUDA's error codes as exceptions.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "session.hpp"

namespace mbunet::cuda {

// Throws Error unless `code` is success.
inline void check(int code, const std::string& doing) {
    if (code == cudaSuccess) return;
    cudaGetLastError();  // so that the next call does not report it again
    throw Error(doing + ": " + cudaGetErrorString(static_cast<cudaError_t>(code)));
}

}  // namespace mbunet::cuda
