/* Products with the model's weights as parts of a graph. */
#ifndef AGENT_LINEAR_H
#define AGENT_LINEAR_H

#include "graph.h"

/* x, a row a token, times w, plus bias unless that is null. */
ggt * linear(struct graph * g, ggt * w, ggt * bias, ggt * x);

/* What multiplies by most of the model's weights. */
const char * linear_kernel(const struct engine * e);

#endif
