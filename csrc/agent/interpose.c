/* The functions that stand in for llama.cpp's own. They come before them in the order of
 * symbol search, since the agent is loaded by LD_PRELOAD. */
#include "agent.h"
#include "cache.h"
#include "recipe.h"
#include "saving.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

__attribute__((visibility("default"))) size_t llama_state_seq_load_file(struct llama_context * ctx, const char * path, int32_t seq, int32_t * tokens, size_t capacity, size_t * count);

size_t llama_state_seq_load_file(struct llama_context * ctx, const char * path, int32_t seq, int32_t * tokens, size_t capacity, size_t * count) {
    const char * missing = NULL;
    struct abi abi;
    const bool complete = abi_find(&abi, __builtin_return_address(0), &missing);
    if (abi.load_file == NULL) {
        fprintf(stderr, "semshare-agent: the real llama_state_seq_load_file was not found\n");
        return 0;
    }
    if (!recipe_is(path)) {
        return abi.load_file(ctx, path, seq, tokens, capacity, count);
    }
    return agent_restore(&abi, complete ? NULL : missing, ctx, path, seq, tokens, capacity, count);
}

__attribute__((visibility("default"))) size_t llama_state_seq_save_file(struct llama_context * ctx, const char * path, int32_t seq, const int32_t * tokens, size_t n_tokens);

size_t llama_state_seq_save_file(struct llama_context * ctx, const char * path, int32_t seq, const int32_t * tokens, size_t n_tokens) {
    const char * missing = NULL;
    struct abi abi;
    const bool complete = abi_find(&abi, __builtin_return_address(0), &missing);
    if (abi.save_file == NULL) {
        fprintf(stderr, "semshare-agent: the real llama_state_seq_save_file was not found\n");
        return 0;
    }
    return complete ? saving_keep(&abi, ctx, path, seq, tokens, n_tokens) : abi.save_file(ctx, path, seq, tokens, n_tokens);
}

/* ---- copies into tensors, and out of them ---- */

/* Where the server calls from, and the real function for it. There are few such places,
 * and they come by with every token. */
struct caller {
    void * address;
    void * real;
    struct caller * next;
};

static _Atomic(struct caller *) callers;

/* They have no way to fail. */
static void * not_found(const char * name) {
    fprintf(stderr, "semshare-agent: the real %s was not found\n", name);
    abort();
}

static void * real_for(void * address, const char * name) {
    struct caller * first = atomic_load_explicit(&callers, memory_order_acquire);
    for (struct caller * c = first; c != NULL; c = c->next) {
        if (c->address == address) {
            return c->real;
        }
    }
    void * real = abi_real(address, name);
    struct caller * c = real == NULL ? not_found(name) : malloc(sizeof *c);
    if (c != NULL) {
        *c = (struct caller) {address, real, first};
        while (!atomic_compare_exchange_weak(&callers, &c->next, c)) {
        }
    }
    return real;
}

__attribute__((visibility("default"))) void ggml_backend_tensor_set(ggt * t, const void * data, size_t offset, size_t size);

void ggml_backend_tensor_set(ggt * t, const void * data, size_t offset, size_t size) {
    if (cache_notes(t, data, offset, size)) {
        return;
    }
    tensor_set_fn real;
    *(void **) &real = real_for(__builtin_return_address(0), "ggml_backend_tensor_set");
    real(t, data, offset, size);
}

__attribute__((visibility("default"))) void ggml_backend_tensor_get(const ggt * t, void * data, size_t offset, size_t size);

void ggml_backend_tensor_get(const ggt * t, void * data, size_t offset, size_t size) {
    saving_notes(t, offset, size);
    tensor_get_fn real;
    *(void **) &real = real_for(__builtin_return_address(0), "ggml_backend_tensor_get");
    real(t, data, offset, size);
}
