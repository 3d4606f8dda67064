#include "weigh.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void add_attention(const float * weights, int32_t n_heads, int32_t n, int64_t padded, uint32_t n_cells, float * mean, float * attention) {
    const float least = 1e-5f; /* a share below it is none */
    for (int32_t h = 0; h < n_heads; h++) {
        memset(mean, 0, n_cells * sizeof *mean);
        for (int32_t i = 0; i < n; i++) {
            const float * row = weights + ((int64_t) h * n + i) * padded;
            for (uint32_t c = 0; c < n_cells; c++) {
                mean[c] += row[c] / (float) n;
            }
        }
        for (uint32_t c = 0; c < n_cells; c++) {
            attention[c] += logf(mean[c] + least);
        }
    }
}

bool weigh(struct engine * e, int32_t layer, const float * x, const int32_t * pos, const int32_t * visible, int32_t n, const struct cached * cached, uint32_t n_cells, float * attention, struct error * err) {
    int64_t padded;
    float * mean = malloc(n_cells * sizeof *mean);
    if (mean == NULL) {
        return fail(err, "out of memory");
    }
    float * weights = engine_attention(e, layer, x, pos, visible, n, cached, &padded, err);
    if (weights != NULL) {
        add_attention(weights, e->model->n_heads, n, padded, n_cells, mean, attention);
    }
    const bool ok = weights != NULL;
    free(weights);
    free(mean);
    return ok;
}
