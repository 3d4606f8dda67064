#include "stretch.h"

#include <stdlib.h>

/* Shares summed over heads: a row for each cell. */
static ggt * summed(struct graph * g, ggt * shared, int64_t cells) {
    ggt * by_cell = g->abi->ggml_reshape_3d(g->ctx, shared, cells, g->e->model->n_heads, 1);
    return g->abi->ggml_sum_rows(g->ctx, g->abi->ggml_cont(g->ctx, g->abi->ggml_permute(g->ctx, by_cell, 1, 0, 2, 3)));
}

ggt * stretch_layer(struct graph * g, struct run * r, int32_t layer, ggt * x) {
    const struct stretch * s = r->s;
    const struct weights * w = &g->e->model->layers[layer];
    const struct cached * c = &s->cached[layer - s->from];
    const struct source k = {c->k_tensor, c->first}, v = {c->v_tensor, c->first};
    const bool narrows = layer + 1 == s->to && s->kept != NULL;
    ggt * keys, * values;
    layer_keys(g, w, x, r->pos, &keys, &values);
    layer_store(g, k, s->visible[s->n - 1], keys, r->to);
    layer_store(g, v, s->visible[s->n - 1], values, r->to);
    if (narrows && s->n_kept == 0) {
        return NULL;
    }
    if (narrows) {
        x = g->abi->ggml_get_rows(g->ctx, x, r->kept);
        return layer_output(g, w, x, layer_queries(g, w, x, r->kept_pos), r->kept_groups, r->n_kept_groups, k, v);
    }
    ggt * q = layer_queries(g, w, x, r->pos);
    ggt * out = layer_output(g, w, x, q, r->groups, r->n_groups, k, v);
    if (r->tells && layer >= r->looks_from) {
        const struct group * group = &r->groups[0];
        ggt * sum = summed(g, layer_shares(g, q, k, group->cells, group->visible, group->mask), group->cells);
        r->attention = r->attention == NULL ? sum : g->abi->ggml_add(g->ctx, r->attention, sum);
    }
    return out;
}

void stretch_groups(const struct engine * e, struct run * r) {
    const struct stretch * s = r->s;
    r->n_groups = layer_groups(e, r->groups, s->visible, s->n);
    r->n_kept_groups = s->n_kept > 0 ? layer_groups(e, r->kept_groups, s->kept_visible, s->n_kept) : 0;
}

void stretch_inputs(struct graph * g, struct run * r) {
    const struct stretch * s = r->s;
    r->pos = graph_ints(g, s->pos, s->n);
    r->to = graph_longs(g, s->cells, s->n);
    if (s->n_kept > 0) {
        r->kept = graph_ints(g, s->kept, s->n_kept);
        r->kept_pos = graph_ints(g, s->kept_pos, s->n_kept);
    }
}

static bool run_stretch(struct graph * g, struct run * r, struct error * err) {
    const struct stretch * s = r->s;
    stretch_inputs(g, r);
    ggt * out = graph_take(g, s->rows, s->n);
    for (int32_t layer = s->from; layer < s->to; layer++) {
        out = stretch_layer(g, r, layer, out);
    }
    if (out != NULL) {
        graph_give(g, s->kept != NULL ? s->kept_rows : s->rows, s->kept != NULL ? s->n_kept : s->n, out);
    }
    return graph_run(g, err);
}

bool engine_stretch(struct engine * e, const struct stretch * s, struct error * err) {
    struct graph g;
    struct run * r = calloc(1, sizeof *r);
    if (r == NULL) {
        return fail(err, "out of memory");
    }
    r->s = s;
    stretch_groups(e, r);
    bool ok = graph_begin(&g, e, err);
    if (ok) {
        ok = run_stretch(&g, r, err);
        graph_end(&g);
    }
    layer_free_groups(r->groups);
    layer_free_groups(r->kept_groups);
    free(r);
    return ok;
}
