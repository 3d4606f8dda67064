/*
 * Sign bits of random projections (simhash), of embeddings as they are or turned to
 * their positions. Position p is split into a multiple of STRIDE, whose angles are
 * worked out once for all that share it, and the rest, whose angles are in a table.
 */
#include "internal.h"

#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { STRIDE = 16, BATCH_ROWS = 64 };

struct signing {
    const float * rows;
    int64_t n_rows;
    int32_t dim;
    const int32_t * pos;
    const float * freqs;
    const float * planes;
    int32_t words;
    uint64_t * out;
    double * small; /* STRIDE x (dim/2 cosines, dim/2 sines) */
    const struct variant * variant;
    atomic_int status;
};

static void fill_angles(double * out, const float * freqs, int32_t pairs, double position) {
    for (int32_t i = 0; i < pairs; i++) {
        const double angle = position * (double) freqs[i];
        out[i] = cos(angle);
        out[pairs + i] = sin(angle);
    }
}

static void sign_row(const struct signing * s, int64_t r, const float * row) {
    for (int32_t w = 0; w < s->words; w++) {
        s->variant->project(row, s->planes + (size_t) w * 64 * (size_t) s->dim, s->dim, &s->out[r * s->words + w]);
    }
}

static void sign_batch_placed(struct signing * s, int64_t first, int64_t end) {
    const size_t dim = (size_t) s->dim;
    double * base = malloc(dim * (sizeof(double) + sizeof(float)));
    if (base == NULL) {
        atomic_store(&s->status, SEMSHARE_ERR_MEMORY);
        return;
    }
    float * placed = (float *) (base + dim);
    int32_t known = 1; /* no multiple of STRIDE */
    for (int64_t r = first; r < end; r++) {
        const int32_t rest = s->pos[r] & (STRIDE - 1);
        if (s->pos[r] - rest != known) {
            known = s->pos[r] - rest;
            fill_angles(base, s->freqs, s->dim / 2, known);
        }
        s->variant->place(placed, s->rows + (size_t) r * dim, s->dim, base, s->small + (size_t) rest * dim);
        sign_row(s, r, placed);
    }
    free(base);
}

static void sign_batch(void * arg, int64_t batch) {
    struct signing * s = arg;
    const int64_t first = batch * BATCH_ROWS;
    const int64_t end = s->n_rows - first < BATCH_ROWS ? s->n_rows : first + BATCH_ROWS;
    if (s->pos != NULL) {
        sign_batch_placed(s, first, end);
        return;
    }
    for (int64_t r = first; r < end; r++) {
        sign_row(s, r, s->rows + (size_t) r * (size_t) s->dim);
    }
}

static int32_t check(const float * rows, int64_t n_rows, int32_t dim, const int32_t * pos, const float * freqs, const float * planes, int32_t bits, const uint64_t * out) {
    if (n_rows < 0 || dim <= 0 || bits <= 0 || bits % 64 != 0) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    if (planes == NULL || (n_rows > 0 && (rows == NULL || out == NULL))) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    if (pos != NULL && (dim % 2 != 0 || freqs == NULL)) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    return n_rows > INT64_MAX / 16 / dim ? SEMSHARE_ERR_SIZE : SEMSHARE_OK;
}

int32_t semshare_signatures(const float * rows, int64_t n_rows, int32_t dim, const int32_t * pos, const float * freqs, const float * planes, int32_t bits, uint64_t * out, int32_t n_threads) {
    const int32_t status = check(rows, n_rows, dim, pos, freqs, planes, bits, out);
    if (status != SEMSHARE_OK) {
        return status;
    }
    struct signing s = {
        .rows = rows, .n_rows = n_rows, .dim = dim, .pos = pos, .freqs = freqs, .planes = planes,
        .words = bits / 64, .out = out, .variant = variant_current(),
    };
    if (pos != NULL) {
        s.small = malloc(STRIDE * (size_t) dim * sizeof *s.small);
        if (s.small == NULL) {
            return SEMSHARE_ERR_MEMORY;
        }
        for (int32_t r = 0; r < STRIDE; r++) {
            fill_angles(s.small + (size_t) r * (size_t) dim, freqs, dim / 2, r);
        }
    }
    parallel_for((n_rows + BATCH_ROWS - 1) / BATCH_ROWS, n_threads, sign_batch, &s);
    free(s.small);
    return atomic_load(&s.status);
}
