/* Products with the model's weights as parts of a graph. */
#ifndef AGENT_LINEAR_H
#define AGENT_LINEAR_H

#include "graph.h"
#include "product.h"

/* What a graph of the server's CPU has ggml call: see linear.c. */
struct linear_job {
    const struct abi * abi;
    const struct product * product;
    enum product_packing packing;
    ggt * w, * x;
};

/* x, a row a token, times w, plus bias unless that is null. */
ggt * linear(struct graph * g, ggt * w, ggt * bias, ggt * x);

#endif
