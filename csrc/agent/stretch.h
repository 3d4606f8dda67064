/* A batch of tokens through several layers, in one graph. */
#ifndef AGENT_STRETCH_H
#define AGENT_STRETCH_H

#include "layer.h"

/* Tokens that go through layers from to to-1. Their keys and values go into cells of what
 * is cached, in tensors, for each of these layers. In the last of them, where kept is not
 * null, only those go on that it names, ascending. */
struct stretch {
    int32_t from, to; /* at most ENGINE_MAX_STRETCH layers */
    int32_t n;
    const int32_t * rows, * cells, * pos, * visible;
    int32_t n_kept;
    const int32_t * kept, * kept_rows, * kept_pos, * kept_visible;
    const struct cached * cached; /* of layer from and those that follow */
};

/* In one graph: the rows of those that go on become the input to layer to. Behind the
 * model's last layer nothing is computed where n_kept is 0. */
bool engine_stretch(struct engine * e, const struct stretch * s, struct error * err);

/* A stretch while its graph is built: what its tokens share in all layers. */
struct run {
    const struct stretch * s;
    struct group groups[LAYER_MAX_GROUPS], kept_groups[LAYER_MAX_GROUPS];
    int32_t n_groups, n_kept_groups;
    ggt * pos, * to, * kept, * kept_pos;
    /* Of a voice: the attention that it tells, added up over the layers from looks_from on.
     * The group's mask hides from it what the token does not see yet. */
    bool tells;
    int32_t looks_from;
    ggt * attention;
};

/* Makes a run's groups, its inputs, and one layer of its graph: what that puts out, or null
 * where none of its tokens goes on. */
void stretch_groups(const struct engine * e, struct run * r);
void stretch_inputs(struct graph * g, struct run * r);
ggt * stretch_layer(struct graph * g, struct run * r, int32_t layer, ggt * x);

#endif
