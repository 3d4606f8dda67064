#include "attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool attention_init(struct attention * a, const struct recipe * recipe, struct error * err) {
    const struct recipe_head * h = &recipe->head;
    *a = (struct attention) {.n_cells = h->n_cells, .n_layers = h->n_layers};
    if (recipe_looks(recipe) && (a->shares = calloc(h->n_cells, sizeof *a->shares)) == NULL) {
        return fail(err, "out of memory");
    }
    if (recipe_thins(recipe) && (a->logs = calloc(h->n_cells, sizeof *a->logs)) == NULL) {
        return fail(err, "out of memory");
    }
    return true;
}

void attention_free(struct attention * a) {
    free(a->shares);
    free(a->logs);
    memset(a, 0, sizeof *a);
}

static bool looks_up(const struct attention * a, int32_t layer) { return layer >= (int32_t) a->n_layers / 3; }

bool attention_wants(const struct attention * a, int32_t layer) { return a->logs != NULL || (a->shares != NULL && looks_up(a, layer)); }

void attention_add(struct attention * a, int32_t layer, const float * shared, int32_t n_heads, int32_t visible) {
    const float least = 1e-5f; /* a share below it is none */
    const uint32_t n_shares = a->shares != NULL && looks_up(a, layer) ? a->n_cells : 0;
    const uint32_t n_logs = a->logs != NULL ? a->n_cells : 0;
    for (int32_t h = 0; h < n_heads; h++, shared += visible) {
        for (uint32_t c = 0; c < n_shares; c++) {
            a->shares[c] += shared[c];
        }
        for (uint32_t c = 0; c < n_logs; c++) {
            a->logs[c] += logf(shared[c] + least);
        }
    }
}

void attention_add_shares(struct attention * a, const float * shares) {
    for (uint32_t c = 0; a->shares != NULL && c < a->n_cells; c++) {
        a->shares[c] += shares[c];
    }
}
