/*
 * A cell that is active in a layer has its keys and values computed there from its
 * input to that layer, which needs it to have gone through all layers before. So the
 * active cells get fewer from layer to layer, and never more.
 *
 * Where the recipe asks for cells chosen by deviation, all cells go through the first
 * layer, which makes the keys and values of the first two exact; how far the values of
 * the second are off from the composed ones decides which cells go on.
 *
 * Cells that an answer attends to are chosen after that, and go through the layers by
 * themselves.
 */
#include "recompute.h"

#include "scored.h"
#include "shift.h"
#include "stretch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct work {
    struct engine * e;
    const struct recipe * recipe;
    struct rows * rows;
    int32_t batch;
    uint32_t * depth; /* of each cell, in how many layers it is computed at least */
    bool ranks;       /* further ones are chosen by deviation */
    /* Active cells, ascending, and for each its position, how many cells it sees, and
     * where its input to the layer is held. */
    int32_t n;
    int32_t * cells, * pos, * visible, * held;
    int32_t * picked; /* samples of a batch */
    float * k, * v;  /* one batch */
    int32_t * rank;  /* of each cell by deviation, 0 the most deviating; INT32_MAX never */
    uint8_t * computed; /* of each cell, whether it is active */
    struct shift shift;
    struct recomputed * did;
};

/* ---- which cells ---- */

/* How many of all cells deviation keeps active in a layer. */
static int32_t share(const struct work * w, int32_t layer) {
    const struct recipe_head * h = &w->recipe->head;
    const int32_t last = w->e->model->n_layers - 1;
    if (layer < 2) {
        return (int32_t) h->n_cells;
    }
    const float way = last > 2 ? (float) (layer - 2) / (float) (last - 2) : 0;
    const float s = h->share_last > 0 ? h->share_first * powf(h->share_last / h->share_first, way) : h->share_first * (1 - way);
    return (int32_t) lroundf(s * (float) h->n_cells);
}

static bool active(const struct work * w, int32_t cell, int32_t layer) {
    return (int32_t) w->depth[cell] > layer || (w->ranks && w->rank[cell] < share(w, layer));
}

/* Ranks all cells but those that are computed in every layer anyway. scores are squared
 * distances, mean the mean square of values. */
static void set_ranks(struct work * w, struct scored * scores, float mean) {
    const struct recipe_head * h = &w->recipe->head;
    for (uint32_t i = 0; i < h->n_cells; i++) {
        if (w->depth[scores[i].cell] == h->n_layers) {
            scores[i].score = 0; /* it may have had no values before */
        }
    }
    qsort(scores, h->n_cells, sizeof *scores, by_score);
    int32_t next = 0;
    for (uint32_t i = 0; i < h->n_cells; i++) {
        const int32_t cell = scores[i].cell;
        const bool worth = w->depth[cell] < h->n_layers && scores[i].score > h->min_deviation * mean;
        w->rank[cell] = worth ? next++ : INT32_MAX;
    }
}

/* ---- memory ---- */

/* Cells are active as the recipe says or, where some were chosen, those in all layers. */
static void set_depths(struct work * w, const uint8_t * chosen) {
    const struct recipe_head * h = &w->recipe->head;
    for (uint32_t c = 0; c < h->n_cells; c++) {
        w->depth[c] = chosen == NULL ? recipe_depth(w->recipe, c) : chosen[c] ? h->n_layers : 0;
    }
    w->ranks = chosen == NULL && h->share_first > 0 && h->n_layers > 2;
}

static bool work_init(struct work * w, const uint8_t * chosen, struct error * err) {
    const uint32_t n_cells = w->recipe->head.n_cells;
    const size_t width = (size_t) w->rows->width;
    w->depth = malloc(n_cells * sizeof *w->depth);
    w->rank = calloc(n_cells, sizeof *w->rank); /* all active until they are ranked */
    w->cells = malloc(n_cells * sizeof *w->cells);
    w->pos = malloc(n_cells * sizeof *w->pos);
    w->visible = malloc(n_cells * sizeof *w->visible);
    w->held = malloc(n_cells * sizeof *w->held);
    w->picked = malloc((size_t) w->batch * sizeof *w->picked);
    w->computed = malloc(n_cells);
    w->k = malloc((size_t) w->batch * width * sizeof *w->k);
    w->v = malloc((size_t) w->batch * width * sizeof *w->v);
    if (w->depth == NULL || w->rank == NULL || w->cells == NULL || w->pos == NULL || w->visible == NULL || w->held == NULL || w->picked == NULL || w->computed == NULL || w->k == NULL || w->v == NULL) {
        return fail(err, "out of memory");
    }
    set_depths(w, chosen);
    for (int32_t c = 0; c < (int32_t) n_cells; c++) {
        if (active(w, c, 0)) {
            w->cells[w->n] = c;
            w->pos[w->n] = w->recipe->pos[c];
            w->held[w->n] = w->n;
            w->visible[w->n++] = c + 1;
        }
    }
    return engine_hold(w->e, w->n, err);
}

static void work_free(struct work * w) {
    free(w->depth);
    free(w->rank);
    free(w->cells);
    free(w->pos);
    free(w->visible);
    free(w->held);
    free(w->picked);
    free(w->computed);
    shift_free(&w->shift);
    free(w->k);
    free(w->v);
}

/* ---- the layers ---- */

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

/* How many of the active cells, one and more, go into a batch: as many into each, since a
 * few left over for a last one would cost half as much again. */
static int32_t even_batch(const struct work * w) {
    const int32_t batches = (w->n + w->batch - 1) / w->batch;
    return (w->n + batches - 1) / batches;
}

static bool embed(struct work * w, struct error * err) {
    const struct recipe * r = w->recipe;
    int32_t * tokens = malloc((size_t) w->batch * sizeof *tokens);
    bool ok = tokens != NULL || fail(err, "out of memory");
    for (int32_t at = 0; ok && at < w->n; at += w->batch) {
        const int32_t n = least(w->batch, w->n - at);
        for (int32_t i = 0; i < n; i++) {
            tokens[i] = r->tokens[w->pos[at + i]];
        }
        ok = engine_embed(w->e, tokens, w->held + at, n, err);
    }
    free(tokens);
    return ok;
}

/* How far values are off from the n cells' cached ones; *sum is the sum of their squares. */
static bool measure(struct work * w, int32_t layer, const int32_t * cells, int32_t n, struct scored * scores, double * sum, struct error * err) {
    const size_t width = (size_t) w->rows->width;
    float * old = malloc((size_t) n * width * sizeof *old);
    const bool ok = (old != NULL || fail(err, "out of memory")) && rows_get(w->rows, layer, cells, n, NULL, old, err);
    for (int32_t i = 0; ok && i < n; i++) {
        const float * is = w->v + (size_t) i * width, * was = old + (size_t) i * width;
        float far = 0, own = 0;
        for (size_t e = 0; e < width; e++) {
            far += (was[e] - is[e]) * (was[e] - is[e]);
            own += is[e] * is[e];
        }
        scores[i] = (struct scored) {far, cells[i]};
        *sum += (double) own;
    }
    free(old);
    return ok;
}

/* Computes keys and values of n active cells, from at on, and puts them into the rows; k
 * and v are then those of the picked ones. */
static bool renew_batch(struct work * w, int32_t layer, int32_t at, int32_t n, int32_t n_picked, struct scored * scores, double * sum, struct error * err) {
    const int32_t * held = w->held + at, * pos = w->pos + at, * cells = w->cells + at;
    const size_t width = (size_t) w->rows->width;
    if (scores == NULL && rows_in_graph(w->rows)) {
        const struct cached cached = rows_cached(w->rows, layer);
        return engine_store(w->e, layer, held, pos, cells, n, &cached, w->picked, n_picked, w->k, w->v, err);
    }
    bool ok = engine_keys(w->e, layer, held, pos, n, w->k, w->v, err);
    ok = ok && (scores == NULL || measure(w, layer, cells, n, scores + at, sum, err)) && rows_put(w->rows, layer, cells, n, w->k, w->v, err);
    for (int32_t i = 0; ok && i < n_picked; i++) {
        memmove(w->k + (size_t) i * width, w->k + (size_t) w->picked[i] * width, width * sizeof *w->k);
        memmove(w->v + (size_t) i * width, w->v + (size_t) w->picked[i] * width, width * sizeof *w->v);
    }
    return ok;
}

/* Keys and values of the layer for all active cells. scores, where not null, gets how
 * far the values are off, one for each active cell; *sum is the sum of their squares. */
static bool renew(struct work * w, int32_t layer, struct scored * scores, double * sum, struct error * err) {
    shift_begin(&w->shift, layer);
    memset(w->computed, 0, w->recipe->head.n_cells);
    const int32_t batch = even_batch(w);
    for (int32_t at = 0, n_picked = 0; at < w->n; at += batch) {
        const int32_t n = least(batch, w->n - at);
        if (!shift_pick(&w->shift, w->cells + at, n, w->picked, &n_picked, err) || !renew_batch(w, layer, at, n, n_picked, scores, sum, err)) {
            return false;
        }
        shift_observe(&w->shift, w->k, w->v);
        for (int32_t i = 0; i < n; i++) {
            w->computed[w->cells[at + i]] = 1;
        }
    }
    w->did->keys += w->n;
    return shift_apply(&w->shift, w->computed, err);
}

/* The same, and ranks the cells; all are active. */
static bool renew_and_rank(struct work * w, int32_t layer, struct error * err) {
    double sum = 0;
    struct scored * scores = malloc((size_t) w->n * sizeof *scores);
    if (scores == NULL) {
        return fail(err, "out of memory");
    }
    const bool ok = renew(w, layer, scores, &sum, err);
    if (ok) {
        set_ranks(w, scores, (float) (sum / w->n));
    }
    free(scores);
    return ok;
}

/* Leaves only the cells that are active in the layer. */
static void narrow(struct work * w, int32_t layer) {
    int32_t kept = 0;
    for (int32_t i = 0; i < w->n; i++) {
        if (!active(w, w->cells[i], layer)) {
            continue;
        }
        w->cells[kept] = w->cells[i];
        w->pos[kept] = w->pos[i];
        w->visible[kept] = w->visible[i];
        w->held[kept++] = w->held[i];
    }
    w->n = kept;
}

static bool go_through(struct work * w, int32_t layer, const struct cached * cached, struct error * err) {
    const int32_t batch = even_batch(w);
    for (int32_t at = 0; at < w->n; at += batch) {
        const int32_t n = least(batch, w->n - at);
        if (!engine_layer(w->e, layer, w->held + at, w->pos + at, w->visible + at, n, cached, NULL, err)) {
            return false;
        }
    }
    w->did->layers += w->n;
    return true;
}

static bool all_layers(struct work * w, struct error * err) {
    for (int32_t layer = 0; w->n > 0; layer++) {
        const bool rank = layer == 1 && w->ranks;
        if (!(rank ? renew_and_rank(w, layer, err) : renew(w, layer, NULL, NULL, err))) {
            return false;
        }
        if (layer + 1 == w->e->model->n_layers) {
            return true; /* what it puts out is not needed */
        }
        const struct cached cached = rows_cached(w->rows, layer);
        narrow(w, layer + 1);
        if (w->n > 0 && !go_through(w, layer, &cached, err)) {
            return false;
        }
    }
    return true;
}

/* ---- several layers at a time ---- */

/*
 * Where no cell's keys depend on what later cells are computed to be, by samples or by
 * ranks, a batch can go through all layers before the next one: cells attend to those
 * before them only. Then the graph of one batch goes through as many layers as the same
 * cells are active in.
 */
struct batch {
    struct work * w;
    int32_t n;
    int32_t * cells, * pos, * visible, * held; /* of the work's, where this batch begins */
    int32_t * kept, * kept_pos, * kept_visible, * kept_held; /* those that go on, by their places */
    struct cached * cached; /* of one stretch */
};

/* The layer before which some of the batch stop being active, or the last one. */
static int32_t stretch_end(const struct batch * b, int32_t from) {
    int32_t to = least(b->w->e->model->n_layers, from + ENGINE_MAX_STRETCH);
    for (int32_t i = 0; i < b->n; i++) {
        to = least(to, (int32_t) b->w->depth[b->cells[i]]);
    }
    return to;
}

/* Notes which of the batch are active in the layer; none are behind the last one. */
static int32_t keep_active(struct batch * b, int32_t layer) {
    int32_t kept = 0;
    for (int32_t i = 0; layer < b->w->e->model->n_layers && i < b->n; i++) {
        if (active(b->w, b->cells[i], layer)) {
            b->kept[kept] = i;
            b->kept_pos[kept] = b->pos[i];
            b->kept_held[kept] = b->held[i];
            b->kept_visible[kept++] = b->visible[i];
        }
    }
    return kept;
}

/* Has the batch be those that were kept. Its arrays are the work's, which is done with
 * what stood there. */
static void become_kept(struct batch * b, int32_t kept) {
    for (int32_t i = 0; i < kept; i++) {
        b->cells[i] = b->cells[b->kept[i]];
        b->pos[i] = b->kept_pos[i];
        b->held[i] = b->kept_held[i];
        b->visible[i] = b->kept_visible[i];
    }
    b->n = kept;
}

static bool go_far(struct batch * b, struct error * err) {
    struct work * w = b->w;
    for (int32_t from = 0, to = 0; b->n > 0; from = to) {
        to = stretch_end(b, from);
        for (int32_t layer = from; layer < to; layer++) {
            b->cached[layer - from] = rows_cached(w->rows, layer);
        }
        const int32_t kept = keep_active(b, to);
        const struct stretch s = {.from = from, .to = to, .n = b->n, .rows = b->held, .cells = b->cells, .pos = b->pos, .visible = b->visible,
            .n_kept = kept, .kept = b->kept, .kept_rows = b->kept_held, .kept_pos = b->kept_pos, .kept_visible = b->kept_visible, .cached = b->cached};
        if (!engine_stretch(w->e, &s, err)) {
            return false;
        }
        w->did->keys += (int64_t) b->n * (to - from);
        w->did->layers += (int64_t) b->n * (to - from - 1) + kept;
        become_kept(b, kept);
    }
    return true;
}

static bool all_batches(struct work * w, struct error * err) {
    const int32_t size = even_batch(w);
    int32_t * kept = malloc(4 * (size_t) size * sizeof *kept);
    struct cached * cached = malloc(ENGINE_MAX_STRETCH * sizeof *cached);
    bool ok = (kept != NULL && cached != NULL) || fail(err, "out of memory");
    for (int32_t at = 0; ok && at < w->n; at += size) {
        struct batch b = {.w = w, .n = least(size, w->n - at), .cells = w->cells + at, .pos = w->pos + at, .visible = w->visible + at,
            .held = w->held + at, .kept = kept, .kept_pos = kept + size, .kept_visible = kept + 2 * size, .kept_held = kept + 3 * size, .cached = cached};
        ok = go_far(&b, err);
    }
    free(kept);
    free(cached);
    return ok;
}

static bool in_order(const struct work * w) { return !w->ranks && w->shift.n_passages == 0 && rows_in_graph(w->rows); }

bool recompute(struct engine * e, const struct recipe * recipe, struct rows * r, int32_t batch, const uint8_t * chosen, struct recomputed * did, struct error * err) {
    struct work w = {.e = e, .recipe = recipe, .rows = r, .batch = batch, .did = did};
    const bool ok = work_init(&w, chosen, err) && (chosen != NULL || shift_init(&w.shift, recipe, r, err)) && (w.n == 0 || (embed(&w, err) && (in_order(&w) ? all_batches(&w, err) : all_layers(&w, err))));
    work_free(&w);
    return ok;
}
