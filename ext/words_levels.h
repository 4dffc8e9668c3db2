/* The instruction sets words are counted with, slowest first, and which this machine has. */
#ifndef ENGINE_WORDS_LEVELS_H
#define ENGINE_WORDS_LEVELS_H
#include "word_counter.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define LEVEL_JOIN(name, level) name##_##level
#define LEVEL_NAME(name, level) LEVEL_JOIN(name, level)
#define LEVEL(name) LEVEL_NAME(name, LEVEL_IS)

#define LEVEL_IS portable
#include "words_body.h"
#undef LEVEL_IS

#if defined(__x86_64__)

static const uint8_t word_places[64] __attribute__((aligned(64))) = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};

#define LEVEL_IS sse2
#define LEVEL_SSE2 1
#include "words_body.h"
#undef LEVEL_IS

/* From here on what follows may use more than the file at large: two compilers, two spellings. */
#define LEVEL_CRC 1
#define LEVEL_POPCOUNT 1
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("sse4.2,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("sse4.2,popcnt")
#endif
#define LEVEL_IS sse42
#include "words_body.h"
#undef LEVEL_IS
#undef LEVEL_SSE2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("sse4.2,popcnt,avx2,bmi,bmi2,lzcnt"))), \
                             apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("sse4.2,popcnt,avx2,bmi,bmi2,lzcnt")
#endif
#define LEVEL_IS avx2
#define LEVEL_AVX2 1
#include "words_body.h"
#undef LEVEL_IS
#undef LEVEL_AVX2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(                                                                      \
    __attribute__((target(                                                                         \
        "sse4.2,popcnt,avx2,bmi,bmi2,lzcnt,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2"))), \
    apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target( \
    "sse4.2,popcnt,avx2,bmi,bmi2,lzcnt,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2")
#endif
#define LEVEL_IS avx512
#define LEVEL_AVX512 1
#include "words_body.h"
#undef LEVEL_IS
#undef LEVEL_AVX512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

static int words_have_sse42(void) {
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
}

static int words_have_avx2(void) {
    return words_have_sse42() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2");
}

static int words_have_avx512(void) {
    return words_have_avx2() && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512vbmi2");
}

#elif defined(__aarch64__)

#define LEVEL_IS neon
#define LEVEL_NEON 1
#include "words_body.h"
#undef LEVEL_IS
#undef LEVEL_NEON

#endif

static int words_have_always(void) { return 1; }

typedef struct {
    const char *name;
    int (*usable)(void);
    word_count_text *count_text_words;
} words_level;

static const words_level words_levels[] = {
    {"portable", words_have_always, count_text_words_portable},
#if defined(__x86_64__)
    {"sse2", words_have_always, count_text_words_sse2},
    {"sse4.2", words_have_sse42, count_text_words_sse42},
    {"avx2", words_have_avx2, count_text_words_avx2},
    {"avx512", words_have_avx512, count_text_words_avx512},
#elif defined(__aarch64__)
    {"neon", words_have_always, count_text_words_neon},
#endif
};

#define WORDS_LEVELS ((int)(sizeof words_levels / sizeof *words_levels))

#endif
