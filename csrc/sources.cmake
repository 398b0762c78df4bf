# Which sources there are, relative to this folder: for the build, and for tests that compile some of them themselves
# (tests/native/sources.py, which reads nothing but lines like these).
set(shared_sources memory_plan.cpp network.cpp threads.cpp)
set(module_sources binding.cpp contrast.cpp cpu/peak.cpp resize.cpp)
set(cpu_sources cpu/doubling.cpp cpu/execute.cpp cpu/execute_head.cpp cpu/kernels/portable.cpp cpu/kernels/probe.cpp cpu/layout.cpp cpu/packed_weights.cpp cpu/pixel_rows.cpp
                cpu/raster.cpp cpu/session.cpp cpu/shape_plan.cpp cpu/sparse_lists.cpp)
set(x86_64_sources cpu/kernels/avx2.cpp cpu/kernels/avx512.cpp)
set(aarch64_sources cpu/kernels/neon.cpp)
set(cuda_layer_sources cuda/conv_weights.cpp cuda/k_schedule.cpp cuda/layer.cpp)
set(cuda_sources cuda/device_layout.cpp cuda/gpus.cpp cuda/memory.cpp cuda/native_session.cpp cuda/pinned_pool.cpp)
set(cuda_kernels cuda/kernels.cu)
set(cuda_stub cuda/stub.cpp)
