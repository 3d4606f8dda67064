/* The levels of a packed block of 32 values, a byte each: low nibbles first. */
#ifndef SEMSHARE_LEVELS_AVX512_H
#define SEMSHARE_LEVELS_AVX512_H

#include "blocks.h"

#include <immintrin.h>

static inline float half_at(const uint8_t * b) { return _cvtsh_ss(get16(b)); }

/* Levels of four bits. */
static inline __m256i nibbles(const uint8_t * b) {
    const __m128i q = _mm_loadu_si128((const __m128i *) b);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(q, 4), q), _mm256_set1_epi8(15));
}

/* Levels of five bits, the fifth in front. */
static inline __m256i fives(const uint8_t * b) { return _mm256_or_si256(nibbles(b + 4), _mm256_maskz_set1_epi8(get32(b), 16)); }

static inline __m256i less(__m256i levels, int8_t zero) { return _mm256_sub_epi8(levels, _mm256_set1_epi8(zero)); }

#endif
