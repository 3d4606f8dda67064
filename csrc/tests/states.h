/* Small saved states for the agent's tests. */
#ifndef SEMSHARE_TESTS_STATES_H
#define SEMSHARE_TESTS_STATES_H

#include "agent/state.h"
#include "check.h"

enum { TOKENS = 12, CELLS = 10, LAYERS = 3, DIMS = 8, ROW = 2 * DIMS };

static uint64_t seed = 1;

/* Rows of DIMS halves, of two streams. Valid until the next call. */
static inline const struct state_layout * layout(uint32_t version, bool trans) {
    static struct state_layout l;
    memset(&l, 0, sizeof l);
    l.version = version;
    l.packed = version == 4;
    l.streams = 2;
    l.v_trans = trans;
    l.n_layers = LAYERS;
    for (int i = 0; i < LAYERS; i++) {
        l.layers[i] = (struct state_layer) {.k_type = SEMSHARE_TYPE_F16, .v_type = SEMSHARE_TYPE_F16, .k_row = ROW, .v_row = trans ? 0 : ROW, .v_elem = trans ? 2 : 0, .v_width = trans ? DIMS : 0};
    }
    return &l;
}

/* n cells' rows of a layer. */
static inline void random_rows(uint8_t * to, int64_t n) {
    float x[DIMS];
    for (int64_t i = 0; i < n; i++) {
        for (int e = 0; e < DIMS; e++) {
            x[e] = random_float(&seed);
        }
        semshare_quantize(SEMSHARE_TYPE_F16, x, DIMS, to + i * ROW, ROW);
    }
}

/* A state in memory that the caller frees, of cells at those positions, with random keys
 * and values. */
static inline void make_state(struct state * s, const int32_t * pos) {
    const int32_t tokens[TOKENS] = {1, 2, 3};
    const struct state_layout * l = layout(4, false);
    memset(s, 0, sizeof *s);
    s->size = state_bytes(l, TOKENS, CELLS);
    s->data = malloc(s->size);
    state_write(s, l, 0, tokens, TOKENS, pos, CELLS);
    for (int i = 0; i < LAYERS; i++) {
        random_rows(s->k[i], CELLS);
        random_rows(s->v[i], CELLS);
    }
}

#endif
