/*
 * What the server saves, kept on the device as well: while it copies the rows of a sequence
 * out of its cache, by ggml_backend_tensor_get, for which the agent stands in, the agent
 * notes where they lie, and copies them to a resident afterwards.
 */
#ifndef AGENT_SAVING_H
#define AGENT_SAVING_H

#include "abi.h"

/* Notes a copy out of a tensor on a device, where this thread is saving. */
void saving_notes(const ggt * t, size_t offset, size_t size);

/* Has the real function save the sequence to a file, and keeps what it saved. Returns what
 * it returned: keeping may fail, and nothing is lost. */
size_t saving_keep(const struct abi * abi, struct llama_context * ctx, const char * path, int32_t seq, const int32_t * tokens, size_t n_tokens);

#endif
