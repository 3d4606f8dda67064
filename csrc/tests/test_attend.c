/* Attention, against doubles. */
#include "attend.h"

#include "check.h"
#include "half.h"

#include <math.h>

enum { MOST_CELLS = 400, MOST_TOKENS = 40, MOST_HEADS = 8 };

static uint16_t k[MOST_CELLS * 2 * ATTEND_MOST_DIM], v[MOST_CELLS * 2 * ATTEND_MOST_DIM];
static float q[MOST_TOKENS * MOST_HEADS * ATTEND_MOST_DIM], out[MOST_TOKENS * MOST_HEADS * ATTEND_MOST_DIM];

static void * scratch;

static double element(const uint8_t * rows, size_t row, int32_t cell, int32_t d) {
    uint16_t half;
    memcpy(&half, rows + (size_t) cell * row + (size_t) d * sizeof half, sizeof half);
    return (double) f32_from_f16(half);
}

static void attend_plainly(const struct attend_head * h, int32_t token, int32_t head, double * to, double * weight) {
    double most = -1e300, total = 0;
    const float * of = h->q + (size_t) token * h->token_q + (size_t) (head * h->dim);
    for (int32_t c = 0; c < h->visible[token]; c++) {
        weight[c] = 0;
        for (int32_t d = 0; d < h->dim; d++) {
            weight[c] += (double) of[d] * element(h->k, h->cell_k, c, d);
        }
        weight[c] *= (double) h->scale;
        most = fmax(most, weight[c]);
    }
    for (int32_t d = 0; d < h->dim; d++) {
        to[d] = 0;
    }
    for (int32_t c = 0; c < h->visible[token]; c++) {
        weight[c] = exp(weight[c] - most);
        total += weight[c];
        for (int32_t d = 0; d < h->dim; d++) {
            to[d] += weight[c] * element(h->v, h->cell_v, c, d);
        }
    }
    for (int32_t d = 0; d < h->dim; d++) {
        to[d] /= total;
    }
    for (int32_t c = 0; c < h->visible[token]; c++) {
        weight[c] /= total;
    }
}

static void check_shares(const struct attend * a, const struct attend_head * h) {
    static float shares[MOST_HEADS * MOST_CELLS];
    double out_of[ATTEND_MOST_DIM], want[MOST_CELLS];
    a->shares(h, shares, MOST_CELLS, scratch);
    for (int32_t head = 0; head < h->sharing; head++) {
        attend_plainly(h, 0, head, out_of, want);
        for (int32_t c = 0; c < h->visible[0]; c++) {
            const double got = (double) shares[head * MOST_CELLS + c];
            CHECK(fabs(got - want[c]) < 1e-4, "%d heads share, of %d: cell %d of %d has %g in place of %g", h->sharing, h->dim, c, h->visible[0], got, want[c]);
        }
    }
}

/* The second of two heads of keys; the cells behind what is seen are NaN. */
static void check_head(const struct attend * a, int32_t dim, int32_t sharing, int32_t tokens, int32_t cells, float loud, uint64_t * seed) {
    int32_t visible[MOST_TOKENS];
    const int32_t first = tokens > 2 ? 1 : 0;
    for (int32_t i = 0, at = 0; i < tokens; i++) {
        const int32_t left = cells - at - (tokens - 1 - i);
        at += i + 1 == tokens ? left : 1 + random_below(seed, left < 2 * cells / tokens ? left : 2 * cells / tokens);
        visible[i] = at;
    }
    for (int32_t c = 0; c < MOST_CELLS; c++) {
        for (int32_t d = 0; d < 2 * dim; d++) {
            k[c * 2 * dim + d] = c < cells ? f16_from_f32(loud * random_float(seed)) : 0x7e00;
            v[c * 2 * dim + d] = c < cells ? f16_from_f32(random_float(seed)) : 0x7e00;
        }
    }
    for (int32_t i = 0; i < tokens * 2 * sharing * dim; i++) {
        q[i] = loud * random_float(seed);
        out[i] = 12345;
    }
    const size_t row = 2 * (size_t) dim * sizeof *k, token = 2 * (size_t) (sharing * dim);
    const struct attend_head h = {(const uint8_t *) (k + dim), (const uint8_t *) (v + dim), row, row, dim, sharing, q + sharing * dim, token, out + sharing * dim, token, 0.125f, visible};
    a->head(&h, first, tokens - first, scratch);
    check_shares(a, &h);
    for (int32_t t = 0; t < tokens; t++) {
        for (int32_t head = 0; head < 2 * sharing; head++) {
            double want[ATTEND_MOST_DIM], weight[MOST_CELLS];
            const bool is_of = t >= first && head >= sharing;
            if (is_of) {
                attend_plainly(&h, t, head - sharing, want, weight);
            }
            for (int32_t d = 0; d < dim; d++) {
                const double got = (double) out[(size_t) t * token + (size_t) (head * dim + d)];
                CHECK(is_of ? fabs(got - want[d]) < (loud > 1 ? 1e-4 : 1e-5) : got == 12345, "heads of %d, %d share, token %d of %d sees %d: %g in place of %g", dim, sharing, t, tokens, visible[t], got, is_of ? want[d] : 12345);
            }
        }
    }
}

static void check_kernel(const struct attend * a) {
    static const int32_t shapes[][4] = {{64, 3, 5, 200}, {64, 7, 40, 400}, {128, 4, 30, 130}, {16, 1, 1, 1}, {96, 2, 7, 64}, {32, 8, 3, 65}, {80, 1, 40, 333}};
    uint64_t seed = 1;
    printf("attend: %s\n", a->name);
    scratch = aligned_alloc(64, (a->scratch + 63) / 64 * 64);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        check_head(a, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], 1, &seed);
        check_head(a, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], 8, &seed);
    }
    free(scratch);
}

int main(void) {
    bool any = false;
    CHECK(attend_for(72, 1) == NULL && attend_for(256, 1) == NULL && attend_for(64, 65) == NULL, "it takes heads of 72 or 256, or 65 that share");
    for (int i = 0; i < N_CPUS; i++) {
        const bool has = semshare_use_cpu(cpus[i]) == SEMSHARE_OK;
        const struct attend * a = has ? attend_for(64, 7) : NULL;
        if (a != NULL) {
            check_kernel(a);
            any = true;
        }
    }
    if (!any) {
        printf("attend: SKIPPED, this machine has no kernel: ggml's own attention is taken\n");
    }
    return report("attend");
}
