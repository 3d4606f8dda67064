/*
 * llama.cpp's saved states: reading those of references, and laying out a new one in
 * memory. The format is described in bridge/state_parse.go.
 */
#ifndef AGENT_STATE_H
#define AGENT_STATE_H

#include "error.h"
#include "semshare.h"

#include <stddef.h>
#include <stdint.h>

enum {
    STATE_MAX_LAYERS = 512,
    STATE_MIN_VERSION = 2,
    STATE_MAX_VERSION = 4,
    STATE_MAX_STREAMS = 256,
};

/* One layer's types and sizes in bytes; v_row is 0 where values are transposed, v_elem
 * and v_width where they are not. */
struct state_layer {
    uint32_t k_type, v_type;
    int64_t k_row, v_row;
    int64_t v_elem, v_width;
};

struct state_layout {
    uint32_t version;
    bool packed; /* tokens carry a header */
    uint32_t streams;
    bool v_trans;
    uint32_t rot_k, rot_v;
    uint32_t n_layers;
    struct state_layer layers[STATE_MAX_LAYERS];
};

/* A state in memory. Where it was opened, it maps the file read-only. Rows may lie
 * elsewhere than in data: in the server's cache, or in a device's memory. */
struct state {
    struct state_layout layout;
    uint8_t * data;
    size_t size;
    uint32_t cells;
    bool in_order; /* of one that was parsed: each cell's position is above that of the cell before */
    int64_t stride; /* cells of a column, where values lie in columns */
    uint8_t * k[STATE_MAX_LAYERS];
    uint8_t * v[STATE_MAX_LAYERS];
};

/* The bytes of an open file, which is then at its start; below 0 where that cannot be told. */
int64_t state_file_bytes(int fd);

/* Maps and checks the state of that name in the directory, which must have size bytes.
 * Close it with state_close, also after a failure. */
bool state_open(struct state * s, int dir, const char * name, uint64_t size, struct error * err);
bool state_parse(struct state * s, struct error * err); /* of s->data, s->size */
void state_close(struct state * s);

struct state_types {
    uint32_t k, v; /* enum semshare_type */
};

/* Bytes of a row of width elements of a type; -1 where its blocks do not divide it. */
int64_t state_row_bytes(uint32_t type, int64_t width);

/* The layout from with other types, n_layers of them, and values in columns where
 * v_trans says so. It fails where rows cannot be of such a type. */
bool state_retype(struct state_layout * l, const struct state_layout * from, bool v_trans, const struct state_types * types, struct error * err);

/* The stream of a sequence. */
static inline uint32_t state_stream(const struct state_layout * l, int32_t seq) { return l->streams == 1 ? 0 : (uint32_t) seq; }

/* Whether rows of one can become rows of the other: types may differ, and how a file is
 * laid out around them. */
bool state_layout_takes(const struct state_layout * l, const struct state_layout * from);

/* Whether the layer's rows lie the same in both. */
bool state_layer_equal(const struct state_layout * a, const struct state_layout * b, uint32_t layer);

/* Bytes that a layer's keys take, and its values. */
int64_t state_key_bytes(const struct state * s, uint32_t layer);
int64_t state_value_bytes(const struct state * s, uint32_t layer);

/* How many elements a row of so many bytes has; 0 where it is not whole blocks. */
int64_t state_row_elems(uint32_t type, int64_t row);

enum { STATE_TOKENS = 12 }; /* where the tokens begin */

/* How many words the tokens take, with what packs them. */
uint32_t state_words(const struct state_layout * l, uint32_t tokens);

/* What a state of that many tokens and cells takes. */
size_t state_bytes(const struct state_layout * l, uint32_t tokens, uint32_t cells);

/* Writes all but the layers' rows of a state to s->data, which must have state_bytes,
 * and notes where the rows lie. The stream must be below l->streams. */
void state_write(struct state * s, const struct state_layout * l, uint32_t stream, const int32_t * tokens, uint32_t n_tokens, const int32_t * pos, uint32_t n_cells);

#endif
