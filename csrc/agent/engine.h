/*
 * Computes parts of the model's layers for any set of tokens, with ggml, on the devices
 * that hold the weights. Matrices are rows of floats, one row a token.
 */
#ifndef AGENT_ENGINE_H
#define AGENT_ENGINE_H

#include "model.h"

enum {
    ENGINE_MAX_BACKENDS = 16,
    ENGINE_MAX_BATCH = 512, /* rows of one call */
    ENGINE_MAX_STRETCH = 64, /* layers of one graph */
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
    bool failed; /* what it computes on is not to be trusted any more */
    void * arena; /* memory of a graph's description */
    size_t arena_size;
};

/* Makes an engine; the model must outlive it. Free it with engine_free, also after a
 * failure. Callers hold the agent's lock: devices and their memory are kept for the next. */
bool engine_init(struct engine * e, const struct abi * abi, const struct model * model, const struct rope * rope, int32_t n_threads, struct error * err);
void engine_free(struct engine * e);

/* x: n rows of n_embd. It fails for a token that the model does not have. */
bool engine_embed(struct engine * e, const int32_t * tokens, int32_t n, float * x, struct error * err);

/* k, v: n rows of n_heads_kv * head_dim; keys are turned to their positions. */
bool engine_keys(struct engine * e, int32_t layer, const float * x, const int32_t * pos, int32_t n, float * k, float * v, struct error * err);

/* The layer's output, in place of x, for n tokens. Row i attends to the cells before
 * visible[i] of cached, which must hold the token's own. visible must ascend. Where not
 * null, attention is for one token alone, n = 1, and gets how it shares out its attention:
 * for each of n_heads a row of visible[0] floats that add up to 1. */
bool engine_layer(struct engine * e, int32_t layer, float * x, const int32_t * pos, const int32_t * visible, int32_t n, const struct cached * cached, float * attention, struct error * err);

/* Tokens that go through layers from to to-1. Their keys and values go into cells of what
 * is cached, in tensors, for each of these layers. In the last of them, where kept is not
 * null, only the rows that it names, ascending, go on. */
struct stretch {
    int32_t from, to; /* at most ENGINE_MAX_STRETCH layers */
    int32_t n;
    const int32_t * cells, * pos, * visible;
    int32_t n_kept;
    const int32_t * kept, * kept_pos, * kept_visible;
    const struct cached * cached; /* of layer from and those that follow */
    /* Of one token, where not null: how it shares out its attention, summed over heads and
     * over the layers from looks_from on; visible[0] floats. */
    float * attention;
    int32_t looks_from;
};

/* In one graph: x, n rows, becomes the input to layer to, of those that go on. Behind the
 * model's last layer nothing is computed where n_kept is 0. */
bool engine_stretch(struct engine * e, const struct stretch * s, float * x, struct error * err);

/* The token that is likeliest to follow, of the last layer's output for one. */
bool engine_likeliest(struct engine * e, const float * x, int32_t * token, struct error * err);

#endif
