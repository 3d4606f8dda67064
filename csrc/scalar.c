/* The reference: what every other variant must agree with, bit for bit. */
#include "variants.h"

DEFINE_ROTATE(rotate_norm_f32, unaligned_f32, turn_norm_f32)
DEFINE_ROTATE(rotate_neox_f32, unaligned_f32, turn_neox_f32)
DEFINE_ROTATE(rotate_norm_f16, unaligned_u16, turn_norm_f16)
DEFINE_ROTATE(rotate_neox_f16, unaligned_u16, turn_neox_f16)

static void project(const float * row, const float * planes, int32_t dim, uint64_t * out) {
    uint64_t word = 0;
    for (int b = 0; b < 64; b++, planes += dim) {
        float sum[SEMSHARE_LANES] = {0};
        for (int32_t i = 0; i < dim; i++) {
            sum[i % SEMSHARE_LANES] += row[i] * planes[i];
        }
        word |= (uint64_t) (fold_lanes(sum) > 0) << b;
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

const struct variant variant_scalar = {
    .name = "scalar",
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
