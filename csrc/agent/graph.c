#include "graph.h"

#include <string.h>

bool graph_begin(struct graph * g, struct engine * e, struct error * err) {
    g->n_inputs = 0;
    g->n_longs = 0;
    g->n_jobs = 0;
    g->out_of_memory = false;
    g->packed_from = NULL;
    g->e = e;
    g->abi = e->abi;
    g->ctx = e->abi->ggml_init((struct ggml_init_params) {e->arena_size, e->arena, true});
    if (g->ctx == NULL) {
        return fail(err, "ggml has no memory for a graph");
    }
    g->g = e->abi->ggml_new_graph_custom(g->ctx, GRAPH_MAX_NODES, false);
    return true;
}

ggt * graph_input(struct graph * g, ggt * t, const void * data, size_t size) {
    g->abi->ggml_set_input(t);
    g->inputs[g->n_inputs].tensor = t;
    g->inputs[g->n_inputs].data = data;
    g->inputs[g->n_inputs++].size = size;
    return t;
}

ggt * graph_ints(struct graph * g, const int32_t * x, int64_t n) {
    return graph_input(g, g->abi->ggml_new_tensor_1d(g->ctx, GGML_TYPE_I32, n), x, (size_t) n * sizeof *x);
}

ggt * graph_longs(struct graph * g, const int32_t * x, int64_t n) {
    int64_t * longs = g->longs[g->n_longs++];
    for (int64_t i = 0; i < n; i++) {
        longs[i] = x[i];
    }
    return graph_input(g, g->abi->ggml_new_tensor_1d(g->ctx, GGML_TYPE_I64, n), longs, (size_t) n * sizeof *longs);
}

ggt * graph_take(struct graph * g, const int32_t * rows, int64_t n) { return g->abi->ggml_get_rows(g->ctx, g->e->x, graph_ints(g, rows, n)); }

void graph_give(struct graph * g, const int32_t * rows, int64_t n, ggt * x) {
    g->abi->ggml_build_forward_expand(g->g, g->abi->ggml_set_rows(g->ctx, g->e->x, x, graph_longs(g, rows, n)));
}

ggt * graph_custom(struct graph * g, int32_t type, int64_t ne0, int64_t ne1, ggt ** args, int n_args, custom_op_fn run, const void * job, size_t size) {
    void * kept = memcpy((char *) g->e->jobs + (size_t) g->n_jobs++ * GRAPH_JOB, job, size);
    return g->abi->ggml_custom_4d(g->ctx, type, ne0, ne1, 1, 1, args, n_args, run, GGML_N_TASKS_MAX, kept);
}

void graph_want(struct graph * g, ggt * t) {
    g->abi->ggml_set_output(t);
    g->abi->ggml_build_forward_expand(g->g, t);
}

/* What data does not fill is padding, and zero: garbage could be NaN, which even a mask
 * does not hide. */
static void fill(const struct abi * abi, ggt * t, const void * data, size_t size) {
    const size_t all = abi->ggml_nbytes(t);
    abi->ggml_backend_tensor_set(t, data, 0, size);
    if (size < all) {
        abi->ggml_backend_tensor_memset(t, 0, size, all - size);
    }
}

bool graph_alloc(struct graph * g, struct error * err) {
    if (g->out_of_memory) {
        return fail(err, "out of memory");
    }
    g->abi->ggml_backend_sched_reset(g->e->sched);
    return g->abi->ggml_backend_sched_alloc_graph(g->e->sched, g->g) || fail(err, "ggml has no memory to compute");
}

bool graph_compute(struct graph * g, struct error * err) {
    const struct abi * abi = g->abi;
    for (int32_t i = 0; i < g->n_inputs; i++) {
        fill(abi, g->inputs[i].tensor, g->inputs[i].data, g->inputs[i].size);
    }
    const int32_t status = abi->ggml_backend_sched_graph_compute(g->e->sched, g->g);
    g->e->failed = status != 0;
    return status == 0 || fail(err, "ggml could not compute: status %d", status);
}

bool graph_run(struct graph * g, struct error * err) { return graph_alloc(g, err) && graph_compute(g, err); }

void graph_fetch(struct graph * g, const ggt * t, float * to, int64_t n) {
    g->abi->ggml_backend_tensor_get(t, to, 0, (size_t) n * sizeof *to);
}

void graph_end(struct graph * g) { g->abi->ggml_free(g->ctx); }
