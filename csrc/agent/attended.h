/* Which cells are worth computing because an answer attends to them. */
#ifndef AGENT_ATTENDED_H
#define AGENT_ATTENDED_H

#include "recipe.h"

/* Sets chosen for the displaced cells, of those that the recipe does not compute in all
 * layers, that have most attention: share_attended of all displaced ones. attention and
 * chosen have a member for each cell. */
bool choose_attended(const struct recipe * recipe, const float * attention, uint8_t * chosen, struct error * err);

#endif
