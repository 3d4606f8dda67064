/* The pieces of a layer as parts of a graph. */
#ifndef AGENT_LAYER_H
#define AGENT_LAYER_H

#include "graph.h"

enum {
    LAYER_ROW_PAD = 64, /* rows of a mask; older ggml insists */
    LAYER_TILE = 64,    /* rows from which on ggml's attention is fast on a CPU */
    LAYER_MAX_GROUPS = ENGINE_MAX_BATCH / LAYER_TILE,
};

/* What is cached, rows n_heads_kv x head_dim wide: a tensor, and the cell it begins with. */
struct source {
    ggt * tensor;
    int64_t first;
};

/* Of a tensor or, where that is null, of rows of a type in the host's memory. */
struct source layer_source(struct graph * g, ggt * tensor, int64_t first, int32_t type, const uint8_t * rows, int64_t cells);

/* Keys, turned to their positions, and values of tokens with input x. */
void layer_keys(struct graph * g, const struct weights * w, ggt * x, ggt * pos, ggt ** k, ggt ** v);

/* Writes rows into the first cells of a tensor, at those that to names. Reading them does
 * not depend on it in the graph: so it must stand there first. */
void layer_store(struct graph * g, struct source cache, int64_t cells, ggt * rows, ggt * to);

/* Queries that attend together: n tokens of a batch, and what hides cells from them. Each
 * token is a row of every head, or, where heads that share their keys stand below one
 * another, so many rows (stacked) of every head of keys. Padding makes them rows. */
struct group {
    int64_t first, n, stacked, rows, cells;
    const int32_t * visible; /* of its tokens; must stay until the graph has run */
    uint16_t * hidden;
    ggt * mask; /* of hidden, in the graph; the same for all its layers */
};

/* Cuts a batch into groups, so that each attends to little more than it sees: the rows of
 * a recipe may stand anywhere in the prompt, and what a mask hides is computed all the
 * same. Returns how many. Free them, LAYER_MAX_GROUPS, zero before, with
 * layer_free_groups. */
int32_t layer_groups(const struct engine * e, struct group * groups, const int32_t * visible, int32_t n);
void layer_free_groups(struct group * groups);

/* Rows of the group's mask. */
int64_t layer_mask_rows(const struct group * group);

/* The groups of a batch, which the engine keeps until another batch's are asked for: layer
 * after layer has the same, and of many tokens the masks are some megabytes. */
struct grouping {
    int32_t n, n_groups;
    int32_t visible[ENGINE_MAX_BATCH];
    struct group groups[LAYER_MAX_GROUPS];
};

/* For one graph at a time. Null without memory. */
struct grouping * layer_grouping(struct engine * e, const int32_t * visible, int32_t n);
void layer_free_grouping(struct engine * e);

/* Queries of tokens with input x. */
ggt * layer_queries(struct graph * g, const struct weights * w, ggt * x, ggt * pos);

/* How one token shares out its attention over the first cells: cells x heads that share
 * their keys x heads of keys. What it does not see of them visible tells, and mask where
 * ggml attends; null hides nothing. */
ggt * layer_shares(struct graph * g, ggt * q, struct source k, int64_t cells, const int32_t * visible, ggt * mask);

/* What the layer puts out for tokens with input x and queries q. */
ggt * layer_output(struct graph * g, const struct weights * w, ggt * x, ggt * q, struct group * groups, int32_t n_groups, struct source k, struct source v);

/* What the model makes of the last layer's output, and the likeliest of n tokens by it. */
ggt * layer_logits(struct graph * g, ggt * x);
int32_t layer_likeliest(const float * logits, int64_t n);

#endif
