/* A ggml graph on the engine's devices: made, given its inputs, run, and read. */
#ifndef AGENT_GRAPH_H
#define AGENT_GRAPH_H

#include "engine.h"

enum {
    GRAPH_MAX_NODES = 12288, /* of ENGINE_MAX_STRETCH layers, with LAYER_MAX_GROUPS each */
    GRAPH_MAX_INPUTS = 32,
    GRAPH_JOB = 96,
};

/* A graph being built, and what to put into it once it has memory. */
struct graph {
    struct engine * e;
    const struct abi * abi;
    ggctx * ctx;
    struct ggml_cgraph * g;
    struct {
        ggt * tensor;
        const void * data;
        size_t size;
    } inputs[GRAPH_MAX_INPUTS];
    int32_t n_inputs;
    int64_t longs[2][ENGINE_MAX_BATCH]; /* indices as ggml_set_rows takes them */
    int32_t n_longs;
    int32_t n_jobs;
    bool out_of_memory; /* while it was built */
    ggt * packed_from, * packed; /* the last rows that were, and how: see linear.c */
    int32_t packing;
};

/* Ended with graph_end; not where it fails. One at a time: the engine lends its memory. */
bool graph_begin(struct graph * g, struct engine * e, struct error * err);
void graph_end(struct graph * g);

/* An input of size bytes, which must stay until the graph has run; what they do not fill
 * is zero. */
ggt * graph_input(struct graph * g, ggt * t, const void * data, size_t size);
ggt * graph_ints(struct graph * g, const int32_t * x, int64_t n);

/* Indices as ggml_set_rows takes them, copied: of two such inputs at most. */
ggt * graph_longs(struct graph * g, const int32_t * x, int64_t n);

/* What goes from layer to layer: taken from its rows, and put back into them. */
ggt * graph_take(struct graph * g, const int32_t * rows, int64_t n);
void graph_give(struct graph * g, const int32_t * rows, int64_t n, ggt * x);

/* A tensor that run computes of args, on ggml's threads; it gets a copy of a job of size
 * bytes, at most GRAPH_JOB. */
ggt * graph_custom(struct graph * g, int32_t type, int64_t ne0, int64_t ne1, ggt ** args, int n_args, custom_op_fn run, const void * job, size_t size);

/* Has the graph compute a tensor, so that it can be fetched: its first n floats. */
void graph_want(struct graph * g, ggt * t);
void graph_fetch(struct graph * g, const ggt * t, float * to, int64_t n);

/* Takes memory for the graph, and computes it, any number of times; or both once. */
bool graph_alloc(struct graph * g, struct error * err);
bool graph_compute(struct graph * g, struct error * err);
bool graph_run(struct graph * g, struct error * err);

#endif
