/* Rows of a state's layer as floats: what is computed goes in, what is cached comes out. */
#ifndef AGENT_ROWS_H
#define AGENT_ROWS_H

#include "cache.h"
#include "cuda.h"
#include "engine.h"
#include "state.h"

/* Where the rows of a state lie, and buffers for its layers. */
struct rows {
    struct state * state;
    const struct cache * cache; /* of which they are part; null where they are not */
    const struct cuda * cuda;   /* where they lie in a device's memory, else null */
    int32_t device;
    int32_t width; /* elements of a row, of keys as of values */
    float * one, * two, * key; /* a row each */
    float * column;     /* one element of all cells */
    uint16_t * k16, * v16; /* a layer as the graph reads it, where it cannot read it as it lies */
};

/* Checks that each layer holds rows of width elements, and takes memory. state, cache,
 * cuda and device are set. Free it with rows_free, also after a failure. */
bool rows_init(struct rows * r, int32_t width, struct error * err);
void rows_free(struct rows * r);

/* Whether rows are numbers that a graph takes as they lie: not packed, not turned, not in
 * columns. */
bool rows_plain(const struct state * s);

/* Rows of n cells: k and v are n rows of width floats. */
bool rows_put(struct rows * r, int32_t layer, const int32_t * cells, int32_t n, const float * k, const float * v, struct error * err);

/* What is cached as the cells' keys and values; k may be null. */
bool rows_get(struct rows * r, int32_t layer, const int32_t * cells, int32_t n, float * k, float * v, struct error * err);

/* What is added to a cell's keys and values. */
struct added {
    const int32_t * cells, * pos; /* n of them, and their positions */
    const int32_t * vectors;      /* which vector each cell gets */
    int32_t n, n_vectors;
    const float * sums;           /* for each vector, of keys at position 0 and of values: 2 x width */
    const struct semshare_rope * rope;
    void (*turn)(const void * of, int32_t cell, float * k); /* from position 0 to the cell's */
    const void * of;
};

bool rows_add(struct rows * r, int32_t layer, const struct added * a, struct error * err);

/* Whether the graph can write and read the rows where they lie. */
bool rows_in_graph(const struct rows * r);

/* The layer for the graph. What it points to is valid until the next call or put. */
struct cached rows_cached(struct rows * r, int32_t layer);

#endif
