/* Vectors of 16, in which attend_loops.h and product_loops.h are written. */
#ifndef SEMSHARE_LANES_AVX512_H
#define SEMSHARE_LANES_AVX512_H

#include <immintrin.h>
#include <stdint.h>

typedef __m512 floats;
typedef __m512i ints;

enum {
    LANES = 16,
    COLUMNS = 2, /* vectors beside one another: those of six rows stay in registers, twice */
};

static inline floats v_all(float x) { return _mm512_set1_ps(x); }
static inline floats v_load(const float * p) { return _mm512_loadu_ps(p); }
static inline void v_store(float * p, floats a) { _mm512_storeu_ps(p, a); }
static inline floats v_fma(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }
static inline floats v_larger(floats a, floats b) { return _mm512_max_ps(a, b); }
static inline floats v_nearest(floats a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline float v_largest(floats a) { return _mm512_reduce_max_ps(a); }
static inline float v_sum(floats a) { return _mm512_reduce_add_ps(a); }

/* a times 2 to the n, whole numbers. */
static inline floats v_scale(floats a, floats n) { return _mm512_scalef_ps(a, n); }

static inline floats v_halves(const uint8_t * p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p)); }

/* Turns rows into columns. */
static inline void v_turn(floats r[LANES]) {
    floats t[LANES];
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4) {
        r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
        r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
    }
    for (int i = 0; i < 4; i++) { /* quarter q of r[4 j + i] is column 4 q + i of rows 4 j to 4 j + 3 */
        t[i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0xdd);
        r[4 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

static inline ints i_all(int32_t x) { return _mm512_set1_epi32(x); }
static inline ints i_minus(ints a) { return _mm512_sub_epi32(_mm512_setzero_si512(), a); }
static inline floats i_floats(ints a) { return _mm512_cvtepi32_ps(a); }

#ifdef __AVX512VNNI__
/* Added to the codes of packed rows: VPDPBUSD wants one side unsigned. */
enum { CODE_ZERO = 128 };

/* Each sum and the products of four codes of a packed row with four of a weight. */
static inline ints i_dot4(ints sum, ints codes, ints weights) { return _mm512_dpbusd_epi32(sum, codes, weights); }
#endif

/* 16 rows of 8 times 4 bytes become 8 vectors of 16 times 4. */
static inline void i_turn(const __m256i rows[LANES], ints * to, int stride) {
    __m512i a[8], b[8];
    for (int i = 0; i < 8; i++) { /* rows i and i + 8 */
        a[i] = _mm512_inserti64x4(_mm512_castsi256_si512(rows[i]), rows[i + 8], 1);
    }
    for (int i = 0; i < 8; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) { /* in each quarter, of four rows: fours j and j + 4 */
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13), high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    for (int j = 0; j < 4; j++) {
        to[j * stride] = _mm512_permutex2var_epi64(a[j], low, a[j + 4]);
        to[(j + 4) * stride] = _mm512_permutex2var_epi64(a[j], high, a[j + 4]);
    }
}

#endif
