/* A random composition: two layers, up to three references, any type and shape. */
#ifndef SEMSHARE_TESTS_CASE_H
#define SEMSHARE_TESTS_CASE_H

#include "check.h"

enum { MAX_REFS = 3, MAX_RUNS = 12, LAYERS = 2, SOURCE_CELLS = 40 };

struct test_case {
    struct semshare_job jobs[LAYERS];
    struct semshare_source sources[LAYERS][MAX_REFS];
    struct semshare_run runs[MAX_RUNS];
    int32_t n_runs;
    struct semshare_rope rope;
    float freqs[128];
};

/* Exactly as large as asked for, so that the sanitizer sees a byte too far; at an odd
 * address, as in a state file. Freed by case_free. */
static inline uint8_t * odd_alloc(int64_t size) { return (uint8_t *) malloc((size_t) size + 1) + 1; }
static inline void odd_free(const void * p) { free((uint8_t *) (uintptr_t) p - 1); }

static inline bool type_divides(uint32_t type, int32_t width) {
    int32_t bytes;
    return width % type_block(type, &bytes) == 0;
}

/* Bytes of a row of width elements. */
static inline int64_t type_row(uint32_t type, int32_t width) {
    int32_t bytes;
    return (int64_t) (width / type_block(type, &bytes)) * bytes;
}

static inline uint8_t * random_rows(uint64_t * seed, uint32_t type, int64_t rows, int64_t row) {
    int32_t bytes;
    const int64_t elems = type_block(type, &bytes), n = row / bytes * elems;
    float * x = malloc((size_t) n * sizeof *x);
    uint8_t * out = odd_alloc(rows * row);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < n; i++) {
            x[i] = random_float(seed);
        }
        semshare_quantize(type, x, n, out + r * row, row);
    }
    free(x);
    return out;
}

/* A source of the job's types or, half of the time, of others: rows of width elements,
 * values perhaps in columns (random either way). */
static inline void source_init(struct semshare_source * s, uint64_t * seed, int32_t width, uint32_t k_type, uint32_t v_type) {
    *s = (struct semshare_source) {.cells = SOURCE_CELLS, .k_type = k_type, .v_type = v_type, .retyped = random_below(seed, 2)};
    if (s->retyped) {
        s->v_trans = random_below(seed, 2);
        do {
            s->k_type = cache_types[random_below(seed, N_CACHE_TYPES)];
        } while (!type_divides(s->k_type, width));
        do {
            s->v_type = cache_types[random_below(seed, N_CACHE_TYPES)];
        } while (!type_divides(s->v_type, s->v_trans ? 1 : width));
    }
    s->k_size = SOURCE_CELLS * type_row(s->k_type, width);
    s->v_size = SOURCE_CELLS * type_row(s->v_type, width);
    s->k = random_rows(seed, s->k_type, SOURCE_CELLS, s->k_size / SOURCE_CELLS);
    s->v = random_rows(seed, s->v_type, SOURCE_CELLS, s->v_size / SOURCE_CELLS);
}

static inline void case_init(struct test_case * c, uint64_t seed, uint32_t type) {
    static const int32_t heads_of[] = {32, 64, 80, 96, 128};
    static const int32_t deltas[] = {0, 0, 1, -1, 7, 5000, -131072};
    const int32_t head_dim = heads_of[random_below(&seed, 5)];
    const int32_t dims_of[] = {head_dim, head_dim / 2, 20, 2};
    *c = (struct test_case) {.rope = {.neox = random_below(&seed, 2), .head_dim = head_dim, .dims = dims_of[random_below(&seed, 4)]}};
    for (int32_t i = 0; i < c->rope.dims / 2; i++) {
        c->freqs[i] = 1.0f / (float) (1 + i * i);
    }
    c->rope.freqs = c->freqs;

    const int32_t n_refs = 1 + random_below(&seed, MAX_REFS);
    int32_t cells = 0;
    c->n_runs = random_below(&seed, MAX_RUNS + 1);
    for (int32_t i = 0; i < c->n_runs; i++) {
        struct semshare_run * r = &c->runs[i];
        cells += random_below(&seed, 3);
        *r = (struct semshare_run) {random_below(&seed, n_refs), 0, cells, 1 + random_below(&seed, 9), deltas[random_below(&seed, 7)]};
        r->src = random_below(&seed, SOURCE_CELLS - r->len + 1);
        cells += r->len;
    }

    int32_t bytes;
    const int32_t elems = type_block(type, &bytes), width = head_dim * 2 * (1 + random_below(&seed, 3));
    const bool trans = random_below(&seed, 2), rot = random_below(&seed, 2);
    static const uint32_t value_types[] = {SEMSHARE_TYPE_F16, SEMSHARE_TYPE_F32, SEMSHARE_TYPE_BF16};
    const uint32_t v_type = value_types[random_below(&seed, 3)];
    int32_t v_elem;
    type_block(v_type, &v_elem);
    for (int l = 0; l < LAYERS; l++) {
        struct semshare_job * j = &c->jobs[l];
        *j = (struct semshare_job) {
            .k_type = type, .k_row = width / elems * bytes, .v_trans = trans, .v_elem = trans ? v_elem : 0, .v_row = trans ? 0 : v_elem * width,
            .v_width = trans ? width : 0, .dst_cells = cells, .sources = c->sources[l], .n_sources = n_refs,
            .k_rot = rot ? head_dim & -head_dim : 0, .v_type = v_type,
        };
        j->k_size = cells * j->k_row;
        j->v_size = cells * v_elem * (int64_t) width;
        j->k = odd_alloc(j->k_size);
        j->v = odd_alloc(j->v_size);
        for (int32_t r = 0; r < n_refs; r++) {
            struct semshare_source * s = &c->sources[l][r];
            source_init(s, &seed, width, type, v_type);
        }
    }
}

static inline void case_clear(struct test_case * c) {
    for (int l = 0; l < LAYERS; l++) {
        memset(c->jobs[l].k, 0, (size_t) c->jobs[l].k_size);
        memset(c->jobs[l].v, 0, (size_t) c->jobs[l].v_size);
    }
}

static inline void case_free(struct test_case * c) {
    for (int l = 0; l < LAYERS; l++) {
        for (int32_t r = 0; r < c->jobs[l].n_sources; r++) {
            odd_free(c->sources[l][r].k);
            odd_free(c->sources[l][r].v);
        }
        odd_free(c->jobs[l].k);
        odd_free(c->jobs[l].v);
    }
}

#endif
