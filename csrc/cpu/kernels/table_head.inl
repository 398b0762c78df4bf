// Last layer by tables: the bits of eight planes at one lane look up the sum that they add.

void head(const HeadArgs& args, const uint8_t* bits, int32_t* logits) {
    const int octets = (args.planes + 7) / 8;
    for (int c = 0; c < args.classes; ++c)
        for (int lane = 0; lane < kHeadLanes; ++lane) logits[c * kHeadLanes + lane] = args.base[c];
    for (int octet = 0; octet < octets; ++octet) {
        const int in_octet = args.planes - octet * 8 < 8 ? args.planes - octet * 8 : 8;
        const uint8_t* planes = bits + static_cast<size_t>(octet) * 8 * args.plane;
        for (int byte = 0; byte < kHeadLanes / 8; ++byte) {
            uint64_t by_plane = 0;
            for (int i = 0; i < in_octet; ++i)
                by_plane |= static_cast<uint64_t>(planes[static_cast<size_t>(i) * args.plane + byte]) << (8 * i);
            const uint64_t by_lane = transpose8x8(by_plane);
            for (int c = 0; c < args.classes; ++c) {
                const int32_t* table = args.tables + (static_cast<size_t>(c) * octets + octet) * 256;
                int32_t* out = logits + c * kHeadLanes + byte * 8;
                for (int lane = 0; lane < 8; ++lane) out[lane] += table[by_lane >> (8 * lane) & 0xFF];
            }
        }
    }
}
