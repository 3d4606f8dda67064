/* The kernels in plain C, compiled once for each instruction set: this is both the
 * reference and what the vector files use where the compiler vectorises well. */
#ifndef SEMSHARE_VARIANTS_H
#define SEMSHARE_VARIANTS_H

#include "blocks.h"
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

static inline void hadamard_steps(float * restrict x, int32_t n, int32_t step) {
    for (; step < n; step *= 2) {
        for (int32_t i = 0; i < n; i += 2 * step) {
            for (int32_t j = i; j < i + step; j++) {
                const float a = x[j], b = x[j + step];
                x[j] = a + b;
                x[j + step] = a - b;
            }
        }
    }
}

static inline void hadamard_scale(float * restrict x, int32_t n) {
    const float norm = (float) (1 / sqrt((double) n));
    for (int32_t i = 0; i < n; i++) {
        x[i] *= norm;
    }
}

/* A loop over blocks for each type, so that the compiler sees the sizes. */
static void unpack(uint32_t type, const uint8_t * restrict src, float * restrict dst, int64_t blocks) {
#define UNPACK(TYPE, NAME, ELEMS, BYTES)                                        \
    case SEMSHARE_TYPE_##TYPE:                                                  \
        for (int64_t b = 0; b < blocks; b++) {                                  \
            unpack_##NAME(src + b * BYTES, dst + b * ELEMS);                    \
        }                                                                       \
        return;
    switch (type) {
        UNPACK(F32, f32, 1, 4)
        UNPACK(F16, f16, 1, 2)
        UNPACK(BF16, bf16, 1, 2)
        UNPACK(Q4_0, q4_0, 32, 18)
        UNPACK(Q4_1, q4_1, 32, 20)
        UNPACK(Q5_0, q5_0, 32, 22)
        UNPACK(Q5_1, q5_1, 32, 24)
        UNPACK(Q8_0, q8_0, 32, 34)
        UNPACK(IQ4_NL, iq4_nl, 32, 18)
        UNPACK(Q2_K, q2_k, 256, 84)
        UNPACK(Q3_K, q3_k, 256, 110)
        UNPACK(Q4_K, q4_k, 256, 144)
        UNPACK(Q5_K, q5_k, 256, 176)
        UNPACK(Q6_K, q6_k, 256, 210)
        UNPACK(IQ4_XS, iq4_xs, 256, 136)
    }
#undef UNPACK
}

static void pack(uint32_t type, const float * restrict src, uint8_t * restrict dst, int64_t blocks) {
#define PACK(TYPE, NAME, ELEMS, BYTES)                                          \
    case SEMSHARE_TYPE_##TYPE:                                                  \
        for (int64_t b = 0; b < blocks; b++) {                                  \
            pack_##NAME(src + b * ELEMS, dst + b * BYTES);                      \
        }                                                                       \
        return;
    switch (type) {
        PACK(F32, f32, 1, 4)
        PACK(F16, f16, 1, 2)
        PACK(BF16, bf16, 1, 2)
        PACK(Q4_0, q4_0, 32, 18)
        PACK(Q4_1, q4_1, 32, 20)
        PACK(Q5_0, q5_0, 32, 22)
        PACK(Q5_1, q5_1, 32, 24)
        PACK(Q8_0, q8_0, 32, 34)
        PACK(IQ4_NL, iq4_nl, 32, 18)
    }
#undef PACK
}

/* Folds the SEMSHARE_LANES partial sums. */
static inline float fold_lanes(float * sum) { return fold16(sum); }

#endif
