/*
 * Composes a target's KV cache from rows of references: check everything, work out
 * one table of cosines and sines for each distinct delta, cut the work into items of
 * about the same size, and let threads take them one by one.
 */
#include "internal.h"

#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of an item: small enough to share out evenly, large enough that taking one
 * costs nothing. */
enum { ITEM_BYTES = 512 * 1024 };

/* A run as the work sees it: first is its number among all rows; turn is an index, -1
 * for none. */
struct span {
    int64_t first;
    int64_t ref, src, dst, len;
    int32_t turn;
};

struct spans {
    struct span * at;
    int64_t n;
    int64_t rows;
};

/* Rows (of transposed values: columns) first to first+count of one half of a job. */
struct item {
    int32_t job;
    bool values;
    int64_t first, count;
};

struct plan {
    const struct semshare_job * jobs;
    const struct semshare_rope * rope;
    struct spans keys, values;
    struct turn * turns;
    float * tables;
    struct item * items;
    int64_t n_items;
    const struct variant * variant;
    atomic_int status;
};

/* ---- sides ---- */

struct side target_side(const struct semshare_job * j, bool values) {
    struct side s = {.type = values ? j->v_type : j->k_type, .trans = values && j->v_trans, .row = values ? j->v_row : j->k_row, .cells = j->dst_cells};
    s.elems = type_block(s.type, &s.bytes);
    s.width = (int32_t) (s.trans ? j->v_width : s.row / s.bytes * s.elems);
    return s;
}

struct side source_side(const struct semshare_job * j, const struct semshare_source * source, bool values) {
    struct side s = {.type = values ? source->v_type : source->k_type, .trans = values && source->v_trans, .width = target_side(j, values).width, .cells = source->cells};
    s.elems = type_block(s.type, &s.bytes);
    s.row = s.trans ? 0 : s.width / s.elems * s.bytes;
    return s;
}

/* ---- checks ---- */

static int32_t check_rope(const struct semshare_rope * rope) {
    if (rope == NULL) {
        return SEMSHARE_OK;
    }
    if (rope->head_dim <= 0 || rope->dims < 0 || rope->dims > rope->head_dim || rope->dims % 2 != 0) {
        return SEMSHARE_ERR_ROPE;
    }
    if (rope->dims > 0 && rope->freqs == NULL) {
        return SEMSHARE_ERR_ROPE;
    }
    for (int32_t i = 0; i < rope->dims / 2; i++) {
        if (!isfinite(rope->freqs[i])) {
            return SEMSHARE_ERR_ROPE;
        }
    }
    return SEMSHARE_OK;
}

static int32_t check_runs(const struct semshare_run * runs, int32_t n, const struct semshare_rope * rope, bool * moves) {
    *moves = false;
    for (int32_t i = 0; i < n; i++) {
        const struct semshare_run * r = &runs[i];
        if (r->ref < 0 || r->src < 0 || r->dst < 0 || r->len <= 0 || r->src > INT32_MAX - r->len || r->dst > INT32_MAX - r->len) {
            return SEMSHARE_ERR_RANGE;
        }
        if (r->delta != 0 && rope == NULL) {
            return SEMSHARE_ERR_ROPE;
        }
        *moves = *moves || r->delta != 0;
    }
    return SEMSHARE_OK;
}

static int32_t check_keys(const struct semshare_job * j, const struct semshare_rope * rope, bool moves) {
    if (j->k_row < 0 || j->k_size < 0 || (j->k_row > 0 && j->k_size > 0 && j->k == NULL)) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    if (j->k_row == 0 || !moves) {
        return SEMSHARE_OK;
    }
    int32_t bytes;
    const int32_t elems = type_block(j->k_type, &bytes);
    if (elems == 0 || !type_is_cache(j->k_type)) {
        return SEMSHARE_ERR_TYPE;
    }
    if (j->k_row % bytes != 0 || j->k_row / bytes > INT32_MAX / elems || j->k_row / bytes * elems % rope->head_dim != 0) {
        return SEMSHARE_ERR_SIZE;
    }
    if (j->k_rot < 0 || (j->k_rot & (j->k_rot - 1)) != 0 || (j->k_rot > 0 && rope->head_dim % j->k_rot != 0)) {
        return SEMSHARE_ERR_SIZE;
    }
    return SEMSHARE_OK;
}

/* Whether columns of cells elements of elem bytes, v_width of them, fit size bytes. */
static bool columns_fit(const struct semshare_job * j, int64_t elem, int64_t cells, int64_t size) {
    return cells >= 0 && cells <= INT32_MAX && cells <= size / (j->v_width * elem);
}

static int32_t check_values(const struct semshare_job * j) {
    if (j->v_row < 0 || j->v_size < 0 || (j->v_size > 0 && j->v == NULL)) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    if (!j->v_trans || j->v_width == 0) {
        return j->v_trans && j->v_row != 0 ? SEMSHARE_ERR_SIZE : SEMSHARE_OK;
    }
    if (j->v_row != 0 || j->v_width < 0 || j->v_width > INT32_MAX || (j->v_elem != 1 && j->v_elem != 2 && j->v_elem != 4)) {
        return SEMSHARE_ERR_SIZE;
    }
    if (!columns_fit(j, j->v_elem, j->dst_cells, j->v_size)) {
        return SEMSHARE_ERR_SIZE;
    }
    for (int32_t r = 0; r < j->n_sources; r++) {
        if (!j->sources[r].retyped && !columns_fit(j, j->v_elem, j->sources[r].cells, j->sources[r].v_size)) {
            return SEMSHARE_ERR_SIZE;
        }
    }
    return SEMSHARE_OK;
}

static bool has_keys(const struct semshare_job * j) { return j->k_row > 0; }
static bool has_values(const struct semshare_job * j) { return j->v_trans ? j->v_width > 0 : j->v_row > 0; }

/* Whether cells of width elements can have the type. */
static int32_t check_type(uint32_t type, bool trans, int64_t width) {
    int32_t bytes;
    const int32_t elems = type_block(type, &bytes);
    if (elems == 0 || !type_is_cache(type)) {
        return SEMSHARE_ERR_TYPE;
    }
    return width > INT32_MAX || width % elems != 0 || (trans && elems != 1) ? SEMSHARE_ERR_SIZE : SEMSHARE_OK;
}

/* Whether one half of a retyped source can become that half of the job. */
static int32_t check_retyped(const struct semshare_job * j, const struct semshare_source * s, bool values) {
    const bool trans = values && j->v_trans;
    const uint32_t type = values ? j->v_type : j->k_type;
    const int64_t row = values ? j->v_row : j->k_row;
    int32_t bytes;
    const int32_t elems = type_block(type, &bytes);
    int32_t status = check_type(type, trans, 0);
    if (status != SEMSHARE_OK) {
        return status;
    }
    if (trans ? j->v_elem != bytes : row % bytes != 0) {
        return SEMSHARE_ERR_SIZE;
    }
    status = check_type(type, trans, trans ? j->v_width : row / bytes * elems);
    if (status != SEMSHARE_OK) {
        return status;
    }
    const struct side target = target_side(j, values);
    status = check_type(values ? s->v_type : s->k_type, values && s->v_trans, target.width);
    if (status != SEMSHARE_OK || !values || !s->v_trans) {
        return status;
    }
    const struct side source = source_side(j, s, values);
    return s->cells < 0 || s->cells > INT32_MAX || s->cells > s->v_size / ((int64_t) source.width * source.bytes) ? SEMSHARE_ERR_SIZE : SEMSHARE_OK;
}

static int32_t check_sources(const struct semshare_job * j) {
    for (int32_t r = 0; r < j->n_sources; r++) {
        const struct semshare_source * s = &j->sources[r];
        if (s->k_size < 0 || s->v_size < 0 || (s->k_size > 0 && s->k == NULL) || (s->v_size > 0 && s->v == NULL)) {
            return SEMSHARE_ERR_ARGUMENT;
        }
        int32_t status = SEMSHARE_OK;
        if (s->retyped && has_keys(j)) {
            status = check_retyped(j, s, false);
        }
        if (status == SEMSHARE_OK && s->retyped && has_values(j)) {
            status = check_retyped(j, s, true);
        }
        if (status != SEMSHARE_OK) {
            return status;
        }
    }
    return SEMSHARE_OK;
}

static int64_t rows_in(int64_t size, int64_t row) { return row == 0 ? INT64_MAX : size / row; }

/* How many cells a source has for both halves of the job. */
static int64_t source_rows(const struct semshare_job * j, const struct semshare_source * s) {
    int64_t key_row = j->k_row, value_row = j->v_row;
    bool columns = j->v_trans && has_values(j);
    if (s->retyped && has_keys(j)) {
        key_row = source_side(j, s, false).row;
    }
    if (s->retyped && has_values(j)) {
        value_row = source_side(j, s, true).row;
        columns = s->v_trans != 0;
    }
    const int64_t keys = rows_in(s->k_size, key_row), values = columns ? s->cells : rows_in(s->v_size, value_row);
    return keys < values ? keys : values;
}

/* Whether every run stays within the job's target and sources. */
static int32_t check_bounds(const struct semshare_job * j, const struct semshare_run * runs, int32_t n) {
    const int64_t key_rows = rows_in(j->k_size, j->k_row);
    const int64_t value_rows = j->v_trans && has_values(j) ? j->dst_cells : rows_in(j->v_size, j->v_row);
    for (int32_t i = 0; i < n; i++) {
        const struct semshare_run * r = &runs[i];
        if (r->ref >= j->n_sources) {
            return SEMSHARE_ERR_RANGE;
        }
        const int64_t to = (int64_t) r->dst + r->len, from = (int64_t) r->src + r->len;
        if (to > key_rows || to > value_rows || from > source_rows(j, &j->sources[r->ref])) {
            return SEMSHARE_ERR_RANGE;
        }
    }
    return SEMSHARE_OK;
}

static int32_t check_job(const struct semshare_job * j, const struct semshare_run * runs, int32_t n_runs, const struct semshare_rope * rope, bool moves) {
    if (j->n_sources < 0 || (j->n_sources > 0 && j->sources == NULL)) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    int32_t status = check_keys(j, rope, moves);
    if (status == SEMSHARE_OK) {
        status = check_values(j);
    }
    if (status == SEMSHARE_OK) {
        status = check_sources(j);
    }
    return status == SEMSHARE_OK ? check_bounds(j, runs, n_runs) : status;
}

int32_t compose_check(const struct semshare_job * jobs, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs, const struct semshare_rope * rope) {
    if (n_jobs < 0 || n_runs < 0 || (n_jobs > 0 && jobs == NULL) || (n_runs > 0 && runs == NULL)) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    bool moves;
    int32_t status = check_rope(rope);
    if (status == SEMSHARE_OK) {
        status = check_runs(runs, n_runs, rope, &moves);
    }
    for (int32_t i = 0; i < n_jobs && status == SEMSHARE_OK; i++) {
        status = check_job(&jobs[i], runs, n_runs, rope, moves);
    }
    return status;
}

/* ---- the plan ---- */

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
static bool by_columns(const struct semshare_job * j) {
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

static int32_t plan_init(struct plan * p, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs) {
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

static void plan_free(struct plan * p) {
    free(p->items);
    free(p->values.at);
    free(p->keys.at);
    free(p->tables);
    free(p->turns);
}

/* ---- the work ---- */

/* The span that holds a row. */
static int64_t find_span(const struct spans * s, int64_t row) {
    int64_t low = 0, high = s->n - 1;
    while (low < high) {
        const int64_t mid = low + (high - low + 1) / 2;
        if (s->at[mid].first <= row) {
            low = mid;
        } else {
            high = mid - 1;
        }
    }
    return low;
}

void hadamard(float * x, int32_t elems, int32_t n) {
    if (n > 1) {
        variant_current()->hadamard(x, elems, n);
    }
}

/* What moving packed keys needs: a row unpacked, the row moved. */
struct packed {
    uint32_t type;
    int32_t elems, bytes, blocks, rot;
    float * row, * moved;
};

static bool packed_init(struct packed * q, const struct semshare_job * j) {
    q->type = j->k_type;
    q->rot = j->k_rot;
    q->elems = type_block(j->k_type, &q->bytes);
    q->blocks = (int32_t) (j->k_row / q->bytes);
    const size_t n = (size_t) q->blocks * (size_t) q->elems;
    q->row = malloc(2 * n * sizeof *q->row);
    q->moved = q->row == NULL ? NULL : q->row + n;
    return q->row != NULL;
}

/* Whether a block holds an element that turns. */
static bool block_turns(const struct packed * q, const struct shape * s, int32_t block) {
    const int32_t first = block * q->elems % s->head_dim;
    return q->rot > 1 || first < s->dims || first + q->elems > s->head_dim;
}

/* Packs only blocks that turned: packing the others anew could alter what never
 * moved. */
static void move_packed(const struct packed * q, const struct variant * v, uint8_t * dst, const uint8_t * src, const struct shape * s, rotate_fn rotate, const struct turn * t) {
    const int32_t n = s->heads * s->head_dim;
    v->unpack(q->type, src, q->row, q->blocks);
    hadamard(q->row, n, q->rot);
    rotate((uint8_t *) q->moved, (const uint8_t *) q->row, s, t);
    hadamard(q->moved, n, q->rot);
    if (q->rot > 1 || s->dims == s->head_dim) {
        v->pack(q->type, q->moved, dst, q->blocks);
        return;
    }
    for (int32_t b = 0; b < q->blocks; b++) {
        const size_t at = (size_t) b * (size_t) q->bytes;
        if (block_turns(q, s, b)) {
            v->pack(q->type, q->moved + (size_t) b * (size_t) q->elems, dst + at, 1);
        } else {
            memcpy(dst + at, src + at, (size_t) q->bytes);
        }
    }
}

/* The kernel that turns rows as they lie; null for types that must be unpacked. */
static rotate_fn direct_kernel(const struct plan * p, const struct semshare_job * j) {
    const int neox = p->rope->neox != 0;
    if (j->k_rot > 1) {
        return NULL;
    }
    switch (j->k_type) {
    case SEMSHARE_TYPE_F32: return p->variant->rotate_f32[neox];
    case SEMSHARE_TYPE_F16: return p->variant->rotate_f16[neox];
    case SEMSHARE_TYPE_BF16: return p->variant->rotate_bf16[neox];
    default: return NULL;
    }
}

/* Moves rows consecutive rows of keys. */
static int32_t move_rows(const struct plan * p, const struct semshare_job * j, uint8_t * dst, const uint8_t * src, int64_t rows, const struct turn * t) {
    int32_t bytes;
    const int32_t elems = type_block(j->k_type, &bytes);
    const struct shape shape = {(int32_t) (j->k_row / bytes * elems / p->rope->head_dim), p->rope->head_dim, p->rope->dims};
    const rotate_fn direct = direct_kernel(p, j);
    if (direct != NULL) {
        for (int64_t r = 0; r < rows; r++) {
            direct(dst + r * j->k_row, src + r * j->k_row, &shape, t);
        }
        return SEMSHARE_OK;
    }
    struct packed q;
    if (!packed_init(&q, j)) {
        return SEMSHARE_ERR_MEMORY;
    }
    const rotate_fn rotate = p->variant->rotate_f32[p->rope->neox != 0];
    for (int64_t r = 0; r < rows; r++) {
        move_packed(&q, p->variant, dst + r * j->k_row, src + r * j->k_row, &shape, rotate, t);
    }
    free(q.row);
    return SEMSHARE_OK;
}

/* Cells that are unpacked at a time where rows become columns or columns rows: as many
 * as make a cache line of columns. */
enum { TILE_CELLS = 32 };

static void load_row(const struct variant * v, const struct side * s, const uint8_t * from, int64_t cell, float * x) {
    v->unpack(s->type, from + cell * s->row, x, s->width / s->elems);
}

/* Unpacks n cells to rows of x; column by column where they lie so. */
static void load_tile(const struct variant * v, const struct side * s, const uint8_t * from, int64_t cell, int32_t n, float * x) {
    if (!s->trans) {
        for (int32_t i = 0; i < n; i++) {
            load_row(v, s, from, cell + i, x + (int64_t) i * s->width);
        }
        return;
    }
    float column[TILE_CELLS];
    for (int64_t c = 0; c < s->width; c++) {
        v->unpack(s->type, from + (c * s->cells + cell) * s->bytes, column, n);
        for (int32_t i = 0; i < n; i++) {
            x[(int64_t) i * s->width + c] = column[i];
        }
    }
}

static void store_tile(const struct variant * v, const struct side * s, uint8_t * to, int64_t cell, int32_t n, const float * x) {
    if (!s->trans) {
        for (int32_t i = 0; i < n; i++) {
            v->pack(s->type, x + (int64_t) i * s->width, to + (cell + i) * s->row, s->width / s->elems);
        }
        return;
    }
    float column[TILE_CELLS];
    for (int64_t c = 0; c < s->width; c++) {
        for (int32_t i = 0; i < n; i++) {
            column[i] = x[(int64_t) i * s->width + c];
        }
        v->pack(s->type, column, to + (c * s->cells + cell) * s->bytes, n);
    }
}

/* Turns a row of unpacked keys; moved is as large as x. Returns where it then is. */
static const float * turn_row(const struct plan * p, const struct semshare_job * j, float * x, float * moved, int32_t width, const struct turn * t) {
    if (t == NULL) {
        return x;
    }
    const struct shape shape = {width / p->rope->head_dim, p->rope->head_dim, p->rope->dims};
    hadamard(x, width, j->k_rot);
    p->variant->rotate_f32[p->rope->neox != 0]((uint8_t *) moved, (const uint8_t *) x, &shape, t);
    hadamard(moved, width, j->k_rot);
    return moved;
}

/* n rows that lie in the source as in the target. */
static int32_t work_same(const struct plan * p, const struct semshare_job * j, uint8_t * dst, const uint8_t * src, int64_t n, int64_t row, const struct turn * t) {
    if (t != NULL) {
        return move_rows(p, j, dst, src, n, t);
    }
    memcpy(dst, src, (size_t) (n * row));
    return SEMSHARE_OK;
}

/* Converts n consecutive cells of a retyped source. */
static int32_t convert(const struct plan * p, const struct semshare_job * j, const struct semshare_source * source, bool values, int64_t src, int64_t dst, int64_t n, const struct turn * t) {
    const struct side from = source_side(j, source, values), to = target_side(j, values);
    const uint8_t * bytes = values ? source->v : source->k;
    uint8_t * out = values ? j->v : j->k;
    if (from.type == to.type && !from.trans && !to.trans) {
        return work_same(p, j, out + dst * to.row, bytes + src * from.row, n, to.row, t);
    }
    const int32_t step = from.trans || to.trans ? TILE_CELLS : 1;
    float * x = malloc((size_t) (step + 1) * (size_t) to.width * sizeof *x);
    if (x == NULL) {
        return SEMSHARE_ERR_MEMORY;
    }
    for (int64_t i = 0; i < n; i += step) {
        const int32_t cells = (int32_t) (n - i < step ? n - i : step);
        load_tile(p->variant, &from, bytes, src + i, cells, x);
        const float * moved = turn_row(p, j, x, x + to.width, to.width, t); /* keys come one by one */
        store_tile(p->variant, &to, out, dst + i, cells, moved);
    }
    free(x);
    return SEMSHARE_OK;
}

static void copy_columns(const struct semshare_job * j, const struct semshare_source * s, int64_t column, int64_t src, int64_t dst, int64_t n) {
    memcpy(j->v + (column * j->dst_cells + dst) * j->v_elem, s->v + (column * s->cells + src) * j->v_elem, (size_t) (n * j->v_elem));
}

/* Moves n consecutive cells of one half. */
static int32_t work_cells(const struct plan * p, const struct semshare_job * j, const struct semshare_source * source, bool values, int64_t src, int64_t dst, int64_t n, const struct turn * t) {
    if (source->retyped) {
        return convert(p, j, source, values, src, dst, n, t);
    }
    if (values && j->v_trans) {
        for (int64_t c = 0; c < j->v_width; c++) {
            copy_columns(j, source, c, src, dst, n);
        }
        return SEMSHARE_OK;
    }
    const int64_t size = values ? j->v_row : j->k_row;
    return work_same(p, j, (values ? j->v : j->k) + dst * size, (values ? source->v : source->k) + src * size, n, size, t);
}

static int32_t work_rows(const struct plan * p, const struct semshare_job * j, const struct item * it) {
    const struct spans * spans = it->values ? &p->values : &p->keys;
    int64_t row = it->first, left = it->count;
    for (int64_t i = find_span(spans, row); left > 0; i++) {
        const struct span * s = &spans->at[i];
        const int64_t skip = row - s->first;
        const int64_t n = s->len - skip < left ? s->len - skip : left;
        const int32_t status = work_cells(p, j, &j->sources[s->ref], it->values, s->src + skip, s->dst + skip, n, s->turn < 0 ? NULL : &p->turns[s->turn]);
        if (status != SEMSHARE_OK) {
            return status;
        }
        row += n;
        left -= n;
    }
    return SEMSHARE_OK;
}

static void work_columns(const struct plan * p, const struct semshare_job * j, const struct item * it) {
    for (int64_t c = it->first; c < it->first + it->count; c++) {
        for (int64_t i = 0; i < p->values.n; i++) {
            const struct span * s = &p->values.at[i];
            copy_columns(j, &j->sources[s->ref], c, s->src, s->dst, s->len);
        }
    }
}

static void work_item(void * arg, int64_t i) {
    struct plan * p = arg;
    const struct item * it = &p->items[i];
    const struct semshare_job * j = &p->jobs[it->job];
    if (it->values && by_columns(j)) {
        work_columns(p, j, it);
        return;
    }
    const int32_t status = work_rows(p, j, it);
    if (status != SEMSHARE_OK) {
        atomic_store(&p->status, status);
    }
}

int32_t semshare_compose(const struct semshare_job * jobs, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs, const struct semshare_rope * rope, int32_t n_threads) {
    int32_t status = compose_check(jobs, n_jobs, runs, n_runs, rope);
    if (status != SEMSHARE_OK) {
        return status;
    }
    struct plan p = {.jobs = jobs, .rope = rope, .variant = variant_current()};
    status = plan_init(&p, n_jobs, runs, n_runs);
    if (status == SEMSHARE_OK) {
        parallel_for(p.n_items, n_threads, work_item, &p);
        status = atomic_load(&p.status);
    }
    plan_free(&p);
    return status;
}
