/*
 * Passages whose keys and values are all off in the same way, since what stands before
 * them is not what stood there when they were computed: how far, is measured at the
 * recipe's samples, which are computed anew, and taken off the other cells.
 *
 * Keys are compared turned back to position 0. Measured on documents in another order
 * (Qwen2.5-0.5B): half of what keys are off by is one vector a layer and passage, so
 * that a document as a whole drew too much attention or too little.
 */
#ifndef AGENT_SHIFT_H
#define AGENT_SHIFT_H

#include "recipe.h"
#include "rows.h"

/* Of one layer at a time. */
struct shift {
    const struct recipe * recipe;
    struct rows * rows;
    int32_t layer;
    uint32_t n_passages; /* numbered from 1; 0: the recipe has none */
    float * turns;       /* cosine and sine for each cell and pair: n_cells x dims */
    float * sums;        /* for each passage, of keys and of values: 2 x width */
    double * squares;    /* for each passage, of keys and of values: 2 */
    uint32_t * counts;   /* samples of each passage */
    float * row;         /* scratch: 2 x width */
    int32_t * cells, * pos, * vectors; /* scratch: which are shifted, by which passage */
    int32_t n_picked;
    float * old;         /* the picked cells' keys, then their values */
    struct semshare_rope rope;
};

/* Free it with shift_free, also after a failure. */
bool shift_init(struct shift * s, const struct recipe * recipe, struct rows * rows, struct error * err);
void shift_free(struct shift * s);

/* Begins a layer. */
void shift_begin(struct shift * s, int32_t layer);

/* Which of n cells, about to be computed, are samples: picked gets their places among the n,
 * and their keys and values are kept as they are before. *n_picked is 0 where none is. */
bool shift_pick(struct shift * s, const int32_t * cells, int32_t n, int32_t * picked, int32_t * n_picked, struct error * err);

/* Takes note of the picked ones' new keys and values. */
void shift_observe(struct shift * s, const float * k, const float * v);

/* Ends the layer's observations: shifts the cells for which computed is 0. */
bool shift_apply(struct shift * s, const uint8_t * computed, struct error * err);

#endif
