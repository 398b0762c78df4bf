// Code between MBUNET_TARGET_BEGIN and MBUNET_TARGET_END is compiled for more than the baseline. Everything the region
// instantiates must be defined inside it: a template of a header included before keeps the baseline.
#pragma once

#define MBUNET_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define MBUNET_TARGET_BEGIN(features) \
    MBUNET_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define MBUNET_TARGET_END MBUNET_PRAGMA(clang attribute pop)
#else
#define MBUNET_TARGET_BEGIN(features) MBUNET_PRAGMA(GCC push_options) MBUNET_PRAGMA(GCC target(features))
#define MBUNET_TARGET_END MBUNET_PRAGMA(GCC pop_options)
#endif
