/* Conversions between float32 and the two halves, to nearest, ties to even. */
#ifndef SEMSHARE_HALF_H
#define SEMSHARE_HALF_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define SEMSHARE_INLINE static __host__ __device__ inline
#else
#define SEMSHARE_INLINE static inline
#endif

SEMSHARE_INLINE float float_from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

SEMSHARE_INLINE uint32_t float_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

SEMSHARE_INLINE float f32_from_f16(uint16_t h) {
    const uint32_t sign = (uint32_t) (h & 0x8000) << 16;
    const uint32_t exp = (h >> 10) & 0x1f, frac = h & 0x3ff;
    if (exp == 0) { /* zero or subnormal: frac * 2^-24 is exact */
        return float_from_bits(float_bits((float) frac * 0x1p-24f) | sign);
    }
    if (exp == 0x1f) {
        return float_from_bits(sign | 0x7f800000 | frac << 13);
    }
    return float_from_bits(sign | (exp + 112) << 23 | frac << 13);
}

SEMSHARE_INLINE uint16_t f16_from_f32(float f) {
    uint32_t u = float_bits(f);
    const uint16_t sign = (uint16_t) (u >> 16) & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000) { /* NaN stays one */
        return (uint16_t) (sign | 0x7e00 | ((u >> 13) & 0x3ff));
    }
    if (u >= 0x47800000) { /* 65536 and up, infinity */
        return sign | 0x7c00;
    }
    if (u < 0x38800000) { /* below 2^-14: adding 0.5 rounds to multiples of 2^-24 */
        return (uint16_t) (sign | (float_bits(float_from_bits(u) + 0.5f) - 0x3f000000));
    }
    /* A carry out of the fraction runs on into the exponent, as it should. */
    return (uint16_t) (sign | (u - 0x38000000 + 0xfff + ((u >> 13) & 1)) >> 13);
}

SEMSHARE_INLINE float f32_from_bf16(uint16_t h) {
    return float_from_bits((uint32_t) h << 16);
}

/* As ggml_compute_fp32_to_bf16. */
SEMSHARE_INLINE uint16_t bf16_from_f32(float f) {
    const uint32_t u = float_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000) {
        return (uint16_t) (u >> 16 | 64);
    }
    return (uint16_t) ((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

#endif
