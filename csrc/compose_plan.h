/* The work of one call of semshare_compose, cut up. */
#ifndef SEMSHARE_COMPOSE_PLAN_H
#define SEMSHARE_COMPOSE_PLAN_H

#include "internal.h"

#include <stdatomic.h>

/* A run as the work sees it: first is its number among all rows; turn is an index, -1
 * for none. */
struct span {
    int64_t first;
    int64_t ref, src, dst, len;
    int32_t turn;
};

struct spans {
    struct span * at;
    int64_t n;
    int64_t rows;
};

/* Rows (of transposed values: columns) first to first+count of one half of a job. */
struct item {
    int32_t job;
    bool values;
    int64_t first, count;
};

struct plan {
    const struct semshare_job * jobs;
    const struct semshare_rope * rope;
    struct spans keys, values;
    struct turn * turns;
    float * tables;
    struct item * items;
    int64_t n_items;
    const struct variant * variant;
    atomic_int status;
};

/* Fills in spans, turns and items; jobs, rope, variant and status are the caller's. Free it
 * in any case. */
int32_t plan_init(struct plan * p, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs);
void plan_free(struct plan * p);

/* Whether both sides of a job's values are columns. */
bool by_columns(const struct semshare_job * j);

#endif
