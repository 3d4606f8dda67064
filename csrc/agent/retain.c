/* All layers have one set of cells, since the server's cache has. */
#include "retain.h"

#include "scored.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SINKS = 16,  /* first cells, which many heads attend to where they have nothing to look for */
    RECENT = 32, /* last cells, which are the next tokens' context */
};

uint32_t retain(const struct recipe * recipe, const float * attention, uint8_t * keep) {
    const struct recipe_head * h = &recipe->head;
    if (!recipe_thins(recipe)) {
        memset(keep, 1, h->n_cells);
        return h->n_cells;
    }
    const uint32_t want = (uint32_t) ceilf(h->retention * (float) h->n_cells);
    struct scored * others = malloc(h->n_cells * sizeof *others);
    uint32_t n_others = 0, kept = 0;
    if (others == NULL) {
        return 0;
    }
    for (uint32_t c = 0; c < h->n_cells; c++) {
        keep[c] = c < SINKS || c + RECENT >= h->n_cells || (recipe->depth[c] & RECIPE_KEEP) != 0;
        kept += keep[c];
        if (!keep[c]) {
            others[n_others++] = (struct scored) {attention[c], (int32_t) c};
        }
    }
    kept += mark_highest(others, n_others, kept < want ? want - kept : 0, keep);
    free(others);
    return kept;
}
