/* AVX2 and F16C, for x86-64 since 2013. Compiled with -mavx2 -mf16c, without FMA:
 * fusing would round differently from the reference. */
#if defined(__AVX2__) && defined(__F16C__)
#include "variants.h"
#include "packed_avx2.h"

#include <immintrin.h>

static inline __m256 load8_f16(const unaligned_u16 * p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p));
}

static inline void store8_f16(unaligned_u16 * p, __m256 x) {
    _mm_storeu_si128((__m128i *) p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

static inline __m256 load8_f32(const unaligned_f32 * p) { return _mm256_loadu_ps((const float *) p); }
static inline void store8_f32(unaligned_f32 * p, __m256 x) { _mm256_storeu_ps((float *) p, x); }

/* NORM: four pairs at a time, x * cos + swapped x * (-sin, sin). NEOX: eight. */
#define DEFINE_TURN_WIDE(NAME, T)                                                                                    \
    static inline void turn_norm_wide_##NAME(T * y, const T * x, int32_t from, int32_t pairs, const struct turn * t) { \
        int32_t i = from;                                                                                            \
        for (; i + 4 <= pairs; i += 4) {                                                                             \
            const __m256 v = load8_##NAME(x + 2 * i);                                                                \
            const __m256 swapped = _mm256_permute_ps(v, 0xb1);                                                       \
            store8_##NAME(y + 2 * i, _mm256_add_ps(_mm256_mul_ps(v, _mm256_loadu_ps(t->cos2 + 2 * i)),               \
                                                   _mm256_mul_ps(swapped, _mm256_loadu_ps(t->sin2 + 2 * i))));       \
        }                                                                                                            \
        turn_norm_##NAME(y, x, i, pairs, t);                                                                         \
    }                                                                                                                \
    static inline void turn_neox_wide_##NAME(T * y, const T * x, int32_t from, int32_t pairs, const struct turn * t) { \
        int32_t i = from;                                                                                            \
        for (; i + 8 <= pairs; i += 8) {                                                                             \
            const __m256 a = load8_##NAME(x + i), b = load8_##NAME(x + i + pairs);                                   \
            const __m256 c = _mm256_loadu_ps(t->cos + i), s = _mm256_loadu_ps(t->sin + i);                           \
            store8_##NAME(y + i, _mm256_sub_ps(_mm256_mul_ps(a, c), _mm256_mul_ps(b, s)));                           \
            store8_##NAME(y + i + pairs, _mm256_add_ps(_mm256_mul_ps(a, s), _mm256_mul_ps(b, c)));                   \
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
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(dst + i, load8_f16((const unaligned_u16 *) src + i));
    }
    unpack(SEMSHARE_TYPE_F16, src + 2 * i, dst + i, n - i);
}

static inline void pack_f16_wide(const float * src, uint8_t * dst, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        store8_f16((unaligned_u16 *) dst + i, _mm256_loadu_ps(src + i));
    }
    pack(SEMSHARE_TYPE_F16, src + i, dst + 2 * i, n - i);
}

#include "packed_loops.h"

/* Four planes at a time, so that the row is loaded once for them. */
static void project(const float * row, const float * planes, int32_t dim, uint64_t * out) {
    uint64_t word = 0;
    for (int b = 0; b < 64; b += 4, planes += 4 * (size_t) dim) {
        __m256 low[4], high[4];
        for (int p = 0; p < 4; p++) {
            low[p] = high[p] = _mm256_setzero_ps();
        }
        int32_t i = 0;
        for (; i + 16 <= dim; i += 16) {
            const __m256 x0 = _mm256_loadu_ps(row + i), x1 = _mm256_loadu_ps(row + i + 8);
            for (int p = 0; p < 4; p++) {
                const float * plane = planes + p * (size_t) dim + i;
                low[p] = _mm256_add_ps(low[p], _mm256_mul_ps(x0, _mm256_loadu_ps(plane)));
                high[p] = _mm256_add_ps(high[p], _mm256_mul_ps(x1, _mm256_loadu_ps(plane + 8)));
            }
        }
        for (int p = 0; p < 4; p++) {
            float sum[SEMSHARE_LANES];
            _mm256_storeu_ps(sum, low[p]);
            _mm256_storeu_ps(sum + 8, high[p]);
            for (int32_t r = i; r < dim; r++) {
                sum[r - i] += row[r] * planes[p * (size_t) dim + r];
            }
            word |= (uint64_t) (fold_lanes(sum) > 0) << (b + p);
        }
    }
    *out = word;
}

static bool usable(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
}

const struct variant variant_avx2 = {
    .name = "avx2",
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
