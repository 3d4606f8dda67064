/* Carries out a recipe inside the server. */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "abi.h"

enum { AGENT_VERSION = 1 };

/* What llama_state_seq_load_file does, for a recipe: composes the rows in the server's
 * cache and computes there what the recipe says; where they cannot be made there (see
 * cache.h) the real function restores the result. Returns 0, the sequence empty or
 * untouched, where it fails. Into the file of the recipe's name with ".reply" appended, which
 * must be there, it writes as JSON what was done, how long it took, or why it failed. */
size_t agent_restore(const struct abi * abi, struct llama_context * ctx, const char * path, int32_t seq, int32_t * tokens, size_t capacity, size_t * count);

/* What the agent keeps between recipes belongs to who holds its lock. */
void agent_lock(void);
void agent_unlock(void);

/* Begins the next recipe or saving, and returns its number, which is greater than all
 * before. The caller holds the lock. */
uint64_t agent_turn(void);

/* Gives back what is kept from one recipe to the next: memory, devices, references on them. */
void agent_forget(const struct abi * abi);

#endif
