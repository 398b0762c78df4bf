// Stands in for the CUDA engine where it is not compiled.
#include "session.hpp"

namespace mbunet::cuda {

namespace {

constexpr char kWhy[] = "this installation was built without CUDA (no nvcc, or no GPU, was found at that time)";

}  // namespace

std::vector<Gpu> gpus() { throw Error(kWhy); }
std::unique_ptr<Session> make_session(int) { throw Error(kWhy); }

}  // namespace mbunet::cuda
