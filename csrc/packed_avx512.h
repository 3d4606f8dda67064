/* Packed types by hand for AVX-512: the same operations on the same values as blocks.h,
 * sixteen at a time, so that the bytes are the same. */
#ifndef SEMSHARE_PACKED_AVX512_H
#define SEMSHARE_PACKED_AVX512_H

#include "levels_avx2.h"

static inline void set_half(uint8_t * b, float d) { put16(b, (uint16_t) _cvtss_sh(d, _MM_FROUND_TO_NEAREST_INT)); }

/* ---- unpacking ---- */

static inline __m512 floats16(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }

static inline void scale32(__m256i levels, float d, float * y) {
    const __m512 scale = _mm512_set1_ps(d);
    _mm512_storeu_ps(y, _mm512_mul_ps(floats16(_mm256_castsi256_si128(levels)), scale));
    _mm512_storeu_ps(y + 16, _mm512_mul_ps(floats16(_mm256_extracti128_si256(levels, 1)), scale));
}

static inline void scale_add32(__m256i levels, float d, float m, float * y) {
    const __m512 scale = _mm512_set1_ps(d), min = _mm512_set1_ps(m);
    _mm512_storeu_ps(y, _mm512_add_ps(_mm512_mul_ps(floats16(_mm256_castsi256_si128(levels)), scale), min));
    _mm512_storeu_ps(y + 16, _mm512_add_ps(_mm512_mul_ps(floats16(_mm256_extracti128_si256(levels, 1)), scale), min));
}

static inline void unpack_q4_0_wide(const uint8_t * b, float * y) { scale32(less(nibbles(b + 2), 8), half_at(b), y); }

static inline void unpack_q4_1_wide(const uint8_t * b, float * y) { scale_add32(nibbles(b + 4), half_at(b), half_at(b + 2), y); }

static inline void unpack_q5_0_wide(const uint8_t * b, float * y) { scale32(less(fives(b + 2), 16), half_at(b), y); }

static inline void unpack_q5_1_wide(const uint8_t * b, float * y) { scale_add32(fives(b + 4), half_at(b), half_at(b + 2), y); }

static inline void unpack_q8_0_wide(const uint8_t * b, float * y) { scale32(_mm256_loadu_si256((const __m256i *) (b + 2)), half_at(b), y); }

static inline void unpack_iq4_nl_wide(const uint8_t * b, float * y) {
    const __m128i values = _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
    scale32(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), nibbles(b + 2)), half_at(b), y);
}

/* ---- packing ---- */

/* A block of 32 values. */
struct wide_block {
    __m512 low, high;
};

static inline struct wide_block load_block(const float * x) { return (struct wide_block) {_mm512_loadu_ps(x), _mm512_loadu_ps(x + 16)}; }

static inline __m512i magnitudes16(__m512 x) { return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)); }

/* The same, NaN as 0. */
static inline __m512i numbers16(__m512 x) {
    return _mm512_maskz_and_epi32(_mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), _mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}

/* magnitude() of blocks.h */
static inline uint32_t magnitude_wide(struct wide_block x) {
    return (uint32_t) _mm512_reduce_max_epi32(_mm512_max_epi32(numbers16(x.low), numbers16(x.high)));
}

/* extreme() of blocks.h; at is where x lies. */
static inline float extreme_wide(struct wide_block x, const float * at) {
    const uint32_t top = magnitude_wide(x);
    const __m512i want = _mm512_set1_epi32((int) top);
    const uint32_t found = (uint32_t) _mm512_cmpeq_epi32_mask(magnitudes16(x.low), want) | (uint32_t) _mm512_cmpeq_epi32_mask(magnitudes16(x.high), want) << 16;
    return top == 0 ? 0 : at[__builtin_ctz(found)];
}

/* bounds() of blocks.h. Of zeros of both signs that takes the first: where a bound is a
 * zero, it is asked. */
static inline void bounds_wide(struct wide_block x, const float * at, float * low, float * high) {
    const __m512 top = _mm512_set1_ps(FLT_MAX), bottom = _mm512_set1_ps(-FLT_MAX);
    *low = _mm512_reduce_min_ps(_mm512_min_ps(x.high, _mm512_min_ps(x.low, top)));
    *high = _mm512_reduce_max_ps(_mm512_max_ps(x.high, _mm512_max_ps(x.low, bottom)));
    if (*low == 0 || *high == 0) {
        bounds(at, low, high);
    }
}

/* level((x - low) * id + half, top) of blocks.h */
static inline __m128i levels16(__m512 x, __m512 low, __m512 id, __m512 half, __m512 top) {
    const __m512 v = _mm512_add_ps(_mm512_mul_ps(_mm512_sub_ps(x, low), id), half);
    return _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(_mm512_min_ps(_mm512_max_ps(v, _mm512_setzero_ps()), top)));
}

static inline void store_nibbles(__m128i low, __m128i high, uint8_t * b) {
    const __m128i four = _mm_set1_epi8(15);
    _mm_storeu_si128((__m128i *) b, _mm_or_si128(_mm_and_si128(low, four), _mm_slli_epi16(_mm_and_si128(high, four), 4)));
}

static inline void store_fives(__m128i low, __m128i high, uint8_t * b) {
    const __m128i fifth = _mm_set1_epi8(16);
    put32(b, (uint32_t) _mm_test_epi8_mask(low, fifth) | (uint32_t) _mm_test_epi8_mask(high, fifth) << 16);
    store_nibbles(low, high, b + 4);
}

#define LEVELS(LOW, HALF, TOP)                                                                                       \
    const __m512 id = _mm512_set1_ps(inverse(d)), from = _mm512_set1_ps(LOW), half = _mm512_set1_ps(HALF), top = _mm512_set1_ps(TOP); \
    const __m128i low_levels = levels16(v.low, from, id, half, top), high_levels = levels16(v.high, from, id, half, top)

static inline void pack_q4_0_wide(const float * x, uint8_t * b) {
    const struct wide_block v = load_block(x);
    const float d = extreme_wide(v, x) / -8;
    LEVELS(0, 8.5f, 15);
    set_half(b, d);
    store_nibbles(low_levels, high_levels, b + 2);
}

static inline void pack_q4_1_wide(const float * x, uint8_t * b) {
    const struct wide_block v = load_block(x);
    float low, high;
    bounds_wide(v, x, &low, &high);
    const float d = (high - low) / 15;
    LEVELS(low, 0.5f, 15);
    set_half(b, d);
    set_half(b + 2, low);
    store_nibbles(low_levels, high_levels, b + 4);
}

static inline void pack_q5_0_wide(const float * x, uint8_t * b) {
    const struct wide_block v = load_block(x);
    const float d = extreme_wide(v, x) / -16;
    LEVELS(0, 16.5f, 31);
    set_half(b, d);
    store_fives(low_levels, high_levels, b + 2);
}

static inline void pack_q5_1_wide(const float * x, uint8_t * b) {
    const struct wide_block v = load_block(x);
    float low, high;
    bounds_wide(v, x, &low, &high);
    const float d = (high - low) / 31;
    LEVELS(low, 0.5f, 31);
    set_half(b, d);
    set_half(b + 2, low);
    store_fives(low_levels, high_levels, b + 4);
}

#undef LEVELS

/* round_away() of blocks.h: truncated, then one on where half or more was cut off. */
static inline __m128i round_away_wide(__m512 v) {
    v = _mm512_maskz_min_ps(_mm512_cmp_ps_mask(v, v, _CMP_ORD_Q), _mm512_max_ps(v, _mm512_set1_ps(-128)), _mm512_set1_ps(127));
    const __m512i whole = _mm512_cvttps_epi32(v), one = _mm512_set1_epi32(1);
    const __m512 rest = _mm512_sub_ps(v, _mm512_cvtepi32_ps(whole));
    const __m512i up = _mm512_mask_add_epi32(whole, _mm512_cmp_ps_mask(rest, _mm512_set1_ps(0.5f), _CMP_GE_OQ), whole, one);
    return _mm512_cvtepi32_epi8(_mm512_mask_sub_epi32(up, _mm512_cmp_ps_mask(rest, _mm512_set1_ps(-0.5f), _CMP_LE_OQ), up, one));
}

static inline void pack_q8_0_wide(const float * x, uint8_t * b) {
    const struct wide_block v = load_block(x);
    const float d = float_from_bits(magnitude_wide(v)) / 127;
    const __m512 id = _mm512_set1_ps(inverse(d));
    set_half(b, d);
    _mm_storeu_si128((__m128i *) (b + 2), round_away_wide(_mm512_mul_ps(v.low, id)));
    _mm_storeu_si128((__m128i *) (b + 18), round_away_wide(_mm512_mul_ps(v.high, id)));
}

/* nearest_iq4() of blocks.h: how many of the 15 points halfway between two levels are
 * reached, found by halving. */
static inline __m512i nearest_iq4_wide(__m512 v) {
    const __m512 halfway = _mm512_setr_ps(-115.5f, -93.5f, -74, -57, -42, -28.5f, -16, -4.5f, 7, 19, 31.5f, 45.5f, 61, 79, 101, INFINITY);
    __m512i at = _mm512_setzero_si512();
    for (int step = 8; step > 0; step /= 2) {
        const __m512i next = _mm512_add_epi32(at, _mm512_set1_epi32(step));
        const __m512 bound = _mm512_permutexvar_ps(_mm512_sub_epi32(next, _mm512_set1_epi32(1)), halfway);
        at = _mm512_mask_mov_epi32(at, _mm512_cmp_ps_mask(v, bound, _CMP_GE_OQ), next);
    }
    return at;
}

static inline float fold_wide(__m512 x) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline void pack_iq4_nl_wide(const float * x, uint8_t * b) {
    const struct wide_block v = load_block(x);
    memset(b, 0, 18);
    const float top = extreme_wide(v, x);
    if (!(fabsf(top) >= 1e-15f)) {
        return;
    }
    const __m512 values = _mm512_setr_ps(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
    const __m512 id = _mm512_set1_ps(1 / (top / iq4_value(0)));
    const __m512i low = nearest_iq4_wide(_mm512_mul_ps(id, v.low)), high = nearest_iq4_wide(_mm512_mul_ps(id, v.high));
    const __m512 q0 = _mm512_permutexvar_ps(low, values), q1 = _mm512_permutexvar_ps(high, values);
    const __m512 w0 = _mm512_mul_ps(_mm512_mul_ps(v.low, v.low), q0), w1 = _mm512_mul_ps(_mm512_mul_ps(v.high, v.high), q1);
    const __m512 zero = _mm512_setzero_ps();
    const float weight = fold_wide(_mm512_add_ps(_mm512_add_ps(zero, _mm512_mul_ps(w0, q0)), _mm512_mul_ps(w1, q1)));
    if (weight > 0) {
        set_half(b, fold_wide(_mm512_add_ps(_mm512_add_ps(zero, _mm512_mul_ps(w0, v.low)), _mm512_mul_ps(w1, v.high))) / weight);
    }
    store_nibbles(_mm512_cvtepi32_epi8(low), _mm512_cvtepi32_epi8(high), b + 2);
}

/* ---- Hadamard ---- */

/* Steps 1 to 8 of sixteen values: the lower of a pair becomes the sum, the upper the
 * difference. */
static inline __m512 hadamard16(__m512 x) {
    __m512 y = _mm512_permute_ps(x, 0xb1);
    x = _mm512_mask_sub_ps(_mm512_add_ps(x, y), 0xaaaa, y, x);
    y = _mm512_permute_ps(x, 0x4e);
    x = _mm512_mask_sub_ps(_mm512_add_ps(x, y), 0xcccc, y, x);
    y = _mm512_shuffle_f32x4(x, x, 0xb1);
    x = _mm512_mask_sub_ps(_mm512_add_ps(x, y), 0xf0f0, y, x);
    y = _mm512_shuffle_f32x4(x, x, 0x4e);
    return _mm512_mask_sub_ps(_mm512_add_ps(x, y), 0xff00, y, x);
}

/* One block of 16 * vectors values, in registers throughout. */
static inline __attribute__((always_inline)) void hadamard_block(float * x, const int vectors, __m512 norm) {
    __m512 v[8];
    for (int i = 0; i < vectors; i++) {
        v[i] = hadamard16(_mm512_loadu_ps(x + 16 * i));
    }
    for (int step = 1; step < vectors; step *= 2) {
        for (int i = 0; i < vectors; i++) {
            if ((i & step) == 0) {
                const __m512 a = v[i], b = v[i + step];
                v[i] = _mm512_add_ps(a, b);
                v[i + step] = _mm512_sub_ps(a, b);
            }
        }
    }
    for (int i = 0; i < vectors; i++) {
        _mm512_storeu_ps(x + 16 * i, _mm512_mul_ps(v[i], norm));
    }
}

static inline void hadamard_wide(float * x, int32_t elems, int32_t n) {
    const __m512 norm = _mm512_set1_ps((float) (1 / sqrt((double) n)));
    for (; elems >= n; elems -= n, x += n) {
        switch (n) {
        case 16: hadamard_block(x, 1, norm); break;
        case 32: hadamard_block(x, 2, norm); break;
        case 64: hadamard_block(x, 4, norm); break;
        case 128: hadamard_block(x, 8, norm); break;
        default:
            hadamard_steps(x, n, 1);
            hadamard_scale(x, n);
        }
    }
}

#endif
