/* The functions that stand in for llama.cpp's own. They come before them in the order of
 * symbol search, since the agent is loaded by LD_PRELOAD. */
#include "agent.h"
#include "cache.h"
#include "recipe.h"
#include "saving.h"
#include "tokenized.h"

#include <stdio.h>
#include <stdlib.h>

#define EXPORTED __attribute__((visibility("default")))

static void not_found(const char * name) { fprintf(stderr, "semshare-agent: the real %s was not found\n", name); }

/* For functions that have no way to fail. */
_Noreturn static void end_without(const char * name) {
    not_found(name);
    abort();
}

EXPORTED size_t llama_state_seq_load_file(struct llama_context * ctx, const char * path, int32_t seq, int32_t * tokens, size_t capacity, size_t * count);

size_t llama_state_seq_load_file(struct llama_context * ctx, const char * path, int32_t seq, int32_t * tokens, size_t capacity, size_t * count) {
    const struct abi * abi = abi_of(__builtin_return_address(0));
    if (abi->load_file == NULL) {
        not_found("llama_state_seq_load_file");
        return 0;
    }
    return recipe_is(path) ? agent_restore(abi, ctx, path, seq, tokens, capacity, count) : abi->load_file(ctx, path, seq, tokens, capacity, count);
}

EXPORTED size_t llama_state_seq_save_file(struct llama_context * ctx, const char * path, int32_t seq, const int32_t * tokens, size_t n_tokens);

size_t llama_state_seq_save_file(struct llama_context * ctx, const char * path, int32_t seq, const int32_t * tokens, size_t n_tokens) {
    const struct abi * abi = abi_of(__builtin_return_address(0));
    if (abi->save_file == NULL) {
        not_found("llama_state_seq_save_file");
        return 0;
    }
    return abi->missing == NULL ? saving_keep(abi, ctx, path, seq, tokens, n_tokens) : abi->save_file(ctx, path, seq, tokens, n_tokens);
}

/* ---- the end of a context ---- */

EXPORTED void llama_free(struct llama_context * ctx);

/* A server that sleeps lets go of its model, to have the memory for others. */
void llama_free(struct llama_context * ctx) {
    const struct abi * abi = abi_of(__builtin_return_address(0));
    if (abi->free_context == NULL) {
        end_without("llama_free");
    }
    abi->free_context(ctx);
    agent_forget(abi);
}

/* ---- copies into tensors, and out of them ---- */

EXPORTED void ggml_backend_tensor_set(ggt * t, const void * data, size_t offset, size_t size);

void ggml_backend_tensor_set(ggt * t, const void * data, size_t offset, size_t size) {
    if (cache_notes(t, data, offset, size)) {
        return;
    }
    const struct abi * abi = abi_of(__builtin_return_address(0));
    if (abi->ggml_backend_tensor_set == NULL) {
        end_without("ggml_backend_tensor_set");
    }
    abi->ggml_backend_tensor_set(t, data, offset, size);
}

EXPORTED void ggml_backend_tensor_get(const ggt * t, void * data, size_t offset, size_t size);

void ggml_backend_tensor_get(const ggt * t, void * data, size_t offset, size_t size) {
    saving_notes(t, offset, size);
    const struct abi * abi = abi_of(__builtin_return_address(0));
    if (abi->ggml_backend_tensor_get == NULL) {
        end_without("ggml_backend_tensor_get");
    }
    abi->ggml_backend_tensor_get(t, data, offset, size);
}

/* ---- texts ---- */

EXPORTED int32_t llama_tokenize(const struct llama_vocab * vocab, const char * text, int32_t len, int32_t * tokens, int32_t capacity, bool add_special, bool parse_special);

int32_t llama_tokenize(const struct llama_vocab * vocab, const char * text, int32_t len, int32_t * tokens, int32_t capacity, bool add_special, bool parse_special) {
    const struct text t = {vocab, text, len, add_special, parse_special};
    int32_t n = tokenized_take(&t, tokens, capacity);
    if (n < 0) {
        const struct abi * abi = abi_of(__builtin_return_address(0));
        if (abi->tokenize == NULL) {
            end_without("llama_tokenize");
        }
        n = abi->tokenize(vocab, text, len, tokens, capacity, add_special, parse_special);
        tokenized_keep(&t, tokens, n);
    }
    return n;
}
