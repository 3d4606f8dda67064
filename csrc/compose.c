/*
 * Composes a target's KV cache from rows of references: check everything
 * (compose_check.c), cut the work into items (compose_plan.c), and let threads take them
 * one by one.
 */
#include "compose_plan.h"

#include <stdlib.h>
#include <string.h>

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
