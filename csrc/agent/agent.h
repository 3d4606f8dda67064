/* Carries out a recipe inside the server. */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "abi.h"

enum { AGENT_VERSION = 1 };

/* What llama_state_seq_load_file does, for a recipe: composes the state, computes what
 * the recipe says, and has the real function restore the result. Returns 0, the
 * sequence untouched or emptied by the real function, where it fails. Beside the recipe
 * it leaves a JSON file with ".reply" appended to the name, which says what was done,
 * how long it took, or why it failed. */
size_t agent_restore(const struct abi * abi, const char * missing, struct llama_context * ctx, const char * path, int32_t seq, int32_t * tokens, size_t capacity, size_t * count);

#endif
