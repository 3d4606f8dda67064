/* The levels of a packed block of 32 values, a byte each: low nibbles first. */
#ifndef SEMSHARE_LEVELS_AVX2_H
#define SEMSHARE_LEVELS_AVX2_H

#include "blocks.h"

#include <immintrin.h>

static inline float half_at(const uint8_t * b) { return _cvtsh_ss(get16(b)); }

/* Levels of four bits. */
static inline __m256i nibbles(const uint8_t * b) {
    const __m128i q = _mm_loadu_si128((const __m128i *) b);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(q, 4), q), _mm256_set1_epi8(15));
}

/* 16 where a bit is set, else 0, for each of 32. */
static inline __m256i fifth_bits(uint32_t bits) {
    const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i each = _mm256_set1_epi64x((int64_t) 0x8040201008040201);
    const __m256i b = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int) bits), spread), each);
    return _mm256_and_si256(_mm256_cmpeq_epi8(b, each), _mm256_set1_epi8(16));
}

/* Levels of five bits, the fifth in front. */
static inline __m256i fives(const uint8_t * b) { return _mm256_or_si256(nibbles(b + 4), fifth_bits(get32(b))); }

static inline __m256i less(__m256i levels, int8_t zero) { return _mm256_sub_epi8(levels, _mm256_set1_epi8(zero)); }

#endif
