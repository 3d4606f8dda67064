/* Rows of a state's layer as floats: what is computed goes in, what is cached comes out. */
#ifndef AGENT_ROWS_H
#define AGENT_ROWS_H

#include "engine.h"
#include "state.h"

/* Buffers for the layers of one state. */
struct rows {
    struct state * state;
    int32_t width; /* elements of a row, of keys as of values */
    float * one, * two; /* a row each */
    float * column;     /* one element of all cells */
    uint16_t * k16, * v16; /* a layer as the graph reads it, where it cannot read it as it lies */
};

/* Checks that each layer holds rows of width elements, and takes memory. Free it with
 * rows_free, also after a failure. */
bool rows_init(struct rows * r, struct state * s, int32_t width, struct error * err);
void rows_free(struct rows * r);

void rows_put_keys(struct rows * r, int32_t layer, int32_t cell, const float * k);
void rows_put_values(struct rows * r, int32_t layer, int32_t cell, const float * v);

/* What is cached as the cell's keys and values. */
void rows_get_keys(struct rows * r, int32_t layer, int32_t cell, float * k);
void rows_get_values(struct rows * r, int32_t layer, int32_t cell, float * v);

/* Adds a row to the cell's keys. */
void rows_add_keys(struct rows * r, int32_t layer, int32_t cell, const float * d);

/* Adds the row d[c], turned as the cache turns values, to those of each cell c for which
 * it is not null. */
void rows_add_values(struct rows * r, int32_t layer, const float * const * d);

/* Squared distance of what is cached as the cell's values from v; *norm gets v's square. */
float rows_deviation(struct rows * r, int32_t layer, int32_t cell, const float * v, float * norm);

/* The layer for the graph. What it points to is valid until the next call or put. */
struct cached rows_cached(struct rows * r, int32_t layer);

#endif
