/*
 * Computes parts of the model's layers for any set of tokens, with ggml, on the devices
 * that hold the weights. What goes from layer to layer, a row a token, stays there: rows
 * names it, rows[i] being where the i-th token of a call keeps its own.
 */
#ifndef AGENT_ENGINE_H
#define AGENT_ENGINE_H

#include "model.h"

enum {
    ENGINE_MAX_BACKENDS = 16,
    ENGINE_MAX_BATCH = 512, /* rows of one call */
    ENGINE_MAX_STRETCH = 64, /* layers of one graph */
    ENGINE_CELL_PAD = 256, /* a graph reads so many cells, or a multiple: some of ggml's kernels want it */
};

/* RoPE as ggml takes it. */
struct rope {
    bool neox;
    int32_t dims, orig_ctx;
    float freq_base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow;
};

/* Keys and values of a layer, one row a cell, as the graph reads them: in tensors of the
 * server's, from their cell first on, or where those are null in the host's memory. */
struct cached {
    int32_t k_type, v_type;
    const uint8_t * k, * v;
    ggt * k_tensor, * v_tensor;
    int64_t first;
    int64_t cells;
};

struct engine {
    const struct abi * abi;
    const struct model * model;
    struct rope rope;
    ggml_backend_sched_t sched;
    bool on_cpu; /* alone */
    int32_t n_threads;
    bool failed; /* what it computes on is not to be trusted any more */
    /* What goes from layer to layer: n_embd x capacity floats. */
    ggctx * holder;
    ggt * x;
    void * buffer;
    int64_t capacity;
    struct grouping * grouping; /* of the last batch; see layer.h */
    void * arena; /* memory of a graph's description */
    void * jobs; /* of a graph's custom tensors */
    char * scratch; /* of kernels of our own: scratch_size bytes for each thread */
    size_t scratch_size;
    bool own_kernels; /* stand in for ggml's where there are any: on a CPU alone */
    size_t arena_size;
};

/* Makes an engine; the model must outlive it. Free it with engine_free, also after a
 * failure. Callers hold the agent's lock: devices and their memory are kept for the next. */
bool engine_init(struct engine * e, const struct abi * abi, const struct model * model, const struct rope * rope, int32_t n_threads, struct error * err);
void engine_free(struct engine * e);

/* Lets go of the devices. Callers hold the agent's lock, and no engine is in use. */
void engine_forget(const struct abi * abi);

/* A thread's own. */
static inline void * engine_scratch(const struct engine * e, int thread) { return e->scratch + (size_t) thread * e->scratch_size; }

/* Makes room for n rows, which hold anything. */
bool engine_hold(struct engine * e, int64_t n, struct error * err);

/* The rows become the tokens' embeddings. It fails for a token that the model does not
 * have. */
bool engine_embed(struct engine * e, const int32_t * tokens, const int32_t * rows, int32_t n, struct error * err);

/* k, v: n rows of n_heads_kv * head_dim; keys are turned to their positions. */
bool engine_keys(struct engine * e, int32_t layer, const int32_t * rows, const int32_t * pos, int32_t n, float * k, float * v, struct error * err);

/* The same, but they go into cells, ascending, of what is cached in tensors; k and v get
 * those of n_picked tokens, picked[i] being the i-th. */
bool engine_store(struct engine * e, int32_t layer, const int32_t * rows, const int32_t * pos, const int32_t * cells, int32_t n, const struct cached * cached, const int32_t * picked, int32_t n_picked, float * k, float * v, struct error * err);

/* The rows become the layer's output, for n tokens. Token i attends to the cells before
 * visible[i] of cached, which must hold the token's own. visible must ascend. Where not
 * null, attention is for one token alone, n = 1, and gets how it shares out its attention:
 * for each of n_heads a row of visible[0] floats that add up to 1. */
bool engine_layer(struct engine * e, int32_t layer, const int32_t * rows, const int32_t * pos, const int32_t * visible, int32_t n, const struct cached * cached, float * attention, struct error * err);

/* The token that is likeliest to follow, of the last layer's output in a row. */
bool engine_likeliest(struct engine * e, int32_t row, int32_t * token, struct error * err);

#endif
