/* Cells with a score, of which the highest are taken. */
#ifndef AGENT_SCORED_H
#define AGENT_SCORED_H

#include <stdint.h>
#include <stdlib.h>

struct scored {
    float score;
    int32_t cell;
};

/* For qsort: the highest score first, of equal ones the earliest cell. */
static inline int by_score(const void * a, const void * b) {
    const struct scored * x = a, * y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : x->cell - y->cell;
}

/* Marks those of n cells that have the highest scores, at most want; returns how many.
 * marks has a member for each cell of the recipe. */
static inline uint32_t mark_highest(struct scored * cells, uint32_t n, uint32_t want, uint8_t * marks) {
    const uint32_t taken = want < n ? want : n;
    qsort(cells, n, sizeof *cells, by_score);
    for (uint32_t i = 0; i < taken; i++) {
        marks[cells[i].cell] = 1;
    }
    return taken;
}

#endif
