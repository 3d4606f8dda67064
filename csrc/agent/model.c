#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whose layers are: RMSNorm, attention with RoPE (q and k normed where there are
 * weights for it), RMSNorm, gated MLP with SiLU; each added to its input. */
static const char * const architectures[] = {"llama", "qwen2", "qwen3"};

/* What may stand in a layer, and where. Anything else in one means that the model does
 * more than the agent knows. */
static const struct {
    const char * name;
    size_t field;
    bool required;
} known[] = {
#define FIELD(name, field, required) {name, offsetof(struct weights, field), required}
    FIELD("attn_norm.weight", attn_norm, true),
    FIELD("attn_q.weight", wq, true),
    FIELD("attn_k.weight", wk, true),
    FIELD("attn_v.weight", wv, true),
    FIELD("attn_output.weight", wo, true),
    FIELD("attn_q.bias", bq, false),
    FIELD("attn_k.bias", bk, false),
    FIELD("attn_v.bias", bv, false),
    FIELD("attn_output.bias", bo, false),
    FIELD("attn_q_norm.weight", q_norm, false),
    FIELD("attn_k_norm.weight", k_norm, false),
    FIELD("ffn_norm.weight", ffn_norm, true),
    FIELD("ffn_gate.weight", gate, true),
    FIELD("ffn_up.weight", up, true),
    FIELD("ffn_down.weight", down, true),
    FIELD("ffn_gate.bias", gate_b, false),
    FIELD("ffn_up.bias", up_b, false),
    FIELD("ffn_down.bias", down_b, false),
#undef FIELD
};

enum { N_KNOWN = sizeof known / sizeof known[0] };

static ggt ** slot(struct weights * w, int i) { return (ggt **) (void *) ((char *) w + known[i].field); }

/* ---- numbers ---- */

/* A number of the model's metadata, without the architecture's name in front; or
 * otherwise where there is none. */
static float meta_number(const struct model * m, const struct abi * abi, const struct llama_model * from, const char * key, float otherwise) {
    char name[128], value[64];
    snprintf(name, sizeof name, "%s.%s", m->arch, key);
    return abi->llama_model_meta_val_str(from, name, value, sizeof value) < 0 ? otherwise : strtof(value, NULL);
}

static bool read_arch(struct model * m, const struct abi * abi, const struct llama_model * from, struct error * err) {
    if (abi->llama_model_meta_val_str(from, "general.architecture", m->arch, sizeof m->arch) < 0) {
        return fail(err, "the model does not name its architecture");
    }
    for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; i++) {
        if (strcmp(m->arch, architectures[i]) == 0) {
            return true;
        }
    }
    return fail(err, "architecture %s: the agent knows llama, qwen2 and qwen3", m->arch);
}

static bool read_numbers(struct model * m, const struct abi * abi, const struct llama_model * from, struct error * err) {
    static const char * const scales[] = {"embedding_scale", "residual_scale", "attention.clamp_kqv", "attention.max_alibi_bias", "attention.temperature_scale", "attn_logit_softcapping"};
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++) {
        if (meta_number(m, abi, from, scales[i], 0) != 0) {
            return fail(err, "the model has %s.%s, which the agent does not know", m->arch, scales[i]);
        }
    }
    m->n_layers = abi->llama_model_n_layer(from);
    m->n_embd = abi->llama_model_n_embd(from);
    m->n_heads = abi->llama_model_n_head(from);
    m->n_heads_kv = abi->llama_model_n_head_kv(from);
    m->eps = meta_number(m, abi, from, "attention.layer_norm_rms_epsilon", 0);
    m->scale = meta_number(m, abi, from, "attention.scale", 0);
    if (m->scale == 0) {
        m->scale = 1 / sqrtf((float) m->head_dim);
    }
    if (m->n_layers < 1 || m->n_layers > MODEL_MAX_LAYERS || m->n_embd < 1 || m->n_heads < 1 || m->n_heads_kv < 1 || m->n_heads % m->n_heads_kv != 0 || !(m->eps > 0)) {
        return fail(err, "%d layers, %d embedding elements, %d heads, %d KV heads, epsilon %g: not a model that the agent knows", m->n_layers, m->n_embd, m->n_heads, m->n_heads_kv, (double) m->eps);
    }
    return true;
}

/* ---- weights ---- */

/* Whether rows can be taken from a table where it lies: not on a device, and not where ggml
 * has repacked it for products. */
static bool plain(const struct abi * abi, const ggt * t) { return t->buffer != NULL && abi->ggml_backend_buffer_is_host(t->buffer); }

/* Where a model's output is computed by its embeddings, llama.cpp may have them twice under
 * one name: to take rows from, and for the product, repacked or on a device. */
static void keep_table(struct model * m, const struct abi * abi, ggt * t) {
    ggt * other = t;
    if (m->embeddings == NULL || plain(abi, t)) {
        other = m->embeddings;
        m->embeddings = t;
    }
    if (m->output == NULL) {
        m->output = other;
    }
}

static bool keep(struct model * m, const struct abi * abi, const char * name, ggt * t, struct error * err) {
    int32_t layer;
    int end = 0;
    if (strcmp(name, "token_embd.weight") == 0) {
        keep_table(m, abi, t);
        return true;
    }
    const struct {
        const char * name;
        ggt ** to;
    } outside[] = {{"output_norm.weight", &m->output_norm}, {"output.weight", &m->output}, {"rope_freqs.weight", &m->rope_factors}};
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        if (strcmp(name, outside[i].name) == 0) {
            *outside[i].to = t;
            return true;
        }
    }
    if (sscanf(name, "blk.%d.%n", &layer, &end) != 1 || end == 0) {
        return strncmp(name, "rope_factors", 12) != 0 || fail(err, "the model has %.64s, which the agent does not know", name);
    }
    if (layer < 0 || layer >= m->n_layers) {
        return fail(err, "the model has %.64s and %d layers", name, m->n_layers);
    }
    for (int i = 0; i < N_KNOWN; i++) {
        if (strcmp(name + end, known[i].name) == 0) {
            *slot(&m->layers[layer], i) = t;
            return true;
        }
    }
    return fail(err, "the model has %.64s, which the agent does not know", name);
}

/* Walks the vector of pairs (std::string, tensor): both kinds of strings begin with a
 * pointer to the characters, and the tensor is the entry's last word. */
static bool read_weights(struct model * m, const struct abi * abi, const struct llama_model * from, struct error * err) {
    const char * const * vector = abi->tensor_map(from);
    const char * begin = vector[0], * end = vector[1];
    const size_t entry = abi->tensor_map_entry;
    if (begin == NULL || end < begin || (size_t) (end - begin) % entry != 0) {
        return fail(err, "the server's map of tensors is not laid out as expected");
    }
    for (; begin < end; begin += entry) {
        const char * name;
        ggt * tensor;
        memcpy(&name, begin, sizeof name);
        memcpy(&tensor, begin + entry - sizeof tensor, sizeof tensor);
        if (!keep(m, abi, name, tensor, err)) {
            return false;
        }
    }
    return true;
}

static bool shaped(const ggt * t, int64_t in, int64_t out) {
    return t == NULL || (t->buffer != NULL && t->ne[0] == in && t->ne[1] == out && t->ne[2] == 1 && t->ne[3] == 1);
}

/* Checks shapes, since ggml ends the process where they do not fit. */
static bool check_layer(const struct model * m, const struct weights * w, int32_t layer, struct error * err) {
    for (int i = 0; i < N_KNOWN; i++) {
        if (known[i].required && *slot((struct weights *) (uintptr_t) w, i) == NULL) {
            return fail(err, "the model has no blk.%d.%s", layer, known[i].name);
        }
    }
    const int64_t q = (int64_t) m->n_heads * m->head_dim, kv = (int64_t) m->n_heads_kv * m->head_dim, e = m->n_embd, ff = w->gate->ne[1];
    const bool ok = shaped(w->attn_norm, e, 1) && shaped(w->ffn_norm, e, 1) && shaped(w->q_norm, m->head_dim, 1) && shaped(w->k_norm, m->head_dim, 1) &&
                    shaped(w->wq, e, q) && shaped(w->wk, e, kv) && shaped(w->wv, e, kv) && shaped(w->wo, q, e) &&
                    shaped(w->bq, q, 1) && shaped(w->bk, kv, 1) && shaped(w->bv, kv, 1) && shaped(w->bo, e, 1) &&
                    shaped(w->gate, e, ff) && shaped(w->up, e, ff) && shaped(w->down, ff, e) &&
                    shaped(w->gate_b, ff, 1) && shaped(w->up_b, ff, 1) && shaped(w->down_b, e, 1);
    return ok || fail(err, "a weight of layer %d has not the shape of %d heads and %d KV heads of %d elements", layer, m->n_heads, m->n_heads_kv, m->head_dim);
}

bool model_read(struct model * m, const struct abi * abi, const struct llama_model * from, int32_t head_dim, struct error * err) {
    memset(m, 0, sizeof *m);
    m->head_dim = head_dim;
    if (!read_arch(m, abi, from, err) || !read_numbers(m, abi, from, err) || !read_weights(m, abi, from, err)) {
        return false;
    }
    if (m->embeddings == NULL || m->embeddings->buffer == NULL || m->embeddings->ne[0] != m->n_embd) {
        return fail(err, "the model has no token_embd.weight of %d elements a token", m->n_embd);
    }
    if (!plain(abi, m->embeddings)) {
        return fail(err, "no row can be taken from token_embd.weight where the server has put it: on a device, or repacked");
    }
    if (m->output == NULL) {
        m->output = m->embeddings;
    }
    if (m->output_norm == NULL || !shaped(m->output_norm, m->n_embd, 1) || !shaped(m->output, m->n_embd, m->embeddings->ne[1])) {
        return fail(err, "the model has no output_norm.weight and output.weight of %d elements a token", m->n_embd);
    }
    if (m->rope_factors != NULL && (m->rope_factors->buffer == NULL || m->rope_factors->type != GGML_TYPE_F32)) {
        return fail(err, "the model's rope_freqs.weight is not f32");
    }
    for (int32_t i = 0; i < m->n_layers; i++) {
        if (!check_layer(m, &m->layers[i], i, err)) {
            return false;
        }
    }
    return true;
}
