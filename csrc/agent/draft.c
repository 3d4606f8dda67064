#include "draft.h"

#include "weigh.h"

#include <stdlib.h>

struct drafting {
    struct engine * e;
    const struct recipe * recipe;
    struct rows * rows;
    float * attention;
    struct recomputed * did;
    int32_t done; /* tokens behind the recipe's that have been computed */
    /* Of one batch: its positions, how many cells each token sees, what goes from layer to
     * layer, keys and values. */
    int32_t * pos, * visible;
    float * x, * k, * v;
};

static bool drafting_init(struct drafting * d, int32_t batch, struct error * err) {
    const size_t n = (size_t) batch, width = (size_t) d->rows->width;
    d->pos = malloc(n * sizeof *d->pos);
    d->visible = malloc(n * sizeof *d->visible);
    d->x = malloc(n * (size_t) d->e->model->n_embd * sizeof *d->x);
    d->k = malloc(n * width * sizeof *d->k);
    d->v = malloc(n * width * sizeof *d->v);
    return (d->pos != NULL && d->visible != NULL && d->x != NULL && d->k != NULL && d->v != NULL) || fail(err, "out of memory");
}

static void drafting_free(struct drafting * d) {
    free(d->pos);
    free(d->visible);
    free(d->x);
    free(d->k);
    free(d->v);
}

/* Takes n tokens through a layer; where it weighs, the last one's attention counts. */
static bool pass_layer(struct drafting * d, int32_t layer, int32_t n, bool weighs, struct error * err) {
    const size_t width = (size_t) d->rows->width, last = (size_t) n - 1;
    if (!engine_keys(d->e, layer, d->x, d->pos, n, d->k, d->v, err)) {
        return false;
    }
    for (int32_t i = 0; i < n; i++) {
        rows_put_keys(d->rows, layer, d->visible[i] - 1, d->k + (size_t) i * width);
        rows_put_values(d->rows, layer, d->visible[i] - 1, d->v + (size_t) i * width);
    }
    const struct cached cached = rows_cached(d->rows, layer);
    if (weighs && !weigh(d->e, layer, d->x + last * (size_t) d->e->model->n_embd, d->pos[last], d->visible[last], &cached, d->recipe->head.n_cells, d->attention, err)) {
        return false;
    }
    return engine_layer(d->e, layer, d->x, d->pos, d->visible, n, &cached, err);
}

/* Computes the n tokens that come next; x is then what the last layer puts out. */
static bool pass(struct drafting * d, const int32_t * tokens, int32_t n, bool weighs, struct error * err) {
    const struct recipe_head * h = &d->recipe->head;
    const int32_t n_layers = d->e->model->n_layers;
    for (int32_t i = 0; i < n; i++, d->done++) {
        d->pos[i] = (int32_t) h->n_tokens + d->done;
        d->visible[i] = (int32_t) h->n_cells + d->done + 1;
    }
    bool ok = engine_embed(d->e, tokens, n, d->x, err);
    for (int32_t layer = 0; ok && layer < n_layers; layer++) {
        ok = pass_layer(d, layer, n, weighs, err);
    }
    d->did->keys += (int64_t) n * n_layers;
    d->did->layers += (int64_t) n * n_layers;
    return ok;
}

static bool run(struct drafting * d, int32_t batch, struct error * err) {
    const struct recipe_head * h = &d->recipe->head;
    const int32_t * following = d->recipe->tokens + h->n_tokens;
    int32_t n = 0;
    for (int32_t at = 0, all = (int32_t) h->n_following; at < all; at += n) {
        n = all - at < batch ? all - at : batch;
        if (!pass(d, following + at, n, at + n == all, err)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < h->n_drafted; i++, n = 1) {
        int32_t * token = &d->did->drafted[i];
        if (!engine_likeliest(d->e, d->x + (size_t) (n - 1) * (size_t) d->e->model->n_embd, token, err) || !pass(d, token, 1, true, err)) {
            return false;
        }
        d->did->n_drafted++;
    }
    return true;
}

bool draft(struct engine * e, const struct recipe * recipe, struct rows * r, int32_t batch, float * attention, struct recomputed * did, struct error * err) {
    struct drafting d = {.e = e, .recipe = recipe, .rows = r, .attention = attention, .did = did};
    const bool ok = drafting_init(&d, batch, err) && run(&d, batch, err);
    drafting_free(&d);
    return ok;
}
