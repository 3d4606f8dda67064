/* Products of packed weights with packed rows, against doubles. */
#include "product.h"

#include "blocks.h"
#include "check.h"

#include <math.h>

static const struct {
    uint32_t type;
    enum product_packing packing;
    int32_t scales[2]; /* where a block has its halves; -1: it has no such */
} types[] = {
    {SEMSHARE_TYPE_Q4_0, PRODUCT_Q8_0, {0, -1}}, {SEMSHARE_TYPE_Q4_1, PRODUCT_Q8_1, {0, 2}},   {SEMSHARE_TYPE_Q5_0, PRODUCT_Q8_0, {0, -1}},
    {SEMSHARE_TYPE_Q5_1, PRODUCT_Q8_1, {0, 2}},  {SEMSHARE_TYPE_Q8_0, PRODUCT_Q8_0, {0, -1}}, {SEMSHARE_TYPE_Q4_K, PRODUCT_Q8_K, {0, 2}},
    {SEMSHARE_TYPE_Q5_K, PRODUCT_Q8_K, {0, 2}},  {SEMSHARE_TYPE_Q6_K, PRODUCT_Q8_K, {208, -1}},
};

enum { N_TYPES = sizeof types / sizeof types[0], MOST_WIDTH = 1536, MOST_ROWS = 96, MOST_N = 14 };

static uint8_t weights[MOST_ROWS * MOST_WIDTH * 2], packed[MOST_N * MOST_WIDTH * 2];
static void * scratch;
static float x[MOST_N * MOST_WIDTH], out[MOST_N * MOST_ROWS + 1];

/* Random bits, but for the halves. */
static void fill_weights(int t, size_t size, int32_t block, uint64_t * seed) {
    for (size_t i = 0; i < size; i++) {
        weights[i] = (uint8_t) random_below(seed, 256);
    }
    for (size_t at = 0; at < size; at += (size_t) block) {
        for (int i = 0; i < 2; i++) {
            if (types[t].scales[i] >= 0) {
                const uint16_t half = f16_from_f32(random_float(seed));
                memcpy(weights + at + types[t].scales[i], &half, sizeof half);
            }
        }
    }
}

/* What a row of floats is once packed: ggml's quantize_row_q8_0, _q8_1 and _q8_K. Returns
 * in sums what it takes the sum of each block to be. */
static void pack_plainly(enum product_packing packing, const float * row, int64_t width, double * to, double * sums) {
    const int64_t size = packing == PRODUCT_Q8_K ? 256 : 32;
    for (int64_t at = 0; at < width; at += size) {
        float most = 0;
        for (int64_t i = at; i < at + size; i++) {
            most = fabsf(row[i]) > fabsf(most) ? row[i] : most;
        }
        const float inverse = most == 0 ? 0 : packing == PRODUCT_Q8_K ? -127 / most : 127 / fabsf(most);
        const float exact = packing == PRODUCT_Q8_K ? (most == 0 ? 0 : 1 / inverse) : fabsf(most) / 127;
        const float scale = packing == PRODUCT_Q8_K ? exact : f32_from_f16(f16_from_f32(exact));
        for (int64_t b = at; b < at + size; b += 32) {
            float sum = 0;
            for (int64_t i = b; i < b + 32; i++) {
                const float code = fminf(127, nearbyintf(row[i] * inverse));
                to[i] = (double) (code * scale);
                sum += code;
            }
            sums[b / 32] = (double) (packing == PRODUCT_Q8_K ? scale * sum : f32_from_f16(f16_from_f32(exact * sum)));
        }
    }
}

/* What a block adds to each of its elements where that is a half of its own, times the
 * packed row's sum, which is rounded. */
static double least_of(int t, const uint8_t * row, int64_t b) {
    int32_t bytes;
    type_block(types[t].type, &bytes);
    return types[t].packing == PRODUCT_Q8_1 ? (double) get_half(row + b * bytes + types[t].scales[1]) : 0;
}

static void check_product(const struct product * p, int t, int64_t rows, int64_t width, int64_t n, uint64_t * seed) {
    static double plain[MOST_WIDTH], sums[MOST_WIDTH / 32];
    static float w[MOST_WIDTH];
    int32_t block;
    const int64_t row_size = width / type_block(types[t].type, &block) * block;
    const struct product_weights of = {types[t].type, weights, rows, width};
    fill_weights(t, (size_t) (rows * row_size), block, seed);
    for (int64_t i = 0; i < n * width; i++) {
        x[i] = random_below(seed, 50) == 0 ? 20 * random_float(seed) : random_float(seed);
    }
    for (int64_t i = 0; i < n; i++) {
        if (i == 1) {
            memset(x + i * width, 0, (size_t) width * sizeof *x);
        }
        p->pack(types[t].packing, x + i * width, width, packed + (size_t) i * product_row_size(width));
    }
    for (int64_t i = 0; i <= n * rows; i++) {
        out[i] = 12345;
    }
    const int64_t first = rows > 2 * PRODUCT_ROWS ? PRODUCT_ROWS : 0;
    p->multiply(&of, packed, n, first, rows, out, scratch);
    CHECK(out[n * rows] == 12345, "type %u: it wrote behind the last row", types[t].type);
    for (int64_t i = 0; i < n; i++) {
        pack_plainly(types[t].packing, x + i * width, width, plain, sums);
        for (int64_t r = 0; r < rows; r++) {
            const uint8_t * row = weights + r * row_size;
            double want = 0, size = 1e-6;
            CHECK(semshare_dequantize(types[t].type, row, row_size, w, width) == SEMSHARE_OK, "type %u: unpacking", types[t].type);
            for (int64_t b = 0; b < width / 32; b++) {
                const double least = least_of(t, row, b);
                want += least * sums[b];
                for (int64_t k = 32 * b; k < 32 * b + 32; k++) {
                    want += ((double) w[k] - least) * plain[k];
                    size += fabs((double) w[k] * plain[k]) + fabs(least * plain[k]);
                }
            }
            const double got = (double) out[i * rows + r];
            CHECK(r < first ? got == 12345 : fabs(got - want) <= 1e-5 * size, "type %u, %lld x %lld: row %lld of %lld is %g: expected %g", types[t].type, (long long) rows, (long long) width, (long long) i, (long long) n, got, want);
        }
    }
}

/* What no product is of must not trap, nor leave its rows. */
static void check_odd_values(const struct product * p, int t) {
    const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, 1e-40f};
    uint64_t seed = 7;
    int32_t block;
    const int64_t size = 256 / type_block(types[t].type, &block) * block;
    const struct product_weights of = {types[t].type, weights, PRODUCT_ROWS, 256};
    fill_weights(t, (size_t) (PRODUCT_ROWS * size), block, &seed);
    for (int i = 0; i < 5; i++) {
        for (int j = 0; j < 256; j++) {
            x[j] = j % 5 == 0 ? odd[i] : 1;
        }
        p->pack(types[t].packing, x, 256, packed);
        p->multiply(&of, packed, 1, 0, PRODUCT_ROWS, out, scratch);
    }
}

static void check_refusals(void) {
    enum product_packing packing;
    CHECK(product_for(SEMSHARE_TYPE_F16, 64, 256, &packing) == NULL, "it takes halves");
    CHECK(product_for(SEMSHARE_TYPE_IQ4_NL, 64, 256, &packing) == NULL, "it takes IQ4_NL");
    CHECK(product_for(SEMSHARE_TYPE_Q8_0, 48, 256, &packing) == NULL, "it takes 48 rows");
    CHECK(product_for(SEMSHARE_TYPE_Q8_0, 64, 48, &packing) == NULL, "it takes a width of 48");
    CHECK(product_for(SEMSHARE_TYPE_Q6_K, 64, 320, &packing) == NULL, "it takes a superblock and a quarter");
}

static void check_kernel(const struct product * p) {
    static const int64_t shapes[][3] = {{32, 256, 1}, {64, 512, 2}, {96, 768, 13}, {32, 1536, 7}, {96, 256, 6}};
    uint64_t seed = 1;
    printf("product: %s\n", p->name);
    scratch = aligned_alloc(64, (p->scratch + 63) / 64 * 64);
    for (int t = 0; t < N_TYPES; t++) {
        enum product_packing packing;
        CHECK(p->takes(types[t].type, 64, 256, &packing) && packing == types[t].packing, "type %u: not taken, or packed otherwise", types[t].type);
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            check_product(p, t, shapes[s][0], shapes[s][1], shapes[s][2], &seed);
        }
        if (packing != PRODUCT_Q8_K) {
            check_product(p, t, 32, 32, 3, &seed);
            check_product(p, t, 32, 544, 5, &seed);
        }
        check_odd_values(p, t);
    }
    free(scratch);
}

int main(void) {
    const struct product * last = NULL;
    for (int i = 0; i < N_CPUS; i++) {
        const bool has = semshare_use_cpu(cpus[i]) == SEMSHARE_OK;
        const struct product * p = has ? product_any() : NULL;
        if (p != NULL && p != last) {
            check_refusals();
            check_kernel(p);
            last = p;
        }
    }
#if defined(__x86_64__)
    if (last != NULL && last != &product_avx2) {
        check_kernel(&product_avx2);
    }
#endif
    if (last == NULL) {
        printf("product: SKIPPED, this machine has no kernel: ggml's own product is taken\n");
    }
    CHECK(semshare_use_cpu("scalar") == SEMSHARE_OK && product_any() == NULL, "there is a kernel for any machine");
    return report("product");
}
