/* NEON, which every arm64 processor has. Products and sums are not fused: that would
 * round differently from the reference. */
#if defined(__aarch64__)
#include "variants.h"

#include <arm_neon.h>

static inline float32x4_t widen(uint16x4_t h) {
    return vcvt_f32_f16(vreinterpret_f16_u16(h));
}

static inline uint16x4_t narrow(float32x4_t x) {
    return vreinterpret_u16_f16(vcvt_f16_f32(x));
}

/* Four pairs at a time, taken apart and put together by the load and the store. */
static inline void turn_norm_wide(unaligned_u16 * y, const unaligned_u16 * x, int32_t from, int32_t pairs, const struct turn * t) {
    int32_t i = from;
    for (; i + 4 <= pairs; i += 4) {
        const uint16x4x2_t v = vld2_u16((const uint16_t *) (x + 2 * i));
        const float32x4_t a = widen(v.val[0]), b = widen(v.val[1]);
        const float32x4_t c = vld1q_f32(t->cos + i), s = vld1q_f32(t->sin + i);
        uint16x4x2_t out;
        out.val[0] = narrow(vsubq_f32(vmulq_f32(a, c), vmulq_f32(b, s)));
        out.val[1] = narrow(vaddq_f32(vmulq_f32(a, s), vmulq_f32(b, c)));
        vst2_u16((uint16_t *) (y + 2 * i), out);
    }
    turn_norm_f16(y, x, i, pairs, t);
}

static inline void turn_neox_wide(unaligned_u16 * y, const unaligned_u16 * x, int32_t from, int32_t pairs, const struct turn * t) {
    int32_t i = from;
    for (; i + 4 <= pairs; i += 4) {
        const float32x4_t a = widen(vld1_u16((const uint16_t *) (x + i)));
        const float32x4_t b = widen(vld1_u16((const uint16_t *) (x + i + pairs)));
        const float32x4_t c = vld1q_f32(t->cos + i), s = vld1q_f32(t->sin + i);
        vst1_u16((uint16_t *) (y + i), narrow(vsubq_f32(vmulq_f32(a, c), vmulq_f32(b, s))));
        vst1_u16((uint16_t *) (y + i + pairs), narrow(vaddq_f32(vmulq_f32(a, s), vmulq_f32(b, c))));
    }
    turn_neox_f16(y, x, i, pairs, t);
}

DEFINE_ROTATE(rotate_norm_f32, unaligned_f32, turn_norm_f32)
DEFINE_ROTATE(rotate_neox_f32, unaligned_f32, turn_neox_f32)
DEFINE_ROTATE(rotate_norm_f16, unaligned_u16, turn_norm_wide)
DEFINE_ROTATE(rotate_neox_f16, unaligned_u16, turn_neox_wide)

/* Four planes at a time, so that the row is loaded once for them. */
static void project(const float * row, const float * planes, int32_t dim, uint64_t * out) {
    uint64_t word = 0;
    for (int b = 0; b < 64; b += 4, planes += 4 * (size_t) dim) {
        float32x4_t sum[4][4];
        for (int p = 0; p < 16; p++) {
            sum[p / 4][p % 4] = vdupq_n_f32(0);
        }
        int32_t i = 0;
        for (; i + 16 <= dim; i += 16) {
            for (int q = 0; q < 4; q++) {
                const float32x4_t x = vld1q_f32(row + i + 4 * q);
                for (int p = 0; p < 4; p++) {
                    sum[p][q] = vaddq_f32(sum[p][q], vmulq_f32(x, vld1q_f32(planes + p * (size_t) dim + i + 4 * q)));
                }
            }
        }
        for (int p = 0; p < 4; p++) {
            float lanes[SEMSHARE_LANES];
            for (int q = 0; q < 4; q++) {
                vst1q_f32(lanes + 4 * q, sum[p][q]);
            }
            for (int32_t r = i; r < dim; r++) {
                lanes[r - i] += row[r] * planes[p * (size_t) dim + r];
            }
            word |= (uint64_t) (fold_lanes(lanes) > 0) << (b + p);
        }
    }
    *out = word;
}

static void hadamard_plain(float * x, int32_t elems, int32_t n) {
    for (; elems >= n; elems -= n, x += n) {
        hadamard_steps(x, n, 1);
        hadamard_scale(x, n);
    }
}

static bool usable(void) { return true; }

const struct variant variant_neon = {
    .name = "neon",
    .usable = usable,
    .rotate_f32 = {rotate_norm_f32, rotate_neox_f32},
    .rotate_f16 = {rotate_norm_f16, rotate_neox_f16},
    .rotate_bf16 = {rotate_norm_bf16, rotate_neox_bf16},
    .project = project,
    .place = place,
    .hadamard = hadamard_plain,
    .unpack = unpack,
    .pack = pack,
};
#endif
