#include "layer.h"

#include "half.h"

#include <math.h>
#include <stdlib.h>

enum {
    PAD_FROM = 28,  /* rows from which on it pays to fill them up to TILE (measured) */
    TILE = LAYER_TILE,
};

static ggt * norm(struct graph * g, ggt * x, ggt * weight) {
    return g->abi->ggml_mul(g->ctx, g->abi->ggml_rms_norm(g->ctx, x, g->e->model->eps), weight);
}

static ggt * linear(struct graph * g, ggt * w, ggt * bias, ggt * x) {
    ggt * y = g->abi->ggml_mul_mat(g->ctx, w, x);
    return bias == NULL ? y : g->abi->ggml_add(g->ctx, y, bias);
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

/* Row i of the mask hides the cells from visible[i] on; rows from n on hide none, so
 * that no sum is empty. */
static uint16_t * make_mask(const int32_t * visible, int32_t n, int64_t rows, int64_t cells) {
    uint16_t * mask = calloc((size_t) (rows * cells), sizeof *mask);
    const uint16_t hidden = f16_from_f32(-INFINITY);
    for (int32_t i = 0; mask != NULL && i < n; i++) {
        for (int64_t c = visible[i]; c < cells; c++) {
            mask[i * cells + c] = hidden;
        }
    }
    return mask;
}

static ggt * rows_of(struct graph * g, ggt * x, int64_t first, int64_t n) {
    return g->abi->ggml_view_3d(g->ctx, x, x->ne[0], x->ne[1], n, x->nb[1], x->nb[2], (size_t) first * x->nb[2]);
}

int32_t layer_groups(struct group * groups, const int32_t * visible, int32_t n) {
    const int32_t n_groups = n / TILE > 0 ? n / TILE : 1;
    for (int32_t i = 0; i < n_groups; i++) {
        const int32_t first = i * TILE, end = i + 1 == n_groups ? n : first + TILE;
        struct group * to = &groups[i];
        *to = (struct group) {.first = first, .n = end - first, .rows = pad(end - first, LAYER_ROW_PAD), .cells = pad(visible[end - 1], ENGINE_CELL_PAD)};
        to->hidden = make_mask(visible + first, end - first, to->rows, to->cells);
        if (to->hidden == NULL) {
            return 0;
        }
    }
    return n_groups;
}

void layer_free_groups(struct group * groups) {
    for (int32_t i = 0; i < LAYER_MAX_GROUPS; i++) {
        free(groups[i].hidden);
    }
}

static ggt * attend_group(struct graph * g, struct group * group, ggt * q, struct source k, struct source v) {
    const struct model * m = g->e->model;
    const struct abi * abi = g->abi;
    if (group->mask == NULL) {
        group->mask = graph_input(g, abi->ggml_new_tensor_2d(g->ctx, GGML_TYPE_F16, group->cells, group->rows), group->hidden, (size_t) (group->rows * group->cells) * sizeof *group->hidden);
    }
    q = rows_of(g, q, group->first, group->n);
    if (group->n >= PAD_FROM && group->n < TILE) {
        q = abi->ggml_pad(g->ctx, q, 0, 0, (int) (TILE - group->n), 0);
    }
    ggt * out = abi->ggml_flash_attn_ext(g->ctx, abi->ggml_permute(g->ctx, q, 0, 2, 1, 3), by_head(g, k, group->cells), by_head(g, v, group->cells), group->mask, m->scale, 0, 0);
    abi->ggml_flash_attn_ext_set_prec(out, GGML_PREC_F32);
    return abi->ggml_reshape_2d(g->ctx, rows_of(g, out, 0, group->n), (int64_t) m->n_heads * m->head_dim, group->n);
}

static ggt * attend(struct graph * g, struct group * groups, int32_t n_groups, ggt * q, struct source k, struct source v) {
    ggt * out = attend_group(g, &groups[0], q, k, v);
    for (int32_t i = 1; i < n_groups; i++) {
        out = g->abi->ggml_concat(g->ctx, out, attend_group(g, &groups[i], q, k, v), 1);
    }
    return out;
}

/* The heads of a group ask the same keys, and so do it together: as rows of one matrix. */
ggt * layer_shares(struct graph * g, ggt * q, struct source k, int64_t cells, ggt * mask) {
    const struct model * m = g->e->model;
    q = g->abi->ggml_reshape_3d(g->ctx, q, m->head_dim, m->n_heads / m->n_heads_kv, m->n_heads_kv);
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
