/* What cells are worth to a token that attends to them. */
#ifndef AGENT_WEIGH_H
#define AGENT_WEIGH_H

#include "engine.h"

/* Adds, for each of the first n_cells and for each head, the logarithm of its share of the
 * attention that a token pays in the layer: what several heads care for a little counts
 * for more than what one cares for a lot. x is its input, pos its position, and it sees
 * the cells before visible. */
bool weigh(struct engine * e, int32_t layer, const float * x, int32_t pos, int32_t visible, const struct cached * cached, uint32_t n_cells, float * attention, struct error * err);

#endif
