/*
 * ggml's attention on a CPU takes all rows through all cells and hides by a mask what they
 * do not see. The tokens of a recipe stand anywhere in the prompt and see little in common:
 * a kernel of our own (attend.h) takes each as far as it sees.
 */
#include "flash.h"

#include "attend.h"

enum {
    FEWEST_TOKENS = 2, /* for one alone ggml's reads the cells once */
    FEWEST_ROWS = 24,  /* that are worth unpacking the cells for */
};

struct job {
    const struct abi * abi;
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

static void run(ggt * out, int ith, int nth, void * of) {
    const struct job * job = of;
    const ggt * q = job->q, * k = job->k, * v = job->v;
    const int64_t tokens = q->ne[2], heads = k->ne[2], sharing = q->ne[1] / heads, some = piece(tokens, heads, sharing, nth);
    const int64_t pieces = (tokens + some - 1) / some;
    const uint8_t * keys = job->abi->ggml_get_data(k), * values = job->abi->ggml_get_data(v);
    const float * queries = job->abi->ggml_get_data(q);
    float * to = job->abi->ggml_get_data(out);
    for (int64_t i = ith; i < pieces * heads; i += nth) {
        const int64_t head = i % heads, first = i / heads * some, of_head = head * sharing * q->ne[0];
        const struct attend_head h = {
            .k = keys + (size_t) head * k->nb[2], .v = values + (size_t) head * v->nb[2], .cell_k = k->nb[1], .cell_v = v->nb[1],
            .dim = (int32_t) q->ne[0], .sharing = (int32_t) sharing, .scale = job->scale, .visible = job->visible,
            .q = queries + of_head, .token_q = q->nb[2] / sizeof *queries, .out = to + of_head, .token_out = (size_t) out->ne[0],
        };
        job->attend->head(&h, (int32_t) first, (int32_t) (tokens - first < some ? tokens - first : some));
    }
}

ggt * flash(struct graph * g, ggt * q, ggt * k, ggt * v, const int32_t * visible) {
    const bool fits = graph_takes_kernels(g) && q->ne[2] >= FEWEST_TOKENS && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16;
    const struct attend * attend = fits && q->nb[1] == (size_t) q->ne[0] * sizeof(float) ? attend_for((int32_t) q->ne[0]) : NULL;
    if (attend == NULL) {
        return NULL;
    }
    ggt * args[] = {q, k, v};
    const struct job job = {g->abi, attend, q, k, v, visible, g->e->model->scale};
    return graph_custom(g, GGML_TYPE_F32, q->ne[0] * q->ne[1], q->ne[2], args, 3, run, &job, sizeof job);
}
