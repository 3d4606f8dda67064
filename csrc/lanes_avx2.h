/* Vectors of 8, in which attend_loops.h and product_loops.h are written. */
#ifndef SEMSHARE_LANES_AVX2_H
#define SEMSHARE_LANES_AVX2_H

#include <immintrin.h>
#include <stdint.h>

typedef __m256 floats;
typedef __m256i ints;

enum {
    LANES = 8,
    COLUMNS = 2, /* vectors beside one another: those of six rows stay in registers */
};

static inline floats v_all(float x) { return _mm256_set1_ps(x); }
static inline floats v_load(const float * p) { return _mm256_loadu_ps(p); }
static inline void v_store(float * p, floats a) { _mm256_storeu_ps(p, a); }
static inline floats v_fma(floats a, floats b, floats c) { return _mm256_fmadd_ps(a, b, c); }
static inline floats v_larger(floats a, floats b) { return _mm256_max_ps(a, b); }
static inline floats v_nearest(floats a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

static inline float v_largest(floats a) {
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

static inline float v_sum(floats a) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* a times 2 to the n, whole numbers from -126 to 127. */
static inline floats v_scale(floats a, floats n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return a * _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}

static inline floats v_halves(const uint8_t * p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p)); }

/* Turns rows into columns. */
static inline void v_turn(floats r[LANES]) {
    floats t[LANES];
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4) { /* half h of r[4 j + i] is column 4 h + i of rows 4 j to 4 j + 3 */
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x20);
        t[4 + i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x31);
    }
    for (int i = 0; i < LANES; i++) {
        r[i] = t[i];
    }
}

static inline ints i_all(int32_t x) { return _mm256_set1_epi32(x); }
static inline ints i_minus(ints a) { return _mm256_sub_epi32(_mm256_setzero_si256(), a); }
static inline floats i_floats(ints a) { return _mm256_cvtepi32_ps(a); }

/* CODE_ZERO is added to the codes of packed rows. i_dot4: each sum and the products of four
 * codes of a packed row with four of a weight. */
#ifdef __AVXVNNI__
enum { CODE_ZERO = 128 }; /* VPDPBUSD wants one side unsigned */

static inline ints i_dot4(ints sum, ints codes, ints weights) { return _mm256_dpbusd_avx_epi32(sum, codes, weights); }
#else
enum { CODE_ZERO = 0 };

/* One side must be unsigned here too, and two products must fit 16 bits: signs go from the
 * weights to the codes. */
static inline ints i_dot4(ints sum, ints codes, ints weights) {
    const ints pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(codes, weights));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#endif

/* 8 rows of 8 times 4 bytes become 8 vectors of 8 times 4. */
static inline void i_turn(const __m256i rows[LANES], ints * to, int stride) {
    floats r[LANES];
    for (int i = 0; i < LANES; i++) {
        r[i] = _mm256_castsi256_ps(rows[i]);
    }
    v_turn(r);
    for (int i = 0; i < LANES; i++) {
        to[i * stride] = _mm256_castps_si256(r[i]);
    }
}

#endif
