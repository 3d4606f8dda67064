/* Attention by a kernel of our own, as part of a graph. */
#ifndef AGENT_FLASH_H
#define AGENT_FLASH_H

#include "graph.h"

/* Queries, head_dim x heads x tokens, over keys and values, head_dim x cells x heads of
 * keys; visible[i] of the cells are seen by token i, which must stay until the graph has
 * run. heads * head_dim x tokens come out. Null where ggml's own is to be taken. */
ggt * flash(struct graph * g, ggt * q, ggt * k, ggt * v, const int32_t * visible);

/* How one token shares out its attention over its first visible[0] cells, head by head:
 * cells x heads, zero where it sees none. */
ggt * flash_shares(struct graph * g, ggt * q, ggt * k, const int32_t * visible);

#endif
