/*
 * The server's own cache: in which of its cells a sequence lies. No function of llama.cpp
 * tells it. But where a state is restored, the server finds cells for it and then copies
 * rows into the tensors of its cache by ggml_backend_tensor_set, for which the agent
 * stands in: it notes where each row would have gone, and copies nothing. What goes there
 * is then made there, without a copy through a state.
 */
#ifndef AGENT_CACHE_H
#define AGENT_CACHE_H

#include "abi.h"
#include "state.h"

struct cache {
    const struct state * made; /* whose rows are looked for */
    const struct abi * abi;
    ggt * k[STATE_MAX_LAYERS], * v[STATE_MAX_LAYERS];
    int64_t first;   /* the cell that holds the sequence's first; -1 until it is known */
    int64_t stride;  /* cells of a tensor */
    int64_t noted_k, noted_v; /* bytes that went past */
    bool scattered;  /* not one run of cells, the same in all layers */
    bool no_cells;   /* the server had none for the sequence */
};

/* Empties the sequence, has the server find cells for those of made, which state_write has
 * written but for its rows, and has made's rows lie in them. It fails, and leaves the
 * sequence empty, where they are not one run of cells. Rows hold anything. */
bool cache_find(struct cache * c, const struct abi * abi, struct llama_context * ctx, int32_t seq, struct state * made, struct error * err);

/* Whether a copy into a tensor is one that this thread's cache_find looks for. */
bool cache_notes(ggt * t, const void * data, size_t offset, size_t size);

#endif
