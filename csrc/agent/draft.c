#include "draft.h"

#include "stretch.h"
#include "voice.h"

#include <stdlib.h>

struct drafting {
    struct engine * e;
    const struct recipe * recipe;
    struct rows * rows;
    struct attention * attention;
    struct recomputed * did;
    int32_t done; /* tokens behind the recipe's that have been computed */
    /* Of one batch: its cells and positions, how many cells each token sees, where it is
     * held on its way through the layers, keys and values. */
    int32_t * cells, * pos, * visible, * held;
    float * k, * v;
    bool in_graph;  /* the graph takes rows as they lie, and nobody asks for logarithms */
    int32_t looks_from; /* the first layer whose attention counts */
    struct cached * cached; /* of each layer, where the graph takes it as it lies */
    float * shared; /* how one token shares out its attention in a layer, head by head */
};

static bool drafting_init(struct drafting * d, int32_t batch, struct error * err) {
    const size_t n = (size_t) batch, width = (size_t) d->rows->width;
    const int32_t n_layers = d->e->model->n_layers;
    d->in_graph = rows_in_graph(d->rows) && d->attention->logs == NULL && voice_fits(d->e);
    while (!attention_wants(d->attention, d->looks_from) && d->looks_from < n_layers) {
        d->looks_from++;
    }
    d->cached = malloc((size_t) n_layers * sizeof *d->cached);
    for (int32_t layer = 0; d->in_graph && d->cached != NULL && layer < n_layers; layer++) {
        d->cached[layer] = rows_cached(d->rows, layer);
    }
    d->cells = malloc(n * sizeof *d->cells);
    d->pos = malloc(n * sizeof *d->pos);
    d->visible = malloc(n * sizeof *d->visible);
    d->held = malloc(n * sizeof *d->held);
    d->k = malloc(n * width * sizeof *d->k);
    d->v = malloc(n * width * sizeof *d->v);
    d->shared = malloc((size_t) d->rows->state->cells * (size_t) d->e->model->n_heads * sizeof *d->shared);
    return (d->cached != NULL && d->cells != NULL && d->pos != NULL && d->visible != NULL && d->held != NULL && d->k != NULL && d->v != NULL && d->shared != NULL) ? engine_hold(d->e, batch, err) : fail(err, "out of memory");
}

static void drafting_free(struct drafting * d) {
    free(d->cached);
    free(d->cells);
    free(d->pos);
    free(d->visible);
    free(d->held);
    free(d->k);
    free(d->v);
    free(d->shared);
}

/* Takes n tokens through a layer; where it weighs, n is 1, and their attention counts. */
static bool pass_layer(struct drafting * d, int32_t layer, int32_t n, bool weighs, struct error * err) {
    if (!engine_keys(d->e, layer, d->held, d->pos, n, d->k, d->v, err) || !rows_put(d->rows, layer, d->cells, n, d->k, d->v, err)) {
        return false;
    }
    const struct cached cached = rows_cached(d->rows, layer);
    weighs = weighs && attention_wants(d->attention, layer);
    if (!engine_layer(d->e, layer, d->held, d->pos, d->visible, n, &cached, weighs ? d->shared : NULL, err)) {
        return false;
    }
    if (weighs) {
        attention_add(d->attention, layer, d->shared, d->e->model->n_heads, d->visible[0]);
    }
    return true;
}

/* The same through all layers, where the graph takes rows as they lie. */
static bool pass_layers(struct drafting * d, int32_t n, struct error * err) {
    const int32_t n_layers = d->e->model->n_layers;
    bool ok = true;
    for (int32_t from = 0, to = 0; ok && from < n_layers; from = to) {
        to = n_layers - from < ENGINE_MAX_STRETCH ? n_layers : from + ENGINE_MAX_STRETCH;
        const struct stretch s = {.from = from, .to = to, .n = n, .rows = d->held, .cells = d->cells, .pos = d->pos, .visible = d->visible, .cached = d->cached + from};
        ok = engine_stretch(d->e, &s, err);
    }
    return ok;
}

static void count(struct drafting * d, int32_t n) {
    const int64_t all = (int64_t) n * d->e->model->n_layers;
    d->did->keys += all;
    d->did->layers += all;
}

/* Computes the n tokens that come next; what the last layer puts out is held. */
static bool pass(struct drafting * d, const int32_t * tokens, int32_t n, bool weighs, struct error * err) {
    const struct recipe_head * h = &d->recipe->head;
    const int32_t n_layers = d->e->model->n_layers;
    for (int32_t i = 0; i < n; i++, d->done++) {
        d->pos[i] = (int32_t) h->n_tokens + d->done;
        d->held[i] = i;
        d->cells[i] = (int32_t) h->n_cells + d->done;
        d->visible[i] = d->cells[i] + 1;
    }
    bool ok = engine_embed(d->e, tokens, d->held, n, err);
    if (ok && d->in_graph) {
        ok = pass_layers(d, n, err);
    }
    for (int32_t layer = 0; ok && !d->in_graph && layer < n_layers; layer++) {
        ok = pass_layer(d, layer, n, weighs, err);
    }
    count(d, n);
    return ok;
}

/* The last token that follows, and those that are drafted behind it, by passes. */
static bool speak_by_passes(struct drafting * d, const int32_t * last, struct error * err) {
    if (!pass(d, last, 1, true, err)) {
        return false;
    }
    for (uint32_t i = 0; i < d->recipe->head.n_drafted; i++) {
        int32_t * token = &d->did->drafted[i];
        if (!engine_likeliest(d->e, 0, token, err) || !pass(d, token, 1, true, err)) {
            return false;
        }
        d->did->n_drafted++;
    }
    return true;
}

/* The same by one graph. */
static bool speak(struct drafting * d, const int32_t * last, struct error * err) {
    const struct recipe_head * h = &d->recipe->head;
    struct voice * v = voice_new(d->e, d->cached, (int32_t) d->rows->state->cells, d->looks_from, err);
    int32_t token = *last, next = 0;
    bool ok = v != NULL;
    for (uint32_t i = 0; ok && i <= h->n_drafted; i++, d->done++) {
        ok = voice_say(v, token, (int32_t) h->n_cells + d->done, (int32_t) h->n_tokens + d->done, d->shared, &next, err);
        if (ok) {
            attention_add_shares(d->attention, d->shared);
            count(d, 1);
        }
        if (ok && i < h->n_drafted) {
            d->did->drafted[d->did->n_drafted++] = token = next;
        }
    }
    voice_free(v);
    return ok;
}

/* All that follow but the last go together; that one is the first to tell. */
static bool run(struct drafting * d, int32_t batch, struct error * err) {
    const struct recipe_head * h = &d->recipe->head;
    const int32_t * following = d->recipe->tokens + h->n_tokens;
    const int32_t last = (int32_t) h->n_following - 1;
    for (int32_t at = 0, n = 0; at < last; at += n) {
        n = last - at < batch ? last - at : batch;
        if (!pass(d, following + at, n, false, err)) {
            return false;
        }
    }
    return d->in_graph ? speak(d, following + last, err) : speak_by_passes(d, following + last, err);
}

bool draft(struct engine * e, const struct recipe * recipe, struct rows * r, int32_t batch, struct attention * attention, struct recomputed * did, struct error * err) {
    struct drafting d = {.e = e, .recipe = recipe, .rows = r, .attention = attention, .did = did};
    const bool ok = drafting_init(&d, batch, err) && run(&d, batch, err);
    drafting_free(&d);
    return ok;
}
