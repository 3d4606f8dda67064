#include "layer.h"

#include "flash.h"
#include "half.h"
#include "linear.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    PAD_FROM = 28,  /* rows from which on it pays to fill them up to TILE (measured) */
    TILE = LAYER_TILE,
    MOST_PADDING = 8 * TILE,
};

static ggt * norm(struct graph * g, ggt * x, ggt * weight) {
    return g->abi->ggml_mul(g->ctx, g->abi->ggml_rms_norm(g->ctx, x, g->e->model->eps), weight);
}

/* Cuts rows into heads, norms them where the model does, and turns them. */
static ggt * heads(struct graph * g, ggt * x, int64_t n_heads, ggt * normed, ggt * pos) {
    const struct rope * r = &g->e->rope;
    x = g->abi->ggml_reshape_3d(g->ctx, x, g->e->model->head_dim, n_heads, x->ne[1]);
    if (normed != NULL) {
        x = norm(g, x, normed);
    }
    return g->abi->ggml_rope_ext(g->ctx, x, pos, g->e->model->rope_factors, r->dims, r->neox ? GGML_ROPE_NEOX : GGML_ROPE_NORM, r->orig_ctx,
                                 r->freq_base, r->freq_scale, r->ext_factor, r->attn_factor, r->beta_fast, r->beta_slow);
}

static int64_t pad(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

struct source layer_source(struct graph * g, ggt * tensor, int64_t first, int32_t type, const uint8_t * rows, int64_t cells) {
    const int64_t width = (int64_t) g->e->model->n_heads_kv * g->e->model->head_dim;
    if (tensor != NULL) {
        return (struct source) {tensor, first};
    }
    return (struct source) {graph_input(g, g->abi->ggml_new_tensor_2d(g->ctx, type, width, pad(cells, ENGINE_CELL_PAD)), rows, (size_t) cells * g->abi->ggml_row_size(type, width)), 0};
}

/* The first cells of it, head by head. */
static ggt * by_head(struct graph * g, struct source s, int64_t cells) {
    const struct model * m = g->e->model;
    const size_t head = g->abi->ggml_row_size(s.tensor->type, m->head_dim), row = head * (size_t) m->n_heads_kv;
    return g->abi->ggml_view_3d(g->ctx, s.tensor, m->head_dim, cells, m->n_heads_kv, row, head, (size_t) s.first * row);
}

static ggt * mlp(struct graph * g, const struct weights * w, ggt * x) {
    ggt * up = linear(g, w->up, w->up_b, x), * gate = linear(g, w->gate, w->gate_b, x);
    return linear(g, w->down, w->down_b, g->abi->ggml_swiglu_split(g->ctx, gate, up));
}

void layer_keys(struct graph * g, const struct weights * w, ggt * x, ggt * pos, ggt ** k, ggt ** v) {
    ggt * in = norm(g, x, w->attn_norm);
    *k = heads(g, linear(g, w->wk, w->bk, in), g->e->model->n_heads_kv, w->k_norm, pos);
    *v = linear(g, w->wv, w->bv, in);
}

void layer_store(struct graph * g, struct source cache, int64_t cells, ggt * rows, ggt * to) {
    const struct model * m = g->e->model;
    const int64_t width = (int64_t) m->n_heads_kv * m->head_dim;
    const size_t row = g->abi->ggml_row_size(cache.tensor->type, width);
    ggt * all = g->abi->ggml_view_3d(g->ctx, cache.tensor, width, cells, 1, row, row * (size_t) cells, (size_t) cache.first * row);
    g->abi->ggml_build_forward_expand(g->g, g->abi->ggml_set_rows(g->ctx, all, g->abi->ggml_reshape_2d(g->ctx, rows, width, to->ne[0]), to));
}

int64_t layer_mask_rows(const struct group * group) { return pad(group->rows, LAYER_ROW_PAD); }

/* A row for each of the heads that stand below one another, for each token: it hides the
 * cells from visible[i] on. Rows behind them see the first cell alone, so that no sum is
 * empty, and little is computed for nothing. */
static uint16_t * make_mask(const struct group * to) {
    const uint16_t hidden = f16_from_f32(-INFINITY);
    const int64_t rows = layer_mask_rows(to);
    uint16_t * mask = calloc((size_t) (rows * to->cells), sizeof *mask);
    for (int64_t row = 0; mask != NULL && row < rows; row++) {
        const int64_t token = row / to->stacked;
        for (int64_t c = token < to->n ? to->visible[token] : 1; c < to->cells; c++) {
            mask[row * to->cells + c] = hidden;
        }
    }
    return mask;
}

static ggt * rows_of(struct graph * g, ggt * x, int64_t first, int64_t n) {
    return g->abi->ggml_view_3d(g->ctx, x, x->ne[0], x->ne[1], n, x->nb[1], x->nb[2], (size_t) first * x->nb[2]);
}

/* How many heads share their keys. */
static int64_t sharing(const struct model * m) { return m->n_heads / m->n_heads_kv; }

/* What attention takes on a CPU, in tiles of TILE rows of one head: ggml hands out a quarter
 * of a thread's part of all rows at a time, and computes a tile that ends with the part or
 * the head whole. Of what is only padding it goes through the mask. */
static double tiled_cost(const struct engine * e, int64_t heads, int64_t rows, int64_t padded) {
    const double padding = 0.2; /* of a tile (measured) */
    const int64_t all = heads * padded, parts = 4 * (int64_t) e->n_threads, part = (all + parts - 1) / parts;
    double cost = 0;
    for (int64_t at = 0, end = 0; at < all; at = end) {
        const int64_t of_head = at / padded * padded + padded, of_part = at / part * part + part;
        end = at + TILE < of_head ? at + TILE : of_head;
        end = end < of_part ? end : of_part;
        cost += at % padded < rows ? 1 : padding;
    }
    return cost;
}

/* How many rows each head has where that is one a token. */
static int64_t plain_rows(int64_t n) { return n >= PAD_FROM && n < TILE ? TILE : n; }

static double plain_cost(const struct engine * e, int64_t n) {
    const int64_t heads = e->model->n_heads;
    return n < PAD_FROM ? (double) (n * heads) / PAD_FROM : tiled_cost(e, heads, n, plain_rows(n));
}

/* Lays the group's rows out for the least cost: a row a token for each head, or, with the
 * padding that pays, those of heads that share their keys below one another. A tile is then
 * of few tokens, which see about the same cells, and few tokens fill one. On a GPU ggml's
 * kernels do the like themselves. */
static void lay_out(const struct engine * e, struct group * to) {
    const int64_t rows = to->n * sharing(e->model);
    double least = plain_cost(e, to->n);
    to->stacked = 1;
    to->rows = plain_rows(to->n);
    for (int64_t padded = pad(rows, TILE); e->on_cpu && to->n > 1 && padded < rows + MOST_PADDING; padded += TILE) {
        const double cost = tiled_cost(e, e->model->n_heads_kv, rows, padded);
        if (cost < least) {
            least = cost;
            to->stacked = sharing(e->model);
            to->rows = padded;
        }
    }
}

int32_t layer_groups(const struct engine * e, struct group * groups, const int32_t * visible, int32_t n) {
    const int32_t n_groups = n / TILE > 0 ? n / TILE : 1, size = n / n_groups;
    for (int32_t i = 0; i < n_groups; i++) {
        const int32_t first = i * size, end = i + 1 == n_groups ? n : first + size;
        struct group * to = &groups[i];
        *to = (struct group) {.first = first, .n = end - first, .cells = pad(visible[end - 1], ENGINE_CELL_PAD), .visible = visible + first};
        lay_out(e, to);
    }
    return n_groups;
}

void layer_free_groups(struct group * groups) {
    for (int32_t i = 0; i < LAYER_MAX_GROUPS; i++) {
        free(groups[i].hidden);
    }
}

static bool is_of(const struct grouping * gr, const int32_t * visible, int32_t n) {
    return gr != NULL && gr->n == n && memcmp(gr->visible, visible, (size_t) n * sizeof *visible) == 0;
}

struct grouping * layer_grouping(struct engine * e, const int32_t * visible, int32_t n) {
    if (!is_of(e->grouping, visible, n)) {
        layer_free_grouping(e);
        struct grouping * made = calloc(1, sizeof *made);
        e->grouping = made;
        if (made == NULL) {
            return NULL;
        }
        made->n = n;
        memcpy(made->visible, visible, (size_t) n * sizeof *visible);
        made->n_groups = layer_groups(e, made->groups, made->visible, n);
    }
    for (int32_t i = 0; i < e->grouping->n_groups; i++) {
        e->grouping->groups[i].mask = NULL; /* was in another graph */
    }
    return e->grouping;
}

void layer_free_grouping(struct engine * e) {
    if (e->grouping != NULL) {
        layer_free_groups(e->grouping->groups);
    }
    free(e->grouping);
    e->grouping = NULL;
}

/* Queries, head_dim x heads x tokens, as the attention takes them: head_dim x rows x heads. */
static ggt * stacked(struct graph * g, const struct group * group, ggt * q) {
    const struct model * m = g->e->model;
    const struct abi * abi = g->abi;
    const int64_t rows = group->n * group->stacked;
    const int padding = (int) (group->rows - rows);
    if (group->stacked == 1) {
        return abi->ggml_permute(g->ctx, padding > 0 ? abi->ggml_pad(g->ctx, q, 0, 0, padding, 0) : q, 0, 2, 1, 3);
    }
    q = abi->ggml_view_3d(g->ctx, q, m->head_dim * group->stacked, m->n_heads_kv, group->n, q->nb[1] * (size_t) group->stacked, q->nb[2], 0);
    q = abi->ggml_cont(g->ctx, abi->ggml_permute(g->ctx, q, 0, 2, 1, 3));
    q = abi->ggml_reshape_3d(g->ctx, q, m->head_dim, rows, m->n_heads_kv);
    return padding > 0 ? abi->ggml_pad(g->ctx, q, 0, padding, 0, 0) : q;
}

/* What it puts out, head_dim x heads x rows, token by token. */
static ggt * unstacked(struct graph * g, const struct group * group, ggt * out) {
    const struct model * m = g->e->model;
    const struct abi * abi = g->abi;
    out = rows_of(g, out, 0, group->n * group->stacked);
    if (group->stacked > 1) {
        out = abi->ggml_reshape_4d(g->ctx, out, m->head_dim, m->n_heads_kv, group->stacked, group->n);
        out = abi->ggml_cont(g->ctx, abi->ggml_permute(g->ctx, out, 0, 2, 1, 3));
    }
    return abi->ggml_reshape_2d(g->ctx, out, (int64_t) m->n_heads * m->head_dim, group->n);
}

static ggt * mask_of(struct graph * g, struct group * group) {
    const int64_t rows = layer_mask_rows(group);
    if (group->mask == NULL) {
        group->hidden = group->hidden != NULL ? group->hidden : make_mask(group);
        g->out_of_memory = g->out_of_memory || group->hidden == NULL;
        group->mask = graph_input(g, g->abi->ggml_new_tensor_2d(g->ctx, GGML_TYPE_F16, group->cells, rows), group->hidden, (size_t) (rows * group->cells) * sizeof *group->hidden);
    }
    return group->mask;
}

static ggt * attend_group(struct graph * g, struct group * group, ggt * q, struct source k, struct source v) {
    const struct abi * abi = g->abi;
    ggt * mask = mask_of(g, group);
    q = stacked(g, group, rows_of(g, q, group->first, group->n));
    ggt * out = abi->ggml_flash_attn_ext(g->ctx, q, by_head(g, k, group->cells), by_head(g, v, group->cells), mask, g->e->model->scale, 0, 0);
    abi->ggml_flash_attn_ext_set_prec(out, GGML_PREC_F32);
    return unstacked(g, group, out);
}

static ggt * attend(struct graph * g, struct group * groups, int32_t n_groups, ggt * q, struct source k, struct source v) {
    const int64_t cells = groups[n_groups - 1].cells;
    ggt * out = flash(g, q, by_head(g, k, cells), by_head(g, v, cells), groups[0].visible);
    if (out != NULL) {
        return out;
    }
    out = attend_group(g, &groups[0], q, k, v);
    for (int32_t i = 1; i < n_groups; i++) {
        out = g->abi->ggml_concat(g->ctx, out, attend_group(g, &groups[i], q, k, v), 1);
    }
    return out;
}

/* With ggml's kernels the heads that share their keys ask them together, as rows of one
 * matrix. */
ggt * layer_shares(struct graph * g, ggt * q, struct source k, int64_t cells, const int32_t * visible, ggt * mask) {
    const struct model * m = g->e->model;
    ggt * shares = flash_shares(g, q, by_head(g, k, cells), visible);
    if (shares != NULL) {
        return g->abi->ggml_reshape_3d(g->ctx, shares, cells, sharing(m), m->n_heads_kv);
    }
    q = g->abi->ggml_reshape_3d(g->ctx, q, m->head_dim, sharing(m), m->n_heads_kv);
    return g->abi->ggml_soft_max_ext(g->ctx, g->abi->ggml_mul_mat(g->ctx, by_head(g, k, cells), q), mask, m->scale, 0);
}

ggt * layer_queries(struct graph * g, const struct weights * w, ggt * x, ggt * pos) {
    return heads(g, linear(g, w->wq, w->bq, norm(g, x, w->attn_norm)), g->e->model->n_heads, w->q_norm, pos);
}

ggt * layer_output(struct graph * g, const struct weights * w, ggt * x, ggt * q, struct group * groups, int32_t n_groups, struct source k, struct source v) {
    ggt * mid = g->abi->ggml_add(g->ctx, linear(g, w->wo, w->bo, attend(g, groups, n_groups, q, k, v)), x);
    return g->abi->ggml_add(g->ctx, mlp(g, w, norm(g, mid, w->ffn_norm)), mid);
}

ggt * layer_logits(struct graph * g, ggt * x) { return linear(g, g->e->model->output, NULL, norm(g, x, g->e->model->output_norm)); }

int32_t layer_likeliest(const float * logits, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return (int32_t) best;
}
