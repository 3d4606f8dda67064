/* The server's model: its weights by name, and the numbers that its graph needs. */
#ifndef AGENT_MODEL_H
#define AGENT_MODEL_H

#include "abi.h"
#include "error.h"

enum { MODEL_MAX_LAYERS = 512 };

/* Weights of a layer, and nothing else; biases and the norms of q and k may be null. */
struct weights {
    ggt *attn_norm, *q_norm, *k_norm, *ffn_norm;
    ggt *wq, *wk, *wv, *wo, *bq, *bk, *bv, *bo;
    ggt *gate, *up, *down, *gate_b, *up_b, *down_b;
};

struct model {
    char arch[32];
    int32_t n_layers, n_embd, n_heads, n_heads_kv, head_dim;
    float eps;   /* of RMSNorm */
    float scale; /* of attention */
    ggt * embeddings; /* in host memory, not repacked */
    ggt * output_norm, * output; /* output may be the embeddings */
    ggt * rope_factors; /* by which RoPE's frequencies are divided; null where there are none */
    struct weights layers[MODEL_MAX_LAYERS];
};

/* Reads the model of a context. It fails, saying why, for a model whose layers are not
 * those of a dense llama, qwen2 or qwen3. The weights stay the server's. */
bool model_read(struct model * m, const struct abi * abi, const struct llama_model * from, int32_t head_dim, struct error * err);

#endif
