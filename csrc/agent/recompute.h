/* Computes anew, layer by layer, the cells that a recipe names and those that deviate. */
#ifndef AGENT_RECOMPUTE_H
#define AGENT_RECOMPUTE_H

#include "recipe.h"
#include "rows.h"

struct recomputed {
    int64_t keys;   /* cells whose keys and values were computed, added up over the layers */
    int64_t layers; /* cells that went through a whole layer, added up likewise */
    int32_t drafted[RECIPE_MAX_DRAFTED]; /* the first n_drafted tokens of an answer */
    uint32_t n_drafted;
};

/* Works on the rows of r, composed before, in batches of at most batch cells. With chosen,
 * a member for each cell, those are computed, and no others. */
bool recompute(struct engine * e, const struct recipe * recipe, struct rows * r, int32_t batch, const uint8_t * chosen, struct recomputed * did, struct error * err);

#endif
