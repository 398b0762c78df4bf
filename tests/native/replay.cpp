// Replays cases on a session outside Python: reads networks and images from standard input, writes logits and masks to
// standard output. For machines that can run the kernels but not this repository's Python, such as an emulated one.
//
// Input: kernel name length and name, threads, then cases (replay.hpp) until the end.
#include "replay.hpp"

#include <string>

#include "../../csrc/session.hpp"

namespace {

bool replay_case(const std::string& kernel, int threads) {
    mbunet::Session session(mbunet::kernels_named(kernel), threads);
    if (!replay::read_network(session.network())) return false;
    replay::Batch batch(session.network().classes());
    session.run(batch.images);
    session.poison(0xFF);
    batch.forget();
    session.run(batch.images);
    batch.write();
    return true;
}

}  // namespace

int main() {
    const auto name = replay::take<char>(static_cast<size_t>(replay::take_int()));
    const std::string kernel(name.begin(), name.end());
    const int threads = replay::take_int();
    while (replay_case(kernel, threads)) {
    }
    return 0;
}
