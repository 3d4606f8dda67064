/* A recipe being carried out, from its file to the reply. */
#ifndef AGENT_JOB_H
#define AGENT_JOB_H

#include "abi.h"
#include "attention.h"
#include "cache.h"
#include "cuda.h"
#include "error.h"
#include "model.h"
#include "recipe.h"
#include "recompute.h"
#include "state.h"

struct job {
    const struct abi * abi;
    struct llama_context * ctx;
    struct recipe recipe;
    struct state * refs; /* n_refs */
    uint64_t turn;       /* agent_turn's */
    struct state made;
    struct cache cache;  /* in which made's rows lie, if they do */
    bool in_cache;
    struct state * residents; /* of refs, where rows lie in a device's memory */
    const struct cuda * cuda; /* where they lie in a device's memory, else null */
    int32_t device;
    int32_t brought; /* references that had to be brought to the device */
    struct error aside;  /* why they do not lie in the cache */
    bool no_cells;       /* why it failed: the server had none for the sequence */
    struct model * model;
    struct recomputed did;
    struct attention attention; /* of an answer, where one is drafted */
    const char * kernels; /* that computed; null where nothing was */
    double compose_ms, recompute_ms, restore_ms;
    char path[32]; /* of the memory file that holds made */
};

#endif
