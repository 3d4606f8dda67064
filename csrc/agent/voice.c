#include "voice.h"

#include "half.h"
#include "stretch.h"

#include <math.h>
#include <stdlib.h>

enum { LAYER_NODES = 64 }; /* of a graph for one token, at most */

struct voice {
    struct graph g;
    struct run r;
    struct stretch s;
    bool begun;
    int32_t token, pos, cell, limit;
    int32_t seen; /* cells */
    ggt * logits;
    float * row; /* of logits */
};

static int64_t known_tokens(const struct engine * e) { return e->model->output->ne[1]; }

static void build_voice(struct voice * v) {
    struct graph * g = &v->g;
    stretch_inputs(g, &v->r);
    ggt * x = g->abi->ggml_get_rows(g->ctx, g->e->model->embeddings, graph_ints(g, &v->token, 1));
    for (int32_t layer = 0; layer < v->s.to; layer++) {
        x = stretch_layer(g, &v->r, layer, x);
    }
    v->logits = layer_logits(g, x);
    graph_want(g, v->logits);
    if (v->r.attention != NULL) {
        graph_want(g, v->r.attention);
    }
}

bool voice_fits(const struct engine * e) { return e->model->n_layers <= GRAPH_MAX_NODES / LAYER_NODES && e->model->n_heads / e->model->n_heads_kv <= LAYER_ROW_PAD; }

struct voice * voice_new(struct engine * e, const struct cached * cached, int32_t limit, int32_t looks_from, struct error * err) {
    const struct model * m = e->model;
    struct voice * v = calloc(1, sizeof *v);
    if (v == NULL) {
        fail(err, "out of memory");
        return NULL;
    }
    v->limit = limit;
    v->s = (struct stretch) {.to = m->n_layers, .n = 1, .cells = &v->cell, .pos = &v->pos, .visible = &v->limit, .cached = cached};
    v->r.s = &v->s;
    v->r.tells = true;
    v->r.looks_from = looks_from;
    v->row = malloc((size_t) known_tokens(e) * sizeof *v->row);
    stretch_groups(e, &v->r);
    v->r.groups[0].visible = &v->seen;
    v->seen = limit;
    v->begun = (v->row != NULL || fail(err, "out of memory")) && graph_begin(&v->g, e, err);
    if (v->begun) {
        build_voice(v);
    }
    if (!v->begun || !graph_alloc(&v->g, err)) {
        voice_free(v);
        return NULL;
    }
    return v;
}

void voice_free(struct voice * v) {
    if (v == NULL) {
        return;
    }
    if (v->begun) {
        graph_end(&v->g);
    }
    layer_free_groups(v->r.groups);
    free(v->row);
    free(v);
}

/* All rows hide what lies behind the cell: the heads of a group are rows too. There is no
 * mask where a kernel of our own attends. */
static void hide_behind(struct group * group, int32_t cell) {
    const uint16_t hidden = f16_from_f32(-INFINITY);
    for (int64_t i = 0, rows = layer_mask_rows(group); group->hidden != NULL && i < rows; i++) {
        for (int64_t c = 0; c < group->cells; c++) {
            group->hidden[i * group->cells + c] = c > cell ? hidden : 0;
        }
    }
}

bool voice_say(struct voice * v, int32_t token, int32_t cell, int32_t pos, float * attention, int32_t * next, struct error * err) {
    struct engine * e = v->g.e;
    if (token < 0 || token >= e->model->embeddings->ne[1]) {
        return fail(err, "token %d: the model has %lld", token, (long long) e->model->embeddings->ne[1]);
    }
    v->token = token;
    v->pos = pos;
    v->g.longs[0][0] = cell;
    v->seen = cell + 1;
    hide_behind(&v->r.groups[0], cell);
    if (!graph_compute(&v->g, err)) {
        return false;
    }
    if (v->r.attention != NULL) {
        graph_fetch(&v->g, v->r.attention, attention, cell + 1);
    }
    graph_fetch(&v->g, v->logits, v->row, known_tokens(e));
    *next = layer_likeliest(v->row, known_tokens(e));
    return true;
}
