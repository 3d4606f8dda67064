/*
 * ggml's attention on a CPU takes all rows through all cells and hides by a mask what they
 * do not see. The tokens of a recipe stand anywhere in the prompt and see little in common:
 * a kernel of our own (attend.h) takes each as far as it sees.
 */
#include "flash.h"

#include "attend.h"

#include <string.h>

enum { FEWEST_ROWS = 24 }; /* that are worth unpacking the cells for */

struct job {
    const struct engine * e;
    const struct attend * attend;
    ggt * q, * k, * v;
    const int32_t * visible;
    float scale;
};

/* How many tokens are taken at a time: all threads find some to do. */
static int64_t piece(int64_t tokens, int64_t heads, int64_t sharing, int nth) {
    const int64_t fewest = (FEWEST_ROWS + sharing - 1) / sharing, even = tokens * heads / (4 * nth);
    return even > fewest ? even : fewest;
}

/* The heads of queries that share a head of keys; v may be null. */
static struct attend_head head_of(const struct job * job, ggt * out, int64_t head) {
    const ggt * q = job->q, * k = job->k, * v = job->v;
    const int64_t sharing = q->ne[1] / k->ne[2], before = head * sharing * q->ne[0];
    return (struct attend_head) {
        .k = (const uint8_t *) job->e->abi->ggml_get_data(k) + (size_t) head * k->nb[2], .cell_k = k->nb[1],
        .v = v == NULL ? NULL : (const uint8_t *) job->e->abi->ggml_get_data(v) + (size_t) head * v->nb[2], .cell_v = v == NULL ? 0 : v->nb[1],
        .q = (const float *) job->e->abi->ggml_get_data(q) + before, .token_q = q->nb[2] / sizeof(float),
        .out = (float *) job->e->abi->ggml_get_data(out) + before, .token_out = (size_t) out->ne[0],
        .dim = (int32_t) q->ne[0], .sharing = (int32_t) sharing, .scale = job->scale, .visible = job->visible,
    };
}

static void run(ggt * out, int ith, int nth, void * of) {
    const struct job * job = of;
    const int64_t tokens = job->q->ne[2], heads = job->k->ne[2], some = piece(tokens, heads, job->q->ne[1] / heads, nth);
    const int64_t pieces = (tokens + some - 1) / some;
    for (int64_t i = ith; i < pieces * heads; i += nth) {
        const struct attend_head h = head_of(job, out, i % heads);
        const int64_t first = i / heads * some;
        job->attend->head(&h, (int32_t) first, (int32_t) (tokens - first < some ? tokens - first : some), engine_scratch(job->e, ith));
    }
}

static void run_shares(ggt * out, int ith, int nth, void * of) {
    const struct job * job = of;
    const int64_t cells = out->ne[0], sharing = job->q->ne[1] / job->k->ne[2];
    float * to = job->e->abi->ggml_get_data(out);
    for (int64_t i = ith; i < job->k->ne[2]; i += nth) {
        const struct attend_head h = head_of(job, out, i);
        float * rows = to + i * sharing * cells;
        memset(rows, 0, (size_t) (sharing * cells) * sizeof *rows);
        job->attend->shares(&h, rows, cells, engine_scratch(job->e, ith));
    }
}

/* Null where ggml's own is to be taken. */
static const struct attend * attend_of(const struct graph * g, const ggt * q, const ggt * k) {
    const bool fits = g->e->own_kernels && k->type == GGML_TYPE_F16 && q->nb[1] == (size_t) q->ne[0] * sizeof(float);
    return fits ? attend_for((int32_t) q->ne[0], (int32_t) (q->ne[1] / k->ne[2])) : NULL;
}

ggt * flash(struct graph * g, ggt * q, ggt * k, ggt * v, const int32_t * visible) {
    const struct attend * attend = attend_of(g, q, k);
    if (attend == NULL || v->type != GGML_TYPE_F16) {
        return NULL;
    }
    ggt * args[] = {q, k, v};
    const struct job job = {g->e, attend, q, k, v, visible, g->e->model->scale};
    return graph_custom(g, GGML_TYPE_F32, q->ne[0] * q->ne[1], q->ne[2], args, 3, run, &job, sizeof job);
}

ggt * flash_shares(struct graph * g, ggt * q, ggt * k, const int32_t * visible) {
    const struct attend * attend = attend_of(g, q, k);
    if (attend == NULL) {
        return NULL;
    }
    ggt * args[] = {q, k};
    const struct job job = {g->e, attend, q, k, NULL, visible, g->e->model->scale};
    return graph_custom(g, GGML_TYPE_F32, k->ne[1], q->ne[1], args, 2, run_shares, &job, sizeof job);
}
