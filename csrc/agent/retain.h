/* Which cells of a state stay where a recipe keeps only a share of them. */
#ifndef AGENT_RETAIN_H
#define AGENT_RETAIN_H

#include "recipe.h"

/* Sets keep[i] for the cells that stay: the first, the last, those that the recipe
 * names, and of the others those of most attention, up to the recipe's share of all.
 * attention is as long as the cells. Returns how many stay; 0 where memory is out. */
uint32_t retain(const struct recipe * recipe, const float * attention, uint8_t * keep);

#endif
