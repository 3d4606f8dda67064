/* A batch of tokens through a part of one layer: a graph each. */
#include "layer.h"

#include <stdlib.h>

bool engine_embed(struct engine * e, const int32_t * tokens, const int32_t * rows, int32_t n, struct error * err) {
    struct graph g;
    const int64_t known = e->model->embeddings->ne[1];
    for (int32_t i = 0; i < n; i++) {
        if (tokens[i] >= known) {
            return fail(err, "token %d: the model has %lld", tokens[i], (long long) known);
        }
    }
    if (!graph_begin(&g, e, err)) {
        return false;
    }
    graph_give(&g, rows, n, e->abi->ggml_get_rows(g.ctx, e->model->embeddings, graph_ints(&g, tokens, n)));
    const bool ok = graph_run(&g, err);
    graph_end(&g);
    return ok;
}

bool engine_keys(struct engine * e, int32_t layer, const int32_t * rows, const int32_t * pos, int32_t n, float * k, float * v, struct error * err) {
    const int64_t all = (int64_t) n * e->model->n_heads_kv * e->model->head_dim;
    struct graph g;
    ggt * keys, * values;
    if (!graph_begin(&g, e, err)) {
        return false;
    }
    layer_keys(&g, &e->model->layers[layer], graph_take(&g, rows, n), graph_ints(&g, pos, n), &keys, &values);
    graph_want(&g, keys);
    graph_want(&g, values);
    const bool ok = graph_run(&g, err);
    if (ok) {
        graph_fetch(&g, keys, k, all);
        graph_fetch(&g, values, v, all);
    }
    graph_end(&g);
    return ok;
}

bool engine_store(struct engine * e, int32_t layer, const int32_t * rows, const int32_t * pos, const int32_t * cells, int32_t n, const struct cached * cached, const int32_t * picked, int32_t n_picked, float * k, float * v, struct error * err) {
    const int64_t width = (int64_t) e->model->n_heads_kv * e->model->head_dim;
    struct graph g;
    ggt * keys, * values;
    if (!graph_begin(&g, e, err)) {
        return false;
    }
    layer_keys(&g, &e->model->layers[layer], graph_take(&g, rows, n), graph_ints(&g, pos, n), &keys, &values);
    ggt * to = graph_longs(&g, cells, n);
    layer_store(&g, (struct source) {cached->k_tensor, cached->first}, cells[n - 1] + 1, keys, to);
    layer_store(&g, (struct source) {cached->v_tensor, cached->first}, cells[n - 1] + 1, values, to);
    if (n_picked > 0) {
        ggt * which = graph_ints(&g, picked, n_picked);
        keys = e->abi->ggml_get_rows(g.ctx, e->abi->ggml_reshape_2d(g.ctx, keys, width, n), which);
        values = e->abi->ggml_get_rows(g.ctx, values, which);
        graph_want(&g, keys);
        graph_want(&g, values);
    }
    const bool ok = graph_run(&g, err);
    if (ok && n_picked > 0) {
        graph_fetch(&g, keys, k, n_picked * width);
        graph_fetch(&g, values, v, n_picked * width);
    }
    graph_end(&g);
    return ok;
}

bool engine_layer(struct engine * e, int32_t layer, const int32_t * rows, const int32_t * pos, const int32_t * visible, int32_t n, const struct cached * cached, float * attention, struct error * err) {
    const struct model * m = e->model;
    const struct weights * w = &m->layers[layer];
    const int64_t cells = visible[n - 1];
    struct graph g;
    struct grouping * grouping = layer_grouping(e, visible, n);
    if (grouping == NULL) {
        return fail(err, "out of memory");
    }
    if (!graph_begin(&g, e, err)) {
        return false;
    }
    ggt * in = graph_take(&g, rows, n);
    ggt * q = layer_queries(&g, w, in, graph_ints(&g, pos, n));
    const struct source k = layer_source(&g, cached->k_tensor, cached->first, cached->k_type, cached->k, cells);
    const struct source v = layer_source(&g, cached->v_tensor, cached->first, cached->v_type, cached->v, cells);
    ggt * out = layer_output(&g, w, in, q, grouping->groups, grouping->n_groups, k, v);
    ggt * shared = attention != NULL ? layer_shares(&g, q, k, cells, visible, NULL) : NULL;
    graph_give(&g, rows, n, out);
    if (shared != NULL) {
        graph_want(&g, shared);
    }
    const bool ok = graph_run(&g, err);
    if (ok && shared != NULL) {
        graph_fetch(&g, shared, attention, cells * m->n_heads);
    }
    graph_end(&g);
    return ok;
}

bool engine_likeliest(struct engine * e, int32_t row, int32_t * token, struct error * err) {
    const int64_t n = e->model->output->ne[1];
    struct graph g;
    float * logits = malloc((size_t) n * sizeof *logits);
    bool ok = logits != NULL || fail(err, "out of memory");
    if (ok && (ok = graph_begin(&g, e, err))) {
        ggt * out = layer_logits(&g, graph_take(&g, &row, 1));
        graph_want(&g, out);
        if ((ok = graph_run(&g, err))) {
            graph_fetch(&g, out, logits, n);
            *token = layer_likeliest(logits, n);
        }
        graph_end(&g);
    }
    free(logits);
    return ok;
}
