/* Packed types by hand for AVX2: the same operations on the same values as blocks.h, eight
 * at a time, so that the bytes are the same. */
#ifndef SEMSHARE_PACKED_AVX2_H
#define SEMSHARE_PACKED_AVX2_H

#include "levels_avx2.h"

static inline void set_half(uint8_t * b, float d) { put16(b, (uint16_t) _cvtss_sh(d, _MM_FROUND_TO_NEAREST_INT)); }

/* ---- unpacking ---- */

static inline __m256 floats8(__m128i bytes) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)); }

/* y[j] = q[j] * d + m for 32 signed bytes; m is left out where it is null. */
static inline void scale32(__m256i q, __m256 d, const __m256 * m, float * y) {
    for (int j = 0; j < 2; j++, y += 16) {
        const __m128i half = j == 0 ? _mm256_castsi256_si128(q) : _mm256_extracti128_si256(q, 1);
        __m256 a = _mm256_mul_ps(floats8(half), d), b = _mm256_mul_ps(floats8(_mm_srli_si128(half, 8)), d);
        if (m != NULL) {
            a = _mm256_add_ps(a, *m);
            b = _mm256_add_ps(b, *m);
        }
        _mm256_storeu_ps(y, a);
        _mm256_storeu_ps(y + 8, b);
    }
}

static inline void unpack_q4_0_wide(const uint8_t * b, float * y) { scale32(less(nibbles(b + 2), 8), _mm256_set1_ps(half_at(b)), NULL, y); }

static inline void unpack_q4_1_wide(const uint8_t * b, float * y) {
    const __m256 m = _mm256_set1_ps(half_at(b + 2));
    scale32(nibbles(b + 4), _mm256_set1_ps(half_at(b)), &m, y);
}

static inline void unpack_q5_0_wide(const uint8_t * b, float * y) { scale32(less(fives(b + 2), 16), _mm256_set1_ps(half_at(b)), NULL, y); }

static inline void unpack_q5_1_wide(const uint8_t * b, float * y) {
    const __m256 m = _mm256_set1_ps(half_at(b + 2));
    scale32(fives(b + 4), _mm256_set1_ps(half_at(b)), &m, y);
}

static inline void unpack_q8_0_wide(const uint8_t * b, float * y) { scale32(_mm256_loadu_si256((const __m256i *) (b + 2)), _mm256_set1_ps(half_at(b)), NULL, y); }

static inline __m256i iq4_bytes(__m256i levels) {
    const __m128i values = _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), levels);
}

static inline void unpack_iq4_nl_wide(const uint8_t * b, float * y) { scale32(iq4_bytes(nibbles(b + 2)), _mm256_set1_ps(half_at(b)), NULL, y); }

/* ---- packing ---- */

static inline __m256i magnitudes8(const float * x) {
    return _mm256_and_si256(_mm256_loadu_si256((const __m256i *) x), _mm256_set1_epi32(0x7fffffff));
}

/* magnitude() of blocks.h */
static inline uint32_t magnitude_wide(const float * x) {
    __m256i top = _mm256_setzero_si256();
    for (int j = 0; j < 32; j += 8) {
        const __m256i u = magnitudes8(x + j);
        const __m256i nan = _mm256_cmpgt_epi32(u, _mm256_set1_epi32(0x7f800000));
        top = _mm256_max_epi32(top, _mm256_andnot_si256(nan, u));
    }
    __m128i t = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0xb1));
    return (uint32_t) _mm_cvtsi128_si32(t);
}

/* extreme() of blocks.h */
static inline float extreme_wide(const float * x) {
    const uint32_t top = magnitude_wide(x);
    const __m256i want = _mm256_set1_epi32((int) top);
    uint32_t found = 0;
    for (int j = 0; j < 32; j += 8) {
        found |= (uint32_t) _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(magnitudes8(x + j), want))) << j;
    }
    return top == 0 ? 0 : x[__builtin_ctz(found)];
}

/* bounds() of blocks.h. Of zeros of both signs that takes the first: where a bound is a
 * zero, it is asked. */
static inline void bounds_wide(const float * x, float * low, float * high) {
    __m256 least = _mm256_set1_ps(FLT_MAX), most = _mm256_set1_ps(-FLT_MAX);
    for (int j = 0; j < 32; j += 8) {
        const __m256 v = _mm256_loadu_ps(x + j);
        least = _mm256_min_ps(v, least);
        most = _mm256_max_ps(v, most);
    }
    __m128 a = _mm_min_ps(_mm256_castps256_ps128(least), _mm256_extractf128_ps(least, 1));
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
    a = _mm_min_ps(a, _mm_movehl_ps(a, a));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    a = _mm_min_ss(a, _mm_movehdup_ps(a));
    b = _mm_max_ss(b, _mm_movehdup_ps(b));
    *low = _mm_cvtss_f32(a);
    *high = _mm_cvtss_f32(b);
    if (*low == 0 || *high == 0) {
        bounds(x, low, high);
    }
}

/* 32 integers as bytes. Packing works within halves: the last step puts the groups of
 * four in order. */
static inline __m256i bytes32(const __m256i q[4]) {
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* level((x - low) * id + half, top) of blocks.h for 32 values. */
static inline __m256i levels_wide(const float * x, float low, float id, float half, int top) {
    __m256i q[4];
    for (int j = 0; j < 4; j++) {
        const __m256 v = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + 8 * j), _mm256_set1_ps(low)), _mm256_set1_ps(id));
        const __m256 up = _mm256_max_ps(_mm256_add_ps(v, _mm256_set1_ps(half)), _mm256_setzero_ps());
        q[j] = _mm256_cvttps_epi32(_mm256_min_ps(up, _mm256_set1_ps((float) top)));
    }
    return bytes32(q);
}

/* Four bits of each of 32 levels: those of 0..15 low, of 16..31 high. */
static inline void store_nibbles(__m256i levels, uint8_t * b) {
    const __m128i four = _mm_set1_epi8(15);
    const __m128i low = _mm_and_si128(_mm256_castsi256_si128(levels), four), high = _mm_and_si128(_mm256_extracti128_si256(levels, 1), four);
    _mm_storeu_si128((__m128i *) b, _mm_or_si128(low, _mm_slli_epi16(high, 4)));
}

static inline void store_fifths(__m256i levels, uint8_t * b) {
    put32(b, (uint32_t) _mm256_movemask_epi8(_mm256_slli_epi16(levels, 3)));
    store_nibbles(levels, b + 4);
}

static inline void pack_q4_0_wide(const float * x, uint8_t * b) {
    const float d = extreme_wide(x) / -8;
    set_half(b, d);
    store_nibbles(levels_wide(x, 0, inverse(d), 8.5f, 15), b + 2);
}

static inline void pack_q4_1_wide(const float * x, uint8_t * b) {
    float low, high;
    bounds_wide(x, &low, &high);
    const float d = (high - low) / 15;
    set_half(b, d);
    set_half(b + 2, low);
    store_nibbles(levels_wide(x, low, inverse(d), 0.5f, 15), b + 4);
}

static inline void pack_q5_0_wide(const float * x, uint8_t * b) {
    const float d = extreme_wide(x) / -16;
    set_half(b, d);
    store_fifths(levels_wide(x, 0, inverse(d), 16.5f, 31), b + 2);
}

static inline void pack_q5_1_wide(const float * x, uint8_t * b) {
    float low, high;
    bounds_wide(x, &low, &high);
    const float d = (high - low) / 31;
    set_half(b, d);
    set_half(b + 2, low);
    store_fifths(levels_wide(x, low, inverse(d), 0.5f, 31), b + 4);
}

/* round_away() of blocks.h: truncated, then one on where half or more was cut off. */
static inline __m256i round_away_wide(__m256 v) {
    v = _mm256_and_ps(v, _mm256_cmp_ps(v, v, _CMP_ORD_Q));
    v = _mm256_min_ps(_mm256_max_ps(v, _mm256_set1_ps(-128)), _mm256_set1_ps(127));
    const __m256i whole = _mm256_cvttps_epi32(v);
    const __m256 rest = _mm256_sub_ps(v, _mm256_cvtepi32_ps(whole));
    const __m256i up = _mm256_castps_si256(_mm256_cmp_ps(rest, _mm256_set1_ps(0.5f), _CMP_GE_OQ));
    const __m256i down = _mm256_castps_si256(_mm256_cmp_ps(rest, _mm256_set1_ps(-0.5f), _CMP_LE_OQ));
    return _mm256_add_epi32(_mm256_sub_epi32(whole, up), down); /* masks are -1 */
}

static inline void pack_q8_0_wide(const float * x, uint8_t * b) {
    const float d = float_from_bits(magnitude_wide(x)) / 127;
    const __m256 id = _mm256_set1_ps(inverse(d));
    __m256i q[4];
    set_half(b, d);
    for (int j = 0; j < 4; j++) {
        q[j] = round_away_wide(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * j), id));
    }
    _mm256_storeu_si256((__m256i *) (b + 2), bytes32(q));
}

/* nearest_iq4() of blocks.h for 32 values: how many of the 15 points halfway between two
 * levels are reached. Doubled those are integers. */
static inline __m256i nearest_iq4_wide(const float * x, float id) {
    static const int16_t halfway[15] = {-231, -187, -148, -114, -84, -57, -32, -9, 14, 38, 63, 91, 122, 158, 202};
    __m256i q[4];
    for (int j = 0; j < 4; j++) {
        const __m256 v = _mm256_mul_ps(_mm256_set1_ps(id), _mm256_loadu_ps(x + 8 * j));
        const __m256 twice = _mm256_floor_ps(_mm256_add_ps(v, v));
        q[j] = _mm256_cvttps_epi32(_mm256_min_ps(_mm256_max_ps(twice, _mm256_set1_ps(-300)), _mm256_set1_ps(300)));
    }
    const __m256i a = _mm256_packs_epi32(q[0], q[1]), b = _mm256_packs_epi32(q[2], q[3]);
    __m256i i = _mm256_setzero_si256(), k = _mm256_setzero_si256();
    for (int h = 0; h < 15; h++) {
        const __m256i below = _mm256_set1_epi16((int16_t) (halfway[h] - 1));
        i = _mm256_sub_epi16(i, _mm256_cmpgt_epi16(a, below));
        k = _mm256_sub_epi16(k, _mm256_cmpgt_epi16(b, below));
    }
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(i, k), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

static inline float fold8(__m256 low, __m256 high) {
    const __m256 eight = _mm256_add_ps(low, high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline void pack_iq4_nl_wide(const float * x, uint8_t * b) {
    memset(b, 0, 18);
    const float top = extreme_wide(x);
    if (!(fabsf(top) >= 1e-15f)) {
        return;
    }
    const __m256i levels = nearest_iq4_wide(x, 1 / (top / iq4_value(0))), bytes = iq4_bytes(levels);
    const __m128i values[2] = {_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)};
    __m256 qx[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()}, qq[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int j = 0; j < 4; j++) {
        const __m128i half = j % 2 == 0 ? values[j / 2] : _mm_srli_si128(values[j / 2], 8);
        const __m256 q = floats8(half), v = _mm256_loadu_ps(x + 8 * j), wq = _mm256_mul_ps(_mm256_mul_ps(v, v), q);
        qx[j % 2] = _mm256_add_ps(qx[j % 2], _mm256_mul_ps(wq, v));
        qq[j % 2] = _mm256_add_ps(qq[j % 2], _mm256_mul_ps(wq, q));
    }
    const float weight = fold8(qq[0], qq[1]);
    if (weight > 0) {
        set_half(b, fold8(qx[0], qx[1]) / weight);
    }
    store_nibbles(levels, b + 2);
}

/* ---- Hadamard ---- */

/* Steps 1, 2 and 4 of eight values: the lower of a pair becomes the sum, the upper the
 * difference. */
static inline __m256 hadamard8(__m256 x) {
    const __m256 one = _mm256_castsi256_ps(_mm256_setr_epi32(0, INT32_MIN, 0, INT32_MIN, 0, INT32_MIN, 0, INT32_MIN));
    const __m256 two = _mm256_castsi256_ps(_mm256_setr_epi32(0, 0, INT32_MIN, INT32_MIN, 0, 0, INT32_MIN, INT32_MIN));
    const __m256 four = _mm256_castsi256_ps(_mm256_setr_epi32(0, 0, 0, 0, INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN));
    x = _mm256_add_ps(_mm256_permute_ps(x, 0xb1), _mm256_xor_ps(x, one));
    x = _mm256_add_ps(_mm256_permute_ps(x, 0x4e), _mm256_xor_ps(x, two));
    return _mm256_add_ps(_mm256_permute2f128_ps(x, x, 1), _mm256_xor_ps(x, four));
}

static inline void hadamard_wide(float * x, int32_t elems, int32_t n) {
    for (; elems >= n; elems -= n, x += n) {
        if (n < 8) {
            hadamard_steps(x, n, 1);
        } else {
            for (int32_t i = 0; i < n; i += 8) {
                _mm256_storeu_ps(x + i, hadamard8(_mm256_loadu_ps(x + i)));
            }
            for (int32_t step = 8; step < n; step *= 2) {
                for (int32_t i = 0; i < n; i += 2 * step) {
                    for (int32_t j = i; j < i + step; j += 8) {
                        const __m256 a = _mm256_loadu_ps(x + j), b = _mm256_loadu_ps(x + j + step);
                        _mm256_storeu_ps(x + j, _mm256_add_ps(a, b));
                        _mm256_storeu_ps(x + j + step, _mm256_sub_ps(a, b));
                    }
                }
            }
        }
        hadamard_scale(x, n);
    }
}

#endif
