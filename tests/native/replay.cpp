// Replays cases on a session outside Python: reads networks and images from standard input, writes logits to standard
// output. For machines that can run the kernels but not this repository's Python, such as an emulated one.
#include "../../csrc/cpu/session.hpp"
#include "protocol.hpp"

namespace {

bool replay_case(const protocol::Header& header) {
    mbunet::cpu::Session session(mbunet::cpu::kernels_named(header.kernel), header.threads);
    if (!protocol::read_network(session.network())) return false;
    protocol::Images all = protocol::read_images(session.network().classes());
    session.run(all.images);
    session.poison(0xFF);
    for (auto& values : all.logits) std::fill(values.begin(), values.end(), -1);
    session.run(all.images);
    protocol::write_logits(all);
    return true;
}

}  // namespace

int main() {
    const protocol::Header header = protocol::read_header();
    while (replay_case(header)) {
    }
    return 0;
}
