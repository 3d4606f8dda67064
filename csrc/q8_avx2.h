/* q8_0, the packed type most caches have, by hand for AVX2 and what includes it. */
#ifndef SEMSHARE_Q8_AVX2_H
#define SEMSHARE_Q8_AVX2_H

#include <immintrin.h>

static inline void unpack_q8_0_wide(const uint8_t * b, float * y) {
    const __m256 d = _mm256_set1_ps(get_half(b));
    for (int j = 0; j < 32; j += 8) {
        const __m256i q = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) (b + 2 + j)));
        _mm256_storeu_ps(y + j, _mm256_mul_ps(_mm256_cvtepi32_ps(q), d));
    }
}

/* magnitude() of blocks.h */
static inline uint32_t magnitude_wide(const float * x) {
    __m256i top = _mm256_setzero_si256();
    for (int j = 0; j < 32; j += 8) {
        const __m256i u = _mm256_and_si256(_mm256_loadu_si256((const __m256i *) (x + j)), _mm256_set1_epi32(0x7fffffff));
        const __m256i nan = _mm256_cmpgt_epi32(u, _mm256_set1_epi32(0x7f800000));
        top = _mm256_max_epi32(top, _mm256_andnot_si256(nan, u));
    }
    __m128i t = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0xb1));
    return (uint32_t) _mm_cvtsi128_si32(t);
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
    put_half(b, d);
    for (int j = 0; j < 4; j++) {
        q[j] = round_away_wide(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * j), id));
    }
    /* Packing works within halves: the last step puts the groups of four in order. */
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256((__m256i *) (b + 2), _mm256_permutevar8x32_epi32(bytes, order));
}

static void unpack_wide(uint32_t type, const uint8_t * src, float * dst, int64_t blocks) {
    if (type != SEMSHARE_TYPE_Q8_0) {
        unpack(type, src, dst, blocks);
        return;
    }
    for (int64_t b = 0; b < blocks; b++) {
        unpack_q8_0_wide(src + b * 34, dst + b * 32);
    }
}

static void pack_wide(uint32_t type, const float * src, uint8_t * dst, int64_t blocks) {
    if (type != SEMSHARE_TYPE_Q8_0) {
        pack(type, src, dst, blocks);
        return;
    }
    for (int64_t b = 0; b < blocks; b++) {
        pack_q8_0_wide(src + b * 32, dst + b * 34);
    }
}

#endif
