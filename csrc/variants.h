/* The kernels in plain C, compiled once for each instruction set: this is both the
 * reference and what the vector files use where the compiler vectorises well. */
#ifndef SEMSHARE_VARIANTS_H
#define SEMSHARE_VARIANTS_H

#include "half.h"
#include "internal.h"

#define load_f32(x) (x)
#define store_f32(x) (x)

/* Pairs from to dims/2 of one head. */
#define DEFINE_TURN(NAME, T, LOAD, STORE)                                                                    \
    static inline void turn_norm_##NAME(T * restrict y, const T * restrict x, int32_t from, int32_t pairs,  \
                                        const struct turn * t) {                                             \
        for (int32_t i = from; i < pairs; i++) {                                                             \
            const float a = LOAD(x[2 * i]), b = LOAD(x[2 * i + 1]);                                          \
            y[2 * i] = STORE(a * t->cos[i] - b * t->sin[i]);                                                 \
            y[2 * i + 1] = STORE(a * t->sin[i] + b * t->cos[i]);                                             \
        }                                                                                                    \
    }                                                                                                        \
    static inline void turn_neox_##NAME(T * restrict y, const T * restrict x, int32_t from, int32_t pairs,  \
                                        const struct turn * t) {                                             \
        for (int32_t i = from; i < pairs; i++) {                                                             \
            const float a = LOAD(x[i]), b = LOAD(x[i + pairs]);                                              \
            y[i] = STORE(a * t->cos[i] - b * t->sin[i]);                                                     \
            y[i + pairs] = STORE(a * t->sin[i] + b * t->cos[i]);                                             \
        }                                                                                                    \
    }

/* A whole row, given what turns one head. Elements that do not turn are copied. */
#define DEFINE_ROTATE(NAME, T, TURN)                                                                         \
    static void NAME(uint8_t * dst, const uint8_t * src, const struct shape * s, const struct turn * t) {    \
        T * y = (T *) dst;                                                                                   \
        const T * x = (const T *) src;                                                                       \
        for (int32_t h = 0; h < s->heads; h++, x += s->head_dim, y += s->head_dim) {                         \
            TURN(y, x, 0, s->dims / 2, t);                                                                   \
            if (s->dims < s->head_dim) {                                                                     \
                memcpy(y + s->dims, x + s->dims, (size_t) (s->head_dim - s->dims) * sizeof(T));              \
            }                                                                                                \
        }                                                                                                    \
    }

/* State files align nothing: keys may start at any byte. */
typedef float unaligned_f32 __attribute__((aligned(1), may_alias));
typedef uint16_t unaligned_u16 __attribute__((aligned(1), may_alias));

DEFINE_TURN(f32, unaligned_f32, load_f32, store_f32)
DEFINE_TURN(f16, unaligned_u16, f32_from_f16, f16_from_f32)
DEFINE_TURN(bf16, unaligned_u16, f32_from_bf16, bf16_from_f32)

DEFINE_ROTATE(rotate_norm_f32, unaligned_f32, turn_norm_f32)
DEFINE_ROTATE(rotate_neox_f32, unaligned_f32, turn_neox_f32)
DEFINE_ROTATE(rotate_norm_bf16, unaligned_u16, turn_norm_bf16)
DEFINE_ROTATE(rotate_neox_bf16, unaligned_u16, turn_neox_bf16)

/* Angles add up: cos(a+b) = cos a cos b - sin a sin b, in double, rounded once. */
static void place(float * restrict dst, const float * restrict src, int32_t dim, const double * restrict base, const double * restrict small) {
    const int32_t n = dim / 2;
    for (int32_t i = 0; i < n; i++) {
        const float c = (float) (base[i] * small[i] - base[n + i] * small[n + i]);
        const float s = (float) (base[n + i] * small[i] + base[i] * small[n + i]);
        const float x = src[2 * i], y = src[2 * i + 1];
        dst[2 * i] = x * c - y * s;
        dst[2 * i + 1] = x * s + y * c;
    }
}

/* Folds the partial sums in halves. */
static inline float fold_lanes(float * sum) {
    for (int w = SEMSHARE_LANES / 2; w > 0; w /= 2) {
        for (int l = 0; l < w; l++) {
            sum[l] += sum[l + w];
        }
    }
    return sum[0];
}

#endif
