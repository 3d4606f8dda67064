/* One table of cosines and sines for each distinct delta, and items of about the same size. */
#include "compose_plan.h"

#include <math.h>
#include <stdlib.h>

/* Bytes of an item: small enough to share out evenly, large enough that taking one
 * costs nothing. */
enum { ITEM_BYTES = 512 * 1024 };

static int compare_int32(const void * a, const void * b) {
    const int32_t x = *(const int32_t *) a, y = *(const int32_t *) b;
    return (x > y) - (x < y);
}

/* The distinct deltas other than 0, ascending. */
static int32_t distinct_deltas(const struct semshare_run * runs, int32_t n, int32_t * out) {
    for (int32_t i = 0; i < n; i++) {
        out[i] = runs[i].delta;
    }
    qsort(out, (size_t) n, sizeof *out, compare_int32);
    int32_t kept = 0;
    for (int32_t i = 0; i < n; i++) {
        if (out[i] != 0 && (kept == 0 || out[i] != out[kept - 1])) {
            out[kept++] = out[i];
        }
    }
    return kept;
}

/* Fills the table of one delta: cos, sin, cos2, sin2, in 3 * dims floats. */
static void fill_turn(struct turn * t, float * table, const struct semshare_rope * rope, int32_t delta) {
    const int32_t n = rope->dims / 2;
    float * c = table, * s = table + n, * c2 = table + 2 * n, * s2 = table + 4 * n;
    for (int32_t i = 0; i < n; i++) {
        const double angle = (double) delta * (double) rope->freqs[i];
        c[i] = c2[2 * i] = c2[2 * i + 1] = (float) cos(angle);
        s[i] = s2[2 * i + 1] = (float) sin(angle);
        s2[2 * i] = -s[i];
    }
    *t = (struct turn) {c, s, c2, s2};
}

static int32_t plan_turns(struct plan * p, const int32_t * deltas, int32_t n) {
    if (n == 0) {
        return SEMSHARE_OK;
    }
    const size_t size = 3 * (size_t) p->rope->dims;
    p->turns = malloc((size_t) n * sizeof *p->turns);
    p->tables = malloc((size_t) n * (size + 1) * sizeof *p->tables);
    if (p->turns == NULL || p->tables == NULL) {
        return SEMSHARE_ERR_MEMORY;
    }
    for (int32_t i = 0; i < n; i++) {
        fill_turn(&p->turns[i], p->tables + (size_t) i * size, p->rope, deltas[i]);
    }
    return SEMSHARE_OK;
}

static int32_t turn_index(const int32_t * deltas, int32_t n, int32_t delta) {
    const int32_t * at = delta == 0 ? NULL : bsearch(&delta, deltas, (size_t) n, sizeof *deltas, compare_int32);
    return at == NULL ? -1 : (int32_t) (at - deltas);
}

/* Joins runs that continue one another; keys do so only under one delta. */
static int32_t plan_spans(struct spans * out, const struct semshare_run * runs, int32_t n, const int32_t * deltas, int32_t n_deltas, bool keys) {
    out->at = malloc(((size_t) n + 1) * sizeof *out->at);
    if (out->at == NULL) {
        return SEMSHARE_ERR_MEMORY;
    }
    for (int32_t i = 0; i < n; i++) {
        const struct semshare_run * r = &runs[i];
        const int32_t turn = keys ? turn_index(deltas, n_deltas, r->delta) : -1;
        struct span * last = out->n > 0 ? &out->at[out->n - 1] : NULL;
        if (last != NULL && last->ref == r->ref && last->src + last->len == r->src && last->dst + last->len == r->dst && last->turn == turn) {
            last->len += r->len;
        } else {
            out->at[out->n++] = (struct span) {out->rows, r->ref, r->src, r->dst, r->len, turn};
        }
        out->rows += r->len;
    }
    return SEMSHARE_OK;
}

/* Cuts units (rows or columns) of unit bytes each into items; counts them where items
 * is null. */
static void cut(struct plan * p, struct item * items, int32_t job, bool values, int64_t units, int64_t unit) {
    const int64_t step = unit >= ITEM_BYTES ? 1 : ITEM_BYTES / (unit > 0 ? unit : 1);
    for (int64_t first = 0; first < units; first += step) {
        if (items != NULL) {
            items[p->n_items] = (struct item) {job, values, first, units - first < step ? units - first : step};
        }
        p->n_items++;
    }
}

/* Columns are copied one by one; where rows become columns, or columns rows, they are
 * taken a few cells at a time. */
bool by_columns(const struct semshare_job * j) {
    for (int32_t r = 0; r < j->n_sources; r++) {
        if (j->sources[r].retyped) {
            return false;
        }
    }
    return j->v_trans;
}

static void cut_jobs(struct plan * p, struct item * items, int32_t n_jobs) {
    p->n_items = 0;
    for (int32_t i = 0; i < n_jobs; i++) {
        const struct semshare_job * j = &p->jobs[i];
        if (has_keys(j)) {
            cut(p, items, i, false, p->keys.rows, j->k_row);
        }
        if (has_values(j) && by_columns(j)) {
            cut(p, items, i, true, p->values.rows > 0 ? j->v_width : 0, p->values.rows * j->v_elem);
        } else if (has_values(j)) {
            cut(p, items, i, true, p->values.rows, j->v_trans ? j->v_width * j->v_elem : j->v_row);
        }
    }
}

int32_t plan_init(struct plan * p, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs) {
    int32_t * deltas = malloc(((size_t) n_runs + 1) * sizeof *deltas);
    if (deltas == NULL) {
        return SEMSHARE_ERR_MEMORY;
    }
    const int32_t n_deltas = distinct_deltas(runs, n_runs, deltas);
    int32_t status = plan_turns(p, deltas, n_deltas);
    if (status == SEMSHARE_OK) {
        status = plan_spans(&p->keys, runs, n_runs, deltas, n_deltas, true);
    }
    if (status == SEMSHARE_OK) {
        status = plan_spans(&p->values, runs, n_runs, deltas, n_deltas, false);
    }
    free(deltas);
    if (status != SEMSHARE_OK) {
        return status;
    }
    cut_jobs(p, NULL, n_jobs);
    p->items = malloc(((size_t) p->n_items + 1) * sizeof *p->items);
    if (p->items == NULL) {
        return SEMSHARE_ERR_MEMORY;
    }
    cut_jobs(p, p->items, n_jobs);
    return SEMSHARE_OK;
}

void plan_free(struct plan * p) {
    free(p->items);
    free(p->values.at);
    free(p->keys.at);
    free(p->tables);
    free(p->turns);
}
