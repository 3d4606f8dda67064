/* The functions that stand in for llama.cpp's own. They come before them in the order of
 * symbol search, since the agent is loaded by LD_PRELOAD. */
#include "agent.h"
#include "cache.h"
#include "recipe.h"

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

/* ---- copies into tensors ---- */

/* Where the server calls from, and the real function for it. There are few such places,
 * and they come by with every token. */
struct caller {
    void * address;
    tensor_set_fn real;
    struct caller * next;
};

static _Atomic(struct caller *) callers;

static tensor_set_fn real_tensor_set(void * address) {
    struct caller * first = atomic_load_explicit(&callers, memory_order_acquire);
    for (struct caller * c = first; c != NULL; c = c->next) {
        if (c->address == address) {
            return c->real;
        }
    }
    tensor_set_fn real;
    *(void **) &real = abi_real(address, "ggml_backend_tensor_set");
    struct caller * c = real == NULL ? NULL : malloc(sizeof *c);
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
    const tensor_set_fn real = real_tensor_set(__builtin_return_address(0));
    if (real == NULL) {
        fprintf(stderr, "semshare-agent: the real ggml_backend_tensor_set was not found\n");
        abort(); /* it has no way to fail */
    }
    real(t, data, offset, size);
}
