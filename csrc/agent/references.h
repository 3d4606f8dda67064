/* The reference states that a recipe names, in the recipe's own directory. */
#ifndef AGENT_REFERENCES_H
#define AGENT_REFERENCES_H

#include "error.h"
#include "recipe.h"
#include "state.h"

/* Opens the directory of a file; below 0 where that fails. */
int references_dir(const char * path);

/* Opens all references of the recipe at path, of which refs has room for n_refs. They must
 * fit the first one. Close each with state_close, also after a failure. */
bool references_open(struct state * refs, const struct recipe * r, const char * path, struct error * err);

#endif
