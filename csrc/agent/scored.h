/* Cells with a score, to be sorted. */
#ifndef AGENT_SCORED_H
#define AGENT_SCORED_H

#include <stdint.h>

struct scored {
    float score;
    int32_t cell;
};

/* For qsort: the highest score first, of equal ones the earliest cell. */
static inline int by_score(const void * a, const void * b) {
    const struct scored * x = a, * y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : x->cell - y->cell;
}

#endif
