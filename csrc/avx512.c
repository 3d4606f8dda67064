/* AVX-512 F, BW, DQ and VL, for servers since 2017. Compiled without FMA contraction:
 * fusing would round differently from the reference. */
#if defined(__AVX512F__) && defined(__AVX512BW__)
#include "variants.h"
#include "packed_avx512.h"

#include <immintrin.h>

static inline __m512 load16_f16(const unaligned_u16 * p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p));
}

static inline void store16_f16(unaligned_u16 * p, __m512 x) {
    _mm256_storeu_si256((__m256i *) p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

static inline __m512 load16_f32(const unaligned_f32 * p) { return _mm512_loadu_ps(p); }
static inline void store16_f32(unaligned_f32 * p, __m512 x) { _mm512_storeu_ps(p, x); }

/* NORM: eight pairs at a time, x * cos + swapped x * (-sin, sin). NEOX: sixteen. */
#define DEFINE_TURN_WIDE(NAME, T)                                                                                    \
    static inline void turn_norm_wide_##NAME(T * y, const T * x, int32_t from, int32_t pairs, const struct turn * t) { \
        int32_t i = from;                                                                                            \
        for (; i + 8 <= pairs; i += 8) {                                                                             \
            const __m512 v = load16_##NAME(x + 2 * i);                                                               \
            const __m512 swapped = _mm512_permute_ps(v, 0xb1);                                                       \
            store16_##NAME(y + 2 * i, _mm512_add_ps(_mm512_mul_ps(v, _mm512_loadu_ps(t->cos2 + 2 * i)),              \
                                                    _mm512_mul_ps(swapped, _mm512_loadu_ps(t->sin2 + 2 * i))));      \
        }                                                                                                            \
        turn_norm_##NAME(y, x, i, pairs, t);                                                                         \
    }                                                                                                                \
    static inline void turn_neox_wide_##NAME(T * y, const T * x, int32_t from, int32_t pairs, const struct turn * t) { \
        int32_t i = from;                                                                                            \
        for (; i + 16 <= pairs; i += 16) {                                                                           \
            const __m512 a = load16_##NAME(x + i), b = load16_##NAME(x + i + pairs);                                 \
            const __m512 c = _mm512_loadu_ps(t->cos + i), s = _mm512_loadu_ps(t->sin + i);                           \
            store16_##NAME(y + i, _mm512_sub_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s)));                          \
            store16_##NAME(y + i + pairs, _mm512_add_ps(_mm512_mul_ps(a, s), _mm512_mul_ps(b, c)));                  \
        }                                                                                                            \
        turn_neox_##NAME(y, x, i, pairs, t);                                                                         \
    }

DEFINE_TURN_WIDE(f16, unaligned_u16)
DEFINE_TURN_WIDE(f32, unaligned_f32)
DEFINE_ROTATE(rotate_norm_f16, unaligned_u16, turn_norm_wide_f16)
DEFINE_ROTATE(rotate_neox_f16, unaligned_u16, turn_neox_wide_f16)
DEFINE_ROTATE(rotate_norm_f32, unaligned_f32, turn_norm_wide_f32)
DEFINE_ROTATE(rotate_neox_f32, unaligned_f32, turn_neox_wide_f32)

static inline void unpack_f16_wide(const uint8_t * src, float * dst, int64_t n) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        _mm512_storeu_ps(dst + i, load16_f16((const unaligned_u16 *) src + i));
    }
    unpack(SEMSHARE_TYPE_F16, src + 2 * i, dst + i, n - i);
}

static inline void pack_f16_wide(const float * src, uint8_t * dst, int64_t n) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        store16_f16((unaligned_u16 *) dst + i, _mm512_loadu_ps(src + i));
    }
    pack(SEMSHARE_TYPE_F16, src + i, dst + 2 * i, n - i);
}

#include "packed_loops.h"

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
    .hadamard = hadamard_wide,
    .unpack = unpack_any,
    .pack = pack_any,
};
#endif
