#include "cache.h"

#include "engine.h"

#include <string.h>

enum {
    MAX_HEADER = 64,      /* bytes before the streams, which differ between versions */
    MAX_EMPTY = 4 + 4 * 256, /* the streams of a sequence without cells */
};

static _Thread_local struct cache * looking;

/* ---- noting ---- */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* The cell of a row, or of an element of a column, is first + its own. */
static void note(struct cache * c, int64_t own, int64_t there) {
    if (c->first < 0) {
        c->first = there - own;
    }
    c->scattered = c->scattered || there - own != c->first;
}

static bool named(const struct cache * c, const ggt * t, const char * prefix) { return strncmp(c->abi->ggml_get_name(t), prefix, strlen(prefix)) == 0; }

static int64_t elements(const ggt * t) { return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; }

static void note_rows(struct cache * c, int64_t at, int64_t offset, int64_t size, int64_t row) {
    c->scattered = c->scattered || at % row != 0 || offset % row != 0 || size % row != 0;
    note(c, at / row, offset / row);
}

static bool note_keys(struct cache * c, uint32_t layer, ggt * t, int64_t at, int64_t offset, int64_t size) {
    const struct state_layer * y = &c->made->layout.layers[layer];
    const int64_t stride = c->abi->ggml_row_size(t->type, elements(t)) / y->k_row;
    if (!named(c, t, "cache_k_l")) {
        return false;
    }
    c->k[layer] = t;
    c->stride = c->stride == 0 ? stride : least(stride, c->stride);
    c->noted_k += size;
    note_rows(c, at, offset, size, y->k_row);
    return true;
}

static bool note_values(struct cache * c, uint32_t layer, ggt * t, int64_t at, int64_t offset, int64_t size) {
    const struct state_layer * y = &c->made->layout.layers[layer];
    if (!named(c, t, "cache_v_l")) {
        return false;
    }
    c->v[layer] = t;
    c->noted_v += size;
    if (!c->made->layout.v_trans) {
        note_rows(c, at, offset, size, y->v_row);
        return true;
    }
    const int64_t stride = elements(t) / y->v_width, own = at / y->v_elem, there = offset / y->v_elem;
    c->scattered = c->scattered || stride != c->stride || own / c->made->cells != there / stride;
    note(c, own % c->made->cells, there % stride);
    return true;
}

bool cache_notes(ggt * t, const void * data, size_t offset, size_t size) {
    struct cache * c = looking;
    const uint8_t * p = data;
    if (c == NULL || p < c->made->data || p >= c->made->data + c->made->size) {
        return false;
    }
    for (uint32_t i = 0; i < c->made->layout.n_layers; i++) {
        const int64_t k = p - c->made->k[i], v = p - c->made->v[i];
        if (k >= 0 && k < state_key_bytes(c->made, i)) {
            return note_keys(c, i, t, k, (int64_t) offset, (int64_t) size);
        }
        if (v >= 0 && v < state_value_bytes(c->made, i)) {
            return note_values(c, i, t, v, (int64_t) offset, (int64_t) size);
        }
    }
    return false;
}

/* ---- looking ---- */

/* What this version of llama.cpp puts before the streams of a state in memory: what stands
 * there in that of an empty sequence. Returns how many bytes; below 0 where it fails. */
static int64_t read_header(const struct abi * abi, struct llama_context * ctx, int32_t seq, uint32_t streams, uint8_t * header) {
    uint8_t bytes[MAX_HEADER + MAX_EMPTY];
    const size_t size = abi->llama_state_seq_get_size(ctx, seq), body = 4 + 4 * (size_t) streams;
    uint32_t word;
    if (size < body || size > sizeof bytes || size - body > MAX_HEADER || abi->llama_state_seq_get_data(ctx, bytes, size, seq) != size) {
        return -1;
    }
    memcpy(&word, bytes + size - body, sizeof word);
    if (word != streams) {
        return -1;
    }
    memcpy(header, bytes, size - body);
    return (int64_t) (size - body);
}

/* Restores the state, of which only what comes after its tokens is given to the server. */
static bool restore(struct cache * c, const struct abi * abi, struct llama_context * ctx, int32_t seq, struct state * made, struct error * err) {
    uint8_t header[MAX_HEADER], covered[MAX_HEADER];
    const int64_t n = read_header(abi, ctx, seq, made->layout.streams, header);
    uint32_t words;
    memcpy(&words, made->data + STATE_TOKENS - sizeof words, sizeof words);
    const int64_t body = STATE_TOKENS + 4 * (int64_t) words;
    if (n < 0 || n > body) {
        return fail(err, "the server's state of an empty sequence is not laid out as expected");
    }
    uint8_t * from = made->data + body - n;
    const size_t size = made->size - (size_t) (body - n);
    memcpy(covered, from, (size_t) n);
    memcpy(from, header, (size_t) n);
    looking = c;
    const size_t got = abi->llama_state_seq_set_data(ctx, from, size, seq);
    looking = NULL;
    memcpy(from, covered, (size_t) n);
    c->no_cells = got == 0;
    return got == size || fail(err, "the server has no %u cells for the sequence, or another layout", made->cells);
}

static bool complete(const struct cache * c, struct error * err) {
    int64_t k = 0, v = 0;
    for (uint32_t i = 0; i < c->made->layout.n_layers; i++) {
        k += state_key_bytes(c->made, i);
        v += state_value_bytes(c->made, i);
    }
    if (c->noted_k != k || c->noted_v != v) {
        return fail(err, "the server fills its cache past the agent");
    }
    const int64_t padded = (c->made->cells + ENGINE_CELL_PAD - 1) / ENGINE_CELL_PAD * ENGINE_CELL_PAD;
    return (!c->scattered && c->first >= 0 && c->first + padded <= c->stride) || fail(err, "the server's cells for the sequence are not one run");
}

/* Has the rows of made lie in the cache. */
static void settle(const struct cache * c, struct state * made) {
    made->stride = c->stride;
    for (uint32_t i = 0; i < made->layout.n_layers; i++) {
        const struct state_layer * y = &made->layout.layers[i];
        made->k[i] = (uint8_t *) c->abi->ggml_get_data(c->k[i]) + c->first * y->k_row;
        made->v[i] = (uint8_t *) c->abi->ggml_get_data(c->v[i]) + c->first * (y->v_row + y->v_elem);
    }
}

bool cache_find(struct cache * c, const struct abi * abi, struct llama_context * ctx, int32_t seq, struct state * made, struct error * err) {
    *c = (struct cache) {.made = made, .abi = abi, .first = -1};
    llama_memory_t memory = abi->llama_get_memory(ctx);
    abi->llama_synchronize(ctx);
    abi->llama_memory_seq_rm(memory, seq, -1, -1);
    if (!restore(c, abi, ctx, seq, made, err) || !complete(c, err)) {
        abi->llama_memory_seq_rm(memory, seq, -1, -1);
        return false;
    }
    settle(c, made);
    return true;
}
