/* What an answer attends to: the shares that its first tokens pay to each cell. */
#ifndef AGENT_ATTENTION_H
#define AGENT_ATTENTION_H

#include "recipe.h"

/* A member for each of the recipe's cells; null where nobody asks. */
struct attention {
    uint32_t n_cells, n_layers;
    /* Shares added up over tokens and heads, in the layers that look things up: which cells
     * an answer is taken from. The first third of them attends to everything around. */
    float * shares;
    /* Their logarithms, added up over all layers: what several heads care for a little
     * counts for more than what one cares for a lot. Which cells can be missed. */
    float * logs;
};

/* Takes memory for what the recipe asks. Free it with attention_free, also after a failure. */
bool attention_init(struct attention * a, const struct recipe * recipe, struct error * err);
void attention_free(struct attention * a);

/* Whether attention in the layer counts. */
bool attention_wants(const struct attention * a, int32_t layer);

/* Adds what one token pays in a layer: for each head a row of visible shares. */
void attention_add(struct attention * a, int32_t layer, const float * shared, int32_t n_heads, int32_t visible);

/* Adds shares that were summed over layers and heads already, one for each cell. */
void attention_add_shares(struct attention * a, const float * shares);

#endif
