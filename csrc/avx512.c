/* AVX-512 F, BW, DQ and VL, for servers since 2017. Compiled without FMA contraction:
 * fusing would round differently from the reference. */
#if defined(__AVX512F__) && defined(__AVX512BW__)
#include "variants.h"
#include "q8_avx2.h"

#include <immintrin.h>

static inline __m512 load16(const unaligned_u16 * p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p));
}

static inline void store16(unaligned_u16 * p, __m512 x) {
    _mm256_storeu_si256((__m256i *) p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

/* Eight pairs at a time: x * cos + swapped x * (-sin, sin). */
static inline void turn_norm_wide(unaligned_u16 * y, const unaligned_u16 * x, int32_t from, int32_t pairs, const struct turn * t) {
    int32_t i = from;
    for (; i + 8 <= pairs; i += 8) {
        const __m512 v = load16(x + 2 * i);
        const __m512 swapped = _mm512_permute_ps(v, 0xb1);
        store16(y + 2 * i, _mm512_add_ps(_mm512_mul_ps(v, _mm512_loadu_ps(t->cos2 + 2 * i)),
                                         _mm512_mul_ps(swapped, _mm512_loadu_ps(t->sin2 + 2 * i))));
    }
    turn_norm_f16(y, x, i, pairs, t);
}

static inline void turn_neox_wide(unaligned_u16 * y, const unaligned_u16 * x, int32_t from, int32_t pairs, const struct turn * t) {
    int32_t i = from;
    for (; i + 16 <= pairs; i += 16) {
        const __m512 a = load16(x + i), b = load16(x + i + pairs);
        const __m512 c = _mm512_loadu_ps(t->cos + i), s = _mm512_loadu_ps(t->sin + i);
        store16(y + i, _mm512_sub_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s)));
        store16(y + i + pairs, _mm512_add_ps(_mm512_mul_ps(a, s), _mm512_mul_ps(b, c)));
    }
    turn_neox_f16(y, x, i, pairs, t);
}

DEFINE_ROTATE(rotate_norm_f16, unaligned_u16, turn_norm_wide)
DEFINE_ROTATE(rotate_neox_f16, unaligned_u16, turn_neox_wide)

/* Eight planes at a time, so that the row is loaded once for them. */
static void project(const float * row, const float * planes, int32_t dim, uint64_t * out) {
    const int32_t whole = dim - dim % 16;
    const __mmask16 rest = (__mmask16) ((1u << (dim - whole)) - 1);
    uint64_t word = 0;
    for (int b = 0; b < 64; b += 8, planes += 8 * (size_t) dim) {
        __m512 sum[8];
        for (int p = 0; p < 8; p++) {
            sum[p] = _mm512_setzero_ps();
        }
        for (int32_t i = 0; i < whole; i += 16) {
            const __m512 x = _mm512_loadu_ps(row + i);
            for (int p = 0; p < 8; p++) {
                sum[p] = _mm512_add_ps(sum[p], _mm512_mul_ps(x, _mm512_loadu_ps(planes + p * (size_t) dim + i)));
            }
        }
        const __m512 x = _mm512_maskz_loadu_ps(rest, row + whole);
        for (int p = 0; p < 8; p++) {
            const __m512 y = _mm512_maskz_loadu_ps(rest, planes + p * (size_t) dim + whole);
            float lanes[SEMSHARE_LANES];
            _mm512_storeu_ps(lanes, _mm512_mask_add_ps(sum[p], rest, sum[p], _mm512_mul_ps(x, y)));
            word |= (uint64_t) (fold_lanes(lanes) > 0) << (b + p);
        }
    }
    *out = word;
}

static bool usable(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

const struct variant variant_avx512 = {
    .name = "avx512",
    .usable = usable,
    .rotate_f32 = {rotate_norm_f32, rotate_neox_f32},
    .rotate_f16 = {rotate_norm_f16, rotate_neox_f16},
    .rotate_bf16 = {rotate_norm_bf16, rotate_neox_bf16},
    .project = project,
    .place = place,
    .unpack = unpack_wide,
    .pack = pack_wide,
};
#endif
