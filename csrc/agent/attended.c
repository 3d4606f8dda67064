#include "attended.h"

#include "scored.h"

#include <math.h>
#include <stdlib.h>

bool choose_attended(const struct recipe * recipe, const float * attention, uint8_t * chosen, struct error * err) {
    const struct recipe_head * h = &recipe->head;
    struct scored * cells = malloc(h->n_cells * sizeof *cells);
    uint32_t displaced = 0, n = 0;
    if (cells == NULL) {
        return fail(err, "out of memory");
    }
    for (uint32_t c = 0; c < h->n_cells; c++) {
        if (!recipe_is_displaced(recipe, c)) {
            continue;
        }
        displaced++;
        if (recipe_depth(recipe, c) < h->n_layers) {
            cells[n++] = (struct scored) {attention[c], (int32_t) c};
        }
    }
    mark_highest(cells, n, (uint32_t) lroundf(h->share_attended * (float) displaced), chosen);
    free(cells);
    return true;
}
