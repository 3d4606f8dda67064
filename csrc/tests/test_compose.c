/* Composes random cases on every instruction set and compares with a plain, separate
 * reading of the header: one row at a time, one element at a time. */
#include "case.h"
#include "half.h"

#include <math.h>

/* ---- the naive version ---- */

static void naive_hadamard(float * x, int32_t n) {
    float out[256];
    for (int32_t i = 0; i < n; i++) {
        double sum = 0;
        for (int32_t j = 0; j < n; j++) {
            sum += (__builtin_popcount((unsigned) (i & j)) % 2 ? -1.0 : 1.0) * (double) x[j];
        }
        out[i] = (float) (sum / sqrt(n));
    }
    memcpy(x, out, (size_t) n * sizeof *x);
}

static void naive_head(float * x, const struct semshare_rope * rope, int32_t delta, int32_t rot) {
    for (int32_t i = 0; rot > 1 && i < rope->head_dim; i += rot) {
        naive_hadamard(x + i, rot);
    }
    for (int32_t i = 0; i < rope->dims / 2; i++) {
        float * a = x + (rope->neox ? i : 2 * i), * b = x + (rope->neox ? i + rope->dims / 2 : 2 * i + 1);
        const double angle = (double) delta * (double) rope->freqs[i];
        const float c = (float) cos(angle), s = (float) sin(angle), x0 = *a, x1 = *b;
        *a = x0 * c - x1 * s;
        *b = x0 * s + x1 * c;
    }
    for (int32_t i = 0; rot > 1 && i < rope->head_dim; i += rot) {
        naive_hadamard(x + i, rot);
    }
}

/* The key that ought to stand in a row of the target, unpacked. */
static void naive_key(const struct semshare_job * j, const struct semshare_rope * rope, const struct semshare_run * r, int32_t i, float * out, int64_t n) {
    const struct semshare_source * s = &j->sources[r->ref];
    const int64_t row = s->k_size / SOURCE_CELLS;
    semshare_dequantize(s->k_type, s->k + (r->src + i) * row, row, out, n);
    for (int64_t h = 0; r->delta != 0 && h < n; h += rope->head_dim) {
        naive_head(out + h, rope, r->delta, j->k_rot);
    }
}

/* What a type loses of a value, relative to the largest of its row. */
static float rounding(uint32_t type) {
    switch (type) {
    case SEMSHARE_TYPE_F32: return 1e-5f;
    case SEMSHARE_TYPE_F16: return 0x1p-10f;
    case SEMSHARE_TYPE_BF16: return 0x1p-7f;
    case SEMSHARE_TYPE_Q8_0: return 0.01f;
    default: return 0.16f;
    }
}

static void check_keys(const struct test_case * c, const struct semshare_job * j, const char * cpu) {
    int32_t bytes;
    const int64_t elems = type_block(j->k_type, &bytes), n = j->k_row / bytes * elems;
    float * want = malloc(2 * (size_t) n * sizeof *want), * got = want + n;
    for (int32_t k = 0; k < c->n_runs; k++) {
        for (int32_t i = 0; i < c->runs[k].len; i++) {
            naive_key(j, &c->rope, &c->runs[k], i, want, n);
            semshare_dequantize(j->k_type, j->k + (c->runs[k].dst + i) * j->k_row, j->k_row, got, n);
            float worst = 0, top = 0;
            for (int64_t e = 0; e < n; e++) {
                worst = fmaxf(worst, fabsf(want[e] - got[e]));
                top = fmaxf(top, fabsf(want[e]));
            }
            CHECK(worst <= top * rounding(j->k_type), "%s type %u delta %d: key off by %g of %g", cpu, j->k_type, c->runs[k].delta, (double) worst, (double) top);
        }
    }
    free(want);
}

/* Value w of cell i, unpacked. */
static float naive_value(const struct semshare_source * s, int32_t width, bool trans, int64_t i, int32_t w) {
    float row[1024];
    const int64_t size = s->v_size / SOURCE_CELLS;
    if (trans) {
        const int64_t elem = size / width;
        semshare_dequantize(s->v_type, s->v + (w * SOURCE_CELLS + i) * elem, elem, row, 1);
        return row[0];
    }
    semshare_dequantize(s->v_type, s->v + i * size, size, row, width);
    return row[w];
}

/* Values are those of their source, packed as the target's are: byte for byte. */
static void check_values(const struct test_case * c, const struct semshare_job * j, const char * cpu) {
    int32_t elem;
    type_block(j->v_type, &elem);
    const int32_t width = (int32_t) (j->v_trans ? j->v_width : j->v_row / elem);
    bool same = true;
    for (int32_t k = 0; k < c->n_runs; k++) {
        const struct semshare_run * r = &c->runs[k];
        const struct semshare_source * s = &j->sources[r->ref];
        const bool trans = s->retyped ? s->v_trans : j->v_trans;
        for (int32_t i = 0; i < r->len; i++) {
            for (int32_t w = 0; w < width; w++) {
                uint8_t want[4];
                const float x = naive_value(s, width, trans, r->src + i, w);
                semshare_quantize(j->v_type, &x, 1, want, elem);
                const int64_t at = j->v_trans ? w * j->dst_cells + r->dst + i : (r->dst + i) * (int64_t) width + w;
                same = same && memcmp(j->v + at * elem, want, (size_t) elem) == 0;
            }
        }
    }
    CHECK(same, "%s: values differ from their sources (transposed %d)", cpu, j->v_trans);
}

/* Every instruction set and number of threads writes the same bytes as the scalar
 * version on one thread. */
static void check_case(struct test_case * c) {
    uint8_t * want[LAYERS][2] = {0};
    for (int i = 0; i < N_CPUS; i++) {
        if (semshare_use_cpu(cpus[i]) != SEMSHARE_OK) {
            continue;
        }
        case_clear(c);
        const int32_t status = semshare_compose(c->jobs, LAYERS, c->runs, c->n_runs, &c->rope, 1 + i);
        CHECK(status == SEMSHARE_OK, "%s: status %d", cpus[i], status);
        for (int l = 0; l < LAYERS; l++) {
            const struct semshare_job * j = &c->jobs[l];
            if (i == 0) {
                check_keys(c, j, cpus[i]);
                check_values(c, j, cpus[i]);
                want[l][0] = malloc((size_t) j->k_size + 1);
                want[l][1] = malloc((size_t) j->v_size + 1);
                memcpy(want[l][0], j->k, (size_t) j->k_size);
                memcpy(want[l][1], j->v, (size_t) j->v_size);
                continue;
            }
            CHECK(memcmp(want[l][0], j->k, (size_t) j->k_size) == 0, "%s type %u: keys differ from the scalar ones", cpus[i], j->k_type);
            CHECK(memcmp(want[l][1], j->v, (size_t) j->v_size) == 0, "%s: values differ from the scalar ones", cpus[i]);
        }
    }
    for (int l = 0; l < LAYERS; l++) {
        free(want[l][0]);
        free(want[l][1]);
    }
}

/* ---- what must be refused ---- */

static void check_refusals(void) {
    uint8_t k[32], v[32], sk[24], sv[24];
    const float freqs[2] = {1, 0.5f}, bad_freqs[2] = {1, NAN};
    const struct semshare_source source = {.k = sk, .v = sv, .k_size = sizeof sk, .v_size = sizeof sv, .cells = 3};
    const struct semshare_job job = {.k = k, .v = v, .k_size = 32, .v_size = 32, .k_row = 8, .v_row = 8, .sources = &source, .n_sources = 1, .k_type = SEMSHARE_TYPE_F16};
    const struct semshare_run run = {0, 1, 2, 2, 1};
    const struct semshare_rope rope = {0, 4, 4, 0, freqs};
    memset(sk, 0, sizeof sk);
    memset(sv, 0, sizeof sv);

#define REFUSED(status, change)                                                                 \
    do {                                                                                        \
        struct semshare_job j = job;                                                            \
        struct semshare_run r = run;                                                            \
        struct semshare_rope p = rope;                                                          \
        struct semshare_source s = source;                                                      \
        j.sources = &s;                                                                         \
        change;                                                                                 \
        const int32_t got = semshare_compose(&j, 1, &r, 1, p.head_dim == -1 ? NULL : &p, 1);    \
        CHECK(got == (status), "%s: status %d, expected %d", #change, got, (int) (status));     \
    } while (0)
#define TRANSPOSE j.v_trans = 1, j.v_row = 0, j.v_elem = 2, j.v_width = 4, j.dst_cells = 4

    REFUSED(SEMSHARE_OK, (void) 0);
    REFUSED(SEMSHARE_OK, TRANSPOSE);
    REFUSED(SEMSHARE_ERR_ROPE, p.head_dim = -1);
    REFUSED(SEMSHARE_ERR_ROPE, p.head_dim = 0);
    REFUSED(SEMSHARE_ERR_ROPE, p.dims = 3);
    REFUSED(SEMSHARE_ERR_ROPE, p.dims = 6);
    REFUSED(SEMSHARE_ERR_ROPE, p.freqs = NULL);
    REFUSED(SEMSHARE_ERR_ROPE, p.freqs = bad_freqs);
    REFUSED(SEMSHARE_ERR_SIZE, (p.head_dim = 3, p.dims = 2));
    REFUSED(SEMSHARE_ERR_TYPE, j.k_type = 99);
    REFUSED(SEMSHARE_ERR_TYPE, j.k_type = SEMSHARE_TYPE_Q4_K);
    REFUSED(SEMSHARE_ERR_SIZE, j.k_row = 7);
    REFUSED(SEMSHARE_ERR_SIZE, j.k_rot = 3);
    REFUSED(SEMSHARE_ERR_ARGUMENT, j.k_row = -8);
    REFUSED(SEMSHARE_ERR_ARGUMENT, j.k = NULL);
    REFUSED(SEMSHARE_ERR_ARGUMENT, j.v = NULL);
    REFUSED(SEMSHARE_ERR_ARGUMENT, s.k = NULL);
    REFUSED(SEMSHARE_ERR_ARGUMENT, s.v_size = -1);
    REFUSED(SEMSHARE_ERR_ARGUMENT, j.sources = NULL);
    REFUSED(SEMSHARE_ERR_RANGE, r.ref = 1);
    REFUSED(SEMSHARE_ERR_RANGE, r.ref = -1);
    REFUSED(SEMSHARE_ERR_RANGE, r.len = 0);
    REFUSED(SEMSHARE_ERR_RANGE, r.src = 2);
    REFUSED(SEMSHARE_ERR_RANGE, r.dst = 3);
    REFUSED(SEMSHARE_ERR_RANGE, r.src = INT32_MAX);
    REFUSED(SEMSHARE_ERR_RANGE, j.v_size = 31);
    REFUSED(SEMSHARE_ERR_SIZE, (TRANSPOSE, j.v_elem = 3));
    REFUSED(SEMSHARE_ERR_SIZE, (TRANSPOSE, j.dst_cells = 5));
    REFUSED(SEMSHARE_ERR_SIZE, (TRANSPOSE, s.cells = 4));
    REFUSED(SEMSHARE_ERR_SIZE, (TRANSPOSE, j.v_width = INT64_MAX));
#define RETYPE s.retyped = 1, s.k_type = s.v_type = j.v_type = SEMSHARE_TYPE_F16
    REFUSED(SEMSHARE_OK, RETYPE);
    REFUSED(SEMSHARE_OK, (RETYPE, s.v_trans = 1));
    REFUSED(SEMSHARE_OK, (RETYPE, TRANSPOSE));
    REFUSED(SEMSHARE_ERR_TYPE, (RETYPE, s.k_type = 99));
    REFUSED(SEMSHARE_ERR_TYPE, (RETYPE, s.v_type = SEMSHARE_TYPE_Q4_K));
    REFUSED(SEMSHARE_ERR_TYPE, (RETYPE, j.v_type = 99));
    REFUSED(SEMSHARE_ERR_SIZE, (RETYPE, s.k_type = SEMSHARE_TYPE_Q8_0)); /* rows of 4 elements */
    REFUSED(SEMSHARE_ERR_SIZE, (RETYPE, s.v_type = SEMSHARE_TYPE_Q4_0));
    REFUSED(SEMSHARE_ERR_SIZE, (RETYPE, s.v_trans = 1, s.cells = 4));
    REFUSED(SEMSHARE_ERR_SIZE, (RETYPE, TRANSPOSE, j.v_elem = 4));
    REFUSED(SEMSHARE_ERR_RANGE, (RETYPE, s.k_type = SEMSHARE_TYPE_F32)); /* 1.5 cells in 24 bytes */
    REFUSED(SEMSHARE_ERR_RANGE, (RETYPE, s.v_trans = 1, s.cells = 2));
    CHECK(semshare_compose(NULL, 1, &run, 1, &rope, 1) == SEMSHARE_ERR_ARGUMENT, "null jobs");
    CHECK(semshare_compose(&job, 1, NULL, 1, &rope, 1) == SEMSHARE_ERR_ARGUMENT, "null runs");
    CHECK(semshare_compose(&job, -1, &run, 1, &rope, 1) == SEMSHARE_ERR_ARGUMENT, "negative jobs");
    CHECK(semshare_compose(NULL, 0, NULL, 0, NULL, 0) == SEMSHARE_OK, "nothing to do");
}

int main(void) {
    for (uint64_t seed = 0; seed < 40; seed++) {
        for (int t = 0; t < N_CACHE_TYPES; t++) {
            struct test_case c;
            case_init(&c, seed * 1000 + (uint64_t) t, cache_types[t]);
            check_case(&c);
            case_free(&c);
        }
    }
    check_refusals();
    return report("compose");
}
