/* Signatures are the same on every instruction set and with any number of threads, and
 * agree with products worked out in double. */
#include "check.h"

#include <math.h>

static double exact_product(const float * row, const float * plane, int32_t dim, const int32_t * pos, const float * freqs) {
    double sum = 0;
    for (int32_t i = 0; i < dim; i++) {
        double x = (double) row[i];
        if (pos != NULL) {
            const double angle = (double) *pos * (double) freqs[i / 2], other = (double) row[i ^ 1];
            x = i % 2 == 0 ? x * cos(angle) - other * sin(angle) : other * sin(angle) + x * cos(angle);
        }
        sum += x * (double) plane[i];
    }
    return sum;
}

static float * random_floats(uint64_t * seed, int64_t n) {
    float * out = malloc((size_t) n * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        out[i] = random_float(seed);
    }
    return out;
}

static void check_signatures(int32_t dim, int32_t bits, int64_t n, bool placed) {
    uint64_t seed = (uint64_t) dim;
    float * rows = random_floats(&seed, n * dim), * planes = random_floats(&seed, (int64_t) bits * dim), * freqs = random_floats(&seed, dim);
    int32_t * positions = malloc((size_t) n * sizeof *positions);
    const size_t words = (size_t) (n * bits / 64);
    uint64_t * out = malloc(words * sizeof *out), * first = malloc(words * sizeof *first);
    for (int64_t i = 0; i < n; i++) {
        positions[i] = (int32_t) (i * 3 - 20);
    }
    const int32_t * pos = placed ? positions : NULL;
    for (int c = 0; c < N_CPUS; c++) {
        if (semshare_use_cpu(cpus[c]) != SEMSHARE_OK) {
            continue;
        }
        const int32_t status = semshare_signatures(rows, n, dim, pos, freqs, planes, bits, out, 1 + c);
        CHECK(status == SEMSHARE_OK, "%s: status %d", cpus[c], status);
        if (c == 0) {
            memcpy(first, out, words * sizeof *out);
        }
        CHECK(memcmp(first, out, words * sizeof *out) == 0, "%s dim %d: differs from the scalar version", cpus[c], dim);
    }
    for (int64_t r = 0; r < n; r++) {
        for (int32_t b = 0; b < bits; b++) {
            const double product = exact_product(rows + r * dim, planes + (int64_t) b * dim, dim, placed ? &positions[r] : NULL, freqs);
            const bool set = first[r * bits / 64 + b / 64] >> (b % 64) & 1;
            CHECK(set == (product > 0) || fabs(product) < 1e-4, "dim %d row %d bit %d: %d for %g", dim, (int) r, b, set, product);
        }
    }
    free(rows), free(planes), free(freqs), free(positions), free(out), free(first);
}

int main(void) {
    check_signatures(64, 64, 20, false);
    check_signatures(64, 128, 300, true);
    check_signatures(576, 64, 300, true);
    check_signatures(30, 64, 20, true);
    check_signatures(7, 64, 20, false);
    check_signatures(1, 64, 1, false);
    float x[4] = {0};
    uint64_t out[1];
    const int32_t pos[1] = {0};
    CHECK(semshare_signatures(x, 1, 0, NULL, NULL, x, 64, out, 1) == SEMSHARE_ERR_ARGUMENT, "dim 0");
    CHECK(semshare_signatures(x, 1, 2, NULL, NULL, x, 63, out, 1) == SEMSHARE_ERR_ARGUMENT, "63 bits");
    CHECK(semshare_signatures(x, 1, 3, pos, x, x, 64, out, 1) == SEMSHARE_ERR_ARGUMENT, "odd dim with positions");
    CHECK(semshare_signatures(x, 1, 2, pos, NULL, x, 64, out, 1) == SEMSHARE_ERR_ARGUMENT, "no frequencies");
    CHECK(semshare_signatures(x, -1, 2, NULL, NULL, x, 64, out, 1) == SEMSHARE_ERR_ARGUMENT, "negative rows");
    CHECK(semshare_signatures(x, INT64_MAX / 8, 2, NULL, NULL, x, 64, out, 1) == SEMSHARE_ERR_SIZE, "too many rows");
    CHECK(semshare_signatures(NULL, 0, 2, NULL, NULL, x, 64, NULL, 1) == SEMSHARE_OK, "no rows");
    return report("signatures");
}
