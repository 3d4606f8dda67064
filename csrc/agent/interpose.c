/* The function that stands in for llama.cpp's own. It comes before it in the order of
 * symbol search, since the agent is loaded by LD_PRELOAD. */
#include "agent.h"
#include "recipe.h"

#include <stdio.h>

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
