// What tests can set and see of the CUDA runtime that fake_cudart.cpp plays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <utility>

namespace fake_cudart {

inline int gpus = 1;
inline int capability = 80;
inline bool has_warpgroups = false;           // that the kernels are compiled for: their bit operation follows
inline int driver = 13000;                    // the CUDA version that the driver offers; 0: there is no driver
inline bool integrated = false;               // whether GPU and host share their memory
inline size_t capacity = size_t{1} << 40;     // bytes of device memory
inline size_t shared_per_block = 100 * 1024;  // bytes
inline int loading_fails_with = 0;            // a cudaError_t of the first look at a kernel
inline bool mapping_fails = false;            // of pinned memory into the device's
inline int launches_until_failure = -1;       // -1: none fails
inline int copies_until_failure = -1;         // the same, of copies that a stream is told
inline bool pinning_fails = false;            // of more than a session needs for itself: of a MiB and more
inline std::set<std::pair<const uint8_t*, size_t>> copied;  // of the host's memory, from and to which copies went
inline int graphs_launched = 0, kernels_run = 0;            // so far
size_t allocated();                                         // bytes of device memory and of pinned memory
size_t device_allocated();                                  // of device memory alone
bool waiting();                                             // whether a stream has something left to do

}  // namespace fake_cudart
