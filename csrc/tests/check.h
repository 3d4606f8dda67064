/* What the C tests share: a check that counts and goes on, random numbers that are the
 * same everywhere, and a loop over the instruction sets of this machine. */
#ifndef SEMSHARE_TESTS_CHECK_H
#define SEMSHARE_TESTS_CHECK_H

#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int checks, failures;

#define CHECK(condition, ...)                            \
    do {                                                 \
        checks++;                                        \
        if (!(condition)) {                              \
            failures++;                                  \
            printf("FAIL %s:%d: ", __FILE__, __LINE__);  \
            printf(__VA_ARGS__);                         \
            printf("\n");                                \
        }                                                \
    } while (0)

static inline int report(const char * name) {
    printf("%s: %d checks, %d failures\n", name, checks, failures);
    return failures == 0 ? 0 : 1;
}

/* splitmix64 */
static inline uint64_t next_random(uint64_t * state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static inline int32_t random_below(uint64_t * state, int32_t n) {
    return (int32_t) (next_random(state) % (uint64_t) n);
}

/* Roughly normal, mean 0. */
static inline float random_float(uint64_t * state) {
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        sum += (float) (next_random(state) >> 40) / 0x1p24f - 0.5f;
    }
    return sum;
}

static const char * const cpus[] = {"scalar", "avx2", "avx512", "neon"};
enum { N_CPUS = sizeof cpus / sizeof cpus[0] };

static const uint32_t cache_types[] = {
    SEMSHARE_TYPE_F32, SEMSHARE_TYPE_F16, SEMSHARE_TYPE_BF16, SEMSHARE_TYPE_Q8_0, SEMSHARE_TYPE_Q4_0,
    SEMSHARE_TYPE_Q4_1, SEMSHARE_TYPE_Q5_0, SEMSHARE_TYPE_Q5_1, SEMSHARE_TYPE_IQ4_NL,
};
enum { N_CACHE_TYPES = sizeof cache_types / sizeof cache_types[0] };

#endif
