#include "weigh.h"

#include <math.h>
#include <stdlib.h>

bool weigh(struct engine * e, int32_t layer, const float * x, int32_t pos, int32_t visible, const struct cached * cached, uint32_t n_cells, float * attention, struct error * err) {
    const float least = 1e-5f; /* a share below it is none */
    int64_t padded;
    float * weights = engine_attention(e, layer, x, pos, visible, cached, &padded, err);
    if (weights == NULL) {
        return false;
    }
    for (int32_t h = 0; h < e->model->n_heads; h++) {
        for (uint32_t c = 0; c < n_cells; c++) {
            attention[c] += logf(weights[h * padded + c] + least);
        }
    }
    free(weights);
    return true;
}
