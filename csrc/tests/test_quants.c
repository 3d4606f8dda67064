/* Packing loses no more than the type's step; what is packed twice stays as it is. */
#include "check.h"
#include "half.h"

#include <math.h>

static void check_round_trip(uint32_t type, float step) {
    uint64_t seed = type;
    for (int round = 0; round < 200; round++) {
        float x[32], y[32];
        uint8_t b[128];
        int32_t bytes;
        const int64_t size = 32 / type_block(type, &bytes) * bytes;
        float top = 0, low = 0, high = 0;
        for (int i = 0; i < 32; i++) {
            x[i] = random_float(&seed) * 4;
            top = fmaxf(top, fabsf(x[i]));
            low = fminf(low, x[i]);
            high = fmaxf(high, x[i]);
        }
        CHECK(semshare_quantize(type, x, 32, b, size) == SEMSHARE_OK, "type %u: packing", type);
        CHECK(semshare_dequantize(type, b, size, y, 32) == SEMSHARE_OK, "type %u: unpacking", type);
        for (int i = 0; i < 32; i++) {
            CHECK(fabsf(x[i] - y[i]) <= step * fmaxf(top, high - low), "type %u: %g became %g", type, (double) x[i], (double) y[i]);
        }
    }
}

/* Blocks of nothing, of NaN and of infinities must not trap or leave the block. */
static void check_odd_values(uint32_t type) {
    const float odd[] = {0, -0.0f, NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-40f};
    for (int i = 0; i < 8; i++) {
        float x[32], y[32];
        uint8_t b[128];
        int32_t bytes;
        const int64_t size = 32 / type_block(type, &bytes) * bytes;
        for (int j = 0; j < 32; j++) {
            x[j] = j % 3 == 0 ? odd[i] : 0;
        }
        CHECK(semshare_quantize(type, x, 32, b, size) == SEMSHARE_OK, "type %u: packing %g", type, (double) odd[i]);
        CHECK(semshare_dequantize(type, b, size, y, 32) == SEMSHARE_OK, "type %u: unpacking %g", type, (double) odd[i]);
    }
}

/* Every instruction set packs and unpacks the same bits. */
static void check_variants(uint32_t type) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0, -0.0f, 1e30f, 1e-40f};
    uint64_t seed = type + 1000;
    for (int round = 0; round < 300; round++) {
        float x[64], y[64], first_y[64];
        uint8_t b[256], first_b[256];
        int32_t bytes;
        const int64_t size = 64 / type_block(type, &bytes) * bytes;
        for (int i = 0; i < 64; i++) {
            x[i] = round % 3 == 0 && i % 9 == 0 ? odd[random_below(&seed, 7)] : random_float(&seed);
        }
        for (int c = 0; c < N_CPUS; c++) {
            if (semshare_use_cpu(cpus[c]) != SEMSHARE_OK) {
                continue;
            }
            semshare_quantize(type, x, 64, b, size);
            semshare_dequantize(type, b, size, y, 64);
            if (c == 0) {
                memcpy(first_b, b, sizeof b);
                memcpy(first_y, y, sizeof y);
            }
            CHECK(memcmp(b, first_b, (size_t) size) == 0, "%s type %u: packs otherwise than the scalar version", cpus[c], type);
            for (int i = 0; i < 64; i++) {
                CHECK(y[i] == first_y[i] || (isnan(y[i]) && isnan(first_y[i])), "%s type %u: unpacks otherwise", cpus[c], type);
            }
        }
    }
}

/* Every weight type takes any bytes. */
static void check_any_bytes(uint32_t type) {
    uint64_t seed = type;
    int32_t bytes;
    const int32_t elems = type_block(type, &bytes);
    for (int round = 0; round < 50; round++) {
        uint8_t * b = malloc((size_t) bytes);
        float * y = malloc((size_t) elems * sizeof *y);
        for (int32_t i = 0; i < bytes; i++) {
            b[i] = (uint8_t) next_random(&seed);
        }
        CHECK(semshare_dequantize(type, b, bytes, y, elems) == SEMSHARE_OK, "type %u", type);
        CHECK(semshare_dequantize(type, b, bytes - 1, y, elems) == SEMSHARE_ERR_SIZE, "type %u: a byte short", type);
        free(b);
        free(y);
    }
}

int main(void) {
    static const float steps[N_CACHE_TYPES] = {0, 0x1p-11f, 0x1p-8f, 1.01f / 254, 1.01f / 8, 0.51f / 15, 1.01f / 16, 0.52f / 31, 0.16f};
    for (int t = 0; t < N_CACHE_TYPES; t++) {
        check_round_trip(cache_types[t], steps[t]);
        check_odd_values(cache_types[t]);
        check_any_bytes(cache_types[t]);
        check_variants(cache_types[t]);
    }
    static const uint32_t weights[] = {SEMSHARE_TYPE_Q2_K, SEMSHARE_TYPE_Q3_K, SEMSHARE_TYPE_Q4_K, SEMSHARE_TYPE_Q5_K, SEMSHARE_TYPE_Q6_K, SEMSHARE_TYPE_IQ4_XS};
    for (size_t t = 0; t < sizeof weights / sizeof weights[0]; t++) {
        check_any_bytes(weights[t]);
        uint8_t b[256];
        float x[256] = {0};
        int32_t bytes;
        type_block(weights[t], &bytes);
        CHECK(semshare_quantize(weights[t], x, 256, b, bytes) == SEMSHARE_ERR_TYPE, "type %u is no cache type", weights[t]);
    }
    CHECK(semshare_dequantize(77, NULL, 0, NULL, 0) == SEMSHARE_ERR_TYPE, "type 77");
    CHECK(semshare_dequantize(SEMSHARE_TYPE_F32, NULL, 4, NULL, 1) == SEMSHARE_ERR_ARGUMENT, "null");
    CHECK(semshare_dequantize(SEMSHARE_TYPE_Q8_0, NULL, 0, NULL, 0) == SEMSHARE_OK, "nothing");
    for (uint32_t h = 0; h < 1 << 16; h++) {
        const float f = f32_from_f16((uint16_t) h), g = f32_from_bf16((uint16_t) h);
        CHECK(isnan(f) || f16_from_f32(f) == h, "f16 %#x", h);
        CHECK(isnan(g) || bf16_from_f32(g) == h, "bf16 %#x", h);
    }
    return report("quants");
}
