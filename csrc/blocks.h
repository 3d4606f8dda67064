/*
 * Blocks of ggml's packed types (ggml-common.h, ggml-quants.c), for C and for CUDA: all
 * that a cache may have both ways, the K-quants and IQ4_XS of weights only unpacked.
 */
#ifndef SEMSHARE_BLOCKS_H
#define SEMSHARE_BLOCKS_H

#include "half.h"

#include <float.h>
#include <math.h>

SEMSHARE_INLINE uint16_t get16(const uint8_t * b) { return (uint16_t) (b[0] | b[1] << 8); }

SEMSHARE_INLINE uint32_t get32(const uint8_t * b) {
    return (uint32_t) b[0] | (uint32_t) b[1] << 8 | (uint32_t) b[2] << 16 | (uint32_t) b[3] << 24;
}

SEMSHARE_INLINE void put16(uint8_t * b, uint16_t v) {
    b[0] = (uint8_t) v;
    b[1] = (uint8_t) (v >> 8);
}

SEMSHARE_INLINE void put32(uint8_t * b, uint32_t v) {
    put16(b, (uint16_t) v);
    put16(b + 2, (uint16_t) (v >> 16));
}

SEMSHARE_INLINE float get_half(const uint8_t * b) { return f32_from_f16(get16(b)); }
SEMSHARE_INLINE void put_half(uint8_t * b, float f) { put16(b, f16_from_f32(f)); }

/* Level i of the 16 of IQ4_NL and IQ4_XS (kvalues_iq4nl). */
SEMSHARE_INLINE float iq4_value(int i) {
    const float values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    return values[i];
}

/* ---- unpacking ---- */

SEMSHARE_INLINE void unpack_f32(const uint8_t * b, float * y) { y[0] = float_from_bits(get32(b)); }
SEMSHARE_INLINE void unpack_f16(const uint8_t * b, float * y) { y[0] = get_half(b); }
SEMSHARE_INLINE void unpack_bf16(const uint8_t * b, float * y) { y[0] = f32_from_bf16(get16(b)); }

SEMSHARE_INLINE void unpack_q4_0(const uint8_t * b, float * y) {
    const float d = get_half(b);
    for (int j = 0; j < 16; j++) {
        y[j] = (float) ((b[2 + j] & 15) - 8) * d;
        y[j + 16] = (float) ((b[2 + j] >> 4) - 8) * d;
    }
}

SEMSHARE_INLINE void unpack_q4_1(const uint8_t * b, float * y) {
    const float d = get_half(b), m = get_half(b + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = (float) (b[4 + j] & 15) * d + m;
        y[j + 16] = (float) (b[4 + j] >> 4) * d + m;
    }
}

SEMSHARE_INLINE void unpack_q5_0(const uint8_t * b, float * y) {
    const float d = get_half(b);
    const uint32_t high = get32(b + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = (float) ((int) ((b[6 + j] & 15) | (high >> j & 1) << 4) - 16) * d;
        y[j + 16] = (float) ((int) ((b[6 + j] >> 4) | (high >> (j + 16) & 1) << 4) - 16) * d;
    }
}

SEMSHARE_INLINE void unpack_q5_1(const uint8_t * b, float * y) {
    const float d = get_half(b), m = get_half(b + 2);
    const uint32_t high = get32(b + 4);
    for (int j = 0; j < 16; j++) {
        y[j] = (float) (int) ((b[8 + j] & 15) | (high >> j & 1) << 4) * d + m;
        y[j + 16] = (float) (int) ((b[8 + j] >> 4) | (high >> (j + 16) & 1) << 4) * d + m;
    }
}

SEMSHARE_INLINE void unpack_q8_0(const uint8_t * b, float * y) {
    const float d = get_half(b);
    for (int j = 0; j < 32; j++) {
        y[j] = (float) (int8_t) b[2 + j] * d;
    }
}

SEMSHARE_INLINE void unpack_iq4_nl(const uint8_t * b, float * y) {
    const float d = get_half(b);
    for (int j = 0; j < 16; j++) {
        y[j] = d * iq4_value(b[2 + j] & 15);
        y[j + 16] = d * iq4_value(b[2 + j] >> 4);
    }
}

SEMSHARE_INLINE void unpack_iq4_xs(const uint8_t * b, float * y) {
    const float d = get_half(b);
    const uint32_t high = get16(b + 2);
    for (int i = 0; i < 8; i++) {
        const int scale = (b[4 + i / 2] >> (4 * (i % 2)) & 15) | (int) (high >> (2 * i) & 3) << 4;
        const float dl = d * (float) (scale - 32);
        for (int j = 0; j < 16; j++) {
            const uint8_t q = b[8 + 16 * i + j];
            y[32 * i + j] = dl * iq4_value(q & 15);
            y[32 * i + j + 16] = dl * iq4_value(q >> 4);
        }
    }
}

SEMSHARE_INLINE void unpack_q2_k(const uint8_t * b, float * y) {
    const float d = get_half(b + 80), dmin = get_half(b + 82);
    for (int i = 0; i < 16; i++) { /* 16 values each */
        const uint8_t * q = b + 16 + 32 * (i / 8) + 16 * (i % 2);
        const int shift = 2 * (i % 8 / 2);
        const float dl = d * (float) (b[i] & 15), ml = dmin * (float) (b[i] >> 4);
        for (int l = 0; l < 16; l++) {
            y[16 * i + l] = dl * (float) (q[l] >> shift & 3) - ml;
        }
    }
}

SEMSHARE_INLINE void unpack_q3_k(const uint8_t * b, float * y) {
    const uint8_t * packed = b + 96;
    const float d = get_half(b + 108);
    for (int i = 0; i < 16; i++) { /* 16 values each */
        const int scale = (packed[i % 8] >> (4 * (i / 8)) & 15) | (packed[8 + i % 4] >> (2 * (i / 4)) & 3) << 4;
        const float dl = d * (float) (scale - 32);
        const uint8_t * high = b + 16 * (i % 2);
        const uint8_t * q = b + 32 + 32 * (i / 8) + 16 * (i % 2);
        const int shift = 2 * (i % 8 / 2), bit = 1 << (i / 2);
        for (int l = 0; l < 16; l++) {
            y[16 * i + l] = dl * (float) ((q[l] >> shift & 3) - (high[l] & bit ? 0 : 4));
        }
    }
}

/* Scale and minimum i of the 8 in 12 bytes (get_scale_min_k4). */
SEMSHARE_INLINE void scale_min_k4(const uint8_t * b, int i, float * scale, float * min) {
    if (i < 4) {
        *scale = (float) (b[i] & 63);
        *min = (float) (b[i + 4] & 63);
    } else {
        *scale = (float) ((b[i + 4] & 15) | b[i - 4] >> 6 << 4);
        *min = (float) (b[i + 4] >> 4 | b[i] >> 6 << 4);
    }
}

SEMSHARE_INLINE void unpack_q4_k(const uint8_t * b, float * y) {
    const float d = get_half(b), dmin = get_half(b + 2);
    for (int i = 0; i < 8; i++) { /* 32 values each */
        float scale, min;
        scale_min_k4(b + 4, i, &scale, &min);
        const float dl = d * scale, ml = dmin * min;
        for (int l = 0; l < 32; l++) {
            y[32 * i + l] = dl * (float) (b[16 + 32 * (i / 2) + l] >> (4 * (i % 2)) & 15) - ml;
        }
    }
}

SEMSHARE_INLINE void unpack_q5_k(const uint8_t * b, float * y) {
    const float d = get_half(b), dmin = get_half(b + 2);
    for (int i = 0; i < 8; i++) { /* 32 values each */
        float scale, min;
        scale_min_k4(b + 4, i, &scale, &min);
        const float dl = d * scale, ml = dmin * min;
        for (int l = 0; l < 32; l++) {
            const int low = b[48 + 32 * (i / 2) + l] >> (4 * (i % 2)) & 15;
            y[32 * i + l] = dl * (float) (low | (b[16 + l] >> i & 1) << 4) - ml;
        }
    }
}

SEMSHARE_INLINE void unpack_q6_k(const uint8_t * b, float * y) {
    const float d = get_half(b + 208);
    for (int i = 0; i < 8; i++) { /* 32 values each */
        const int n = i / 4, k = i % 4;
        for (int l = 0; l < 32; l++) {
            const int v = (b[64 * n + 32 * (k % 2) + l] >> (4 * (k / 2)) & 15) | (b[128 + 32 * n + l] >> (2 * k) & 3) << 4;
            const float scale = (float) (int8_t) b[192 + 8 * n + 2 * k + l / 16];
            y[32 * i + l] = d * scale * (float) (v - 32);
        }
    }
}

/* ---- packing ---- */

SEMSHARE_INLINE void pack_f32(const float * x, uint8_t * b) { put32(b, float_bits(x[0])); }
SEMSHARE_INLINE void pack_f16(const float * x, uint8_t * b) { put_half(b, x[0]); }
SEMSHARE_INLINE void pack_bf16(const float * x, uint8_t * b) { put16(b, bf16_from_f32(x[0])); }

/* The largest magnitude, NaN not counted. Bits of magnitudes order as they do, and
 * compilers vectorise a maximum of integers. */
SEMSHARE_INLINE uint32_t magnitude(const float * x) {
    uint32_t top = 0;
    for (int j = 0; j < 32; j++) {
        uint32_t u = float_bits(x[j]) & 0x7fffffff;
        u = u > 0x7f800000 ? 0 : u;
        top = u > top ? u : top;
    }
    return top;
}

/* The value of the largest magnitude, the first of equals. */
SEMSHARE_INLINE float extreme(const float * x) {
    const uint32_t top = magnitude(x);
    for (int j = 0; j < 32; j++) {
        if ((float_bits(x[j]) & 0x7fffffff) == top && top != 0) {
            return x[j];
        }
    }
    return 0;
}

SEMSHARE_INLINE void bounds(const float * x, float * low, float * high) {
    *low = FLT_MAX;
    *high = -FLT_MAX;
    for (int j = 0; j < 32; j++) {
        *low = x[j] < *low ? x[j] : *low;
        *high = x[j] > *high ? x[j] : *high;
    }
}

SEMSHARE_INLINE float inverse(float d) { return d != 0 ? 1 / d : 0; }

/* Truncates a scaled value and keeps it within 0 to top. NaN becomes 0. */
SEMSHARE_INLINE uint8_t level(float v, int top) {
    v = v > 0 ? v : 0;
    v = v < (float) top ? v : (float) top;
    return (uint8_t) v;
}

/* Stores 32 five-bit levels as four bits each and a word of fifth bits. */
SEMSHARE_INLINE void pack5(const uint8_t * levels, uint8_t * b) {
    uint32_t high = 0;
    for (int j = 0; j < 16; j++) {
        const uint8_t lo = levels[j], hi = levels[j + 16];
        b[4 + j] = (uint8_t) ((lo & 15) | (hi & 15) << 4);
        high |= (uint32_t) (lo >> 4) << j | (uint32_t) (hi >> 4) << (j + 16);
    }
    put32(b, high);
}

SEMSHARE_INLINE void pack_q4_0(const float * x, uint8_t * b) {
    const float d = extreme(x) / -8, id = inverse(d);
    put_half(b, d);
    for (int j = 0; j < 16; j++) {
        b[2 + j] = (uint8_t) (level(x[j] * id + 8.5f, 15) | level(x[j + 16] * id + 8.5f, 15) << 4);
    }
}

SEMSHARE_INLINE void pack_q4_1(const float * x, uint8_t * b) {
    float low, high;
    bounds(x, &low, &high);
    const float d = (high - low) / 15, id = inverse(d);
    put_half(b, d);
    put_half(b + 2, low);
    for (int j = 0; j < 16; j++) {
        b[4 + j] = (uint8_t) (level((x[j] - low) * id + 0.5f, 15) | level((x[j + 16] - low) * id + 0.5f, 15) << 4);
    }
}

SEMSHARE_INLINE void pack_q5_0(const float * x, uint8_t * b) {
    const float d = extreme(x) / -16, id = inverse(d);
    uint8_t levels[32];
    put_half(b, d);
    for (int j = 0; j < 32; j++) {
        levels[j] = level(x[j] * id + 16.5f, 31);
    }
    pack5(levels, b + 2);
}

SEMSHARE_INLINE void pack_q5_1(const float * x, uint8_t * b) {
    float low, high;
    uint8_t levels[32];
    bounds(x, &low, &high);
    const float d = (high - low) / 31, id = inverse(d);
    put_half(b, d);
    put_half(b + 2, low);
    for (int j = 0; j < 32; j++) {
        levels[j] = level((x[j] - low) * id + 0.5f, 31);
    }
    pack5(levels, b + 4);
}

/* To nearest, ties away from 0 (roundf), within int8; NaN becomes 0. */
SEMSHARE_INLINE int8_t round_away(float v) {
    v = v > -128 ? v : (v <= -128 ? -128.0f : 0.0f);
    v = v < 127 ? v : 127.0f;
    const int whole = (int) v;
    const float rest = v - (float) whole;
    return (int8_t) (whole + (rest >= 0.5f) - (rest <= -0.5f));
}

SEMSHARE_INLINE void pack_q8_0(const float * x, uint8_t * b) {
    const float d = float_from_bits(magnitude(x)) / 127, id = inverse(d);
    put_half(b, d);
    for (int j = 0; j < 32; j++) {
        b[2 + j] = (uint8_t) round_away(x[j] * id);
    }
}

/* The level nearest to v, the upper one of two as near (best_index_int8). */
SEMSHARE_INLINE uint8_t nearest_iq4(float v) {
    if (!(v > iq4_value(0))) {
        return 0;
    }
    int i = 1;
    while (i < 15 && v >= iq4_value(i)) {
        i++;
    }
    return (uint8_t) (v - iq4_value(i - 1) < iq4_value(i) - v ? i - 1 : i);
}

/* Folds 16 partial sums in halves. */
SEMSHARE_INLINE float fold16(float * sum) {
    for (int w = 8; w > 0; w /= 2) {
        for (int l = 0; l < w; l++) {
            sum[l] += sum[l + w];
        }
    }
    return sum[0];
}

/* Takes the scale that fits the chosen levels best, in the least squares weighted by
 * x^2 (quantize_row_iq4_nl_impl with ntry = -1), added up in 16 partial sums as the
 * widest vector unit would. */
SEMSHARE_INLINE void pack_iq4_nl(const float * x, uint8_t * b) {
    memset(b, 0, 18);
    const float top = extreme(x);
    if (!(fabsf(top) >= 1e-15f)) { /* GROUP_MAX_EPS */
        return;
    }
    const float id = 1 / (top / iq4_value(0));
    uint8_t levels[32];
    float qx[16] = {0}, qq[16] = {0};
    for (int j = 0; j < 32; j++) {
        levels[j] = nearest_iq4(id * x[j]);
        const float q = iq4_value(levels[j]), w = x[j] * x[j];
        qx[j % 16] += w * q * x[j];
        qq[j % 16] += w * q * q;
    }
    const float weight = fold16(qq);
    if (weight > 0) {
        put_half(b, fold16(qx) / weight);
    }
    for (int j = 0; j < 16; j++) {
        b[2 + j] = (uint8_t) (levels[j] | levels[j + 16] << 4);
    }
}

#endif
