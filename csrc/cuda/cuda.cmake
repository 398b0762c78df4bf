# Adds the CUDA engine to _native, or what stands in for it.
#
#   MBUNET_CUDA=AUTO  where there are nvcc and a GPU, for the GPUs of this machine: the first start stays quick
#   MBUNET_CUDA=ON    for every architecture of the list below that nvcc knows: wheels and images
#   MBUNET_CUDA=OFF   not at all
#
# CMAKE_CUDA_ARCHITECTURES, or the variable CUDAARCHS, names architectures instead; with AUTO that asks for CUDA where
# there is nvcc.
set(MBUNET_CUDA AUTO CACHE STRING "Build the CUDA engine: AUTO, ON or OFF")

# for GPUs that are newer than these the driver compiles 90's PTX; 90a has products that no other architecture has
set(every_architecture 75-real 80-real 86-real 87-real 89-real 90a-real 90-virtual 120-real)

# The architectures of this machine's GPUs.
function(find_gpus out)
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
                  OUTPUT_VARIABLE found ERROR_QUIET RESULT_VARIABLE status)
  string(REGEX MATCHALL "[0-9]+\\.[0-9]" found "${found}")
  if(NOT found AND EXISTS /etc/nv_tegra_release)
    set(found 8.7)  # all Jetsons that JetPack 6 runs on
  endif()
  list(TRANSFORM found REPLACE "\\." "")
  list(TRANSFORM found REPLACE "^90$" "90a")
  list(TRANSFORM found APPEND -real)
  list(REMOVE_DUPLICATES found)
  set(${out} ${found} PARENT_SCOPE)
endfunction()

# `architectures` without those that this nvcc does not know.
function(keep_known out architectures)
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-code OUTPUT_VARIABLE known)
  string(REGEX MATCHALL "[0-9]+" known "${known}")
  foreach(architecture IN LISTS architectures)
    string(REGEX MATCH "[0-9]+" number ${architecture})
    if(number IN_LIST known)
      list(APPEND kept ${architecture})
    endif()
  endforeach()
  set(${out} ${kept} PARENT_SCOPE)
endfunction()

set(architectures ${CMAKE_CUDA_ARCHITECTURES} $ENV{CUDAARCHS})
set(with_cuda ${MBUNET_CUDA})
if(with_cuda STREQUAL AUTO)
  if(NOT architectures)
    find_gpus(architectures)
  endif()
  set(with_cuda OFF)
  if(architectures)
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
      set(with_cuda ON)
    endif()
  endif()
endif()

if(with_cuda)
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # set below: which there are, nvcc tells
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake before 3.25.2 does not know that nvcc can
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  endif()
  find_package(CUDAToolkit 12.2 REQUIRED)
  if(NOT architectures)
    keep_known(architectures "${every_architecture}")
  endif()
  message(STATUS "mbunet: CUDA ${CUDAToolkit_VERSION} for ${architectures}")
  target_sources(_native PRIVATE ${cuda_layer_sources} ${cuda_sources} ${cuda_kernels})
  target_compile_options(_native PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--threads=0>)
  set_target_properties(_native PROPERTIES CUDA_ARCHITECTURES "${architectures}" CUDA_VISIBILITY_PRESET hidden)
  target_link_libraries(_native PRIVATE CUDA::cudart_static)
else()
  message(STATUS "mbunet: without CUDA")
  target_sources(_native PRIVATE ${cuda_stub})
endif()
