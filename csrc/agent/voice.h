/*
 * One token after the other through all layers, by one graph that is made once: their keys
 * and values go into cells of what is cached in tensors, for each layer, and each attends
 * to the cells up to its own.
 */
#ifndef AGENT_VOICE_H
#define AGENT_VOICE_H

#include "engine.h"

struct voice;

/* Whether the model is not too large for one graph. */
bool voice_fits(const struct engine * e);

/* For cells below limit; attention counts from the layer looks_from on. Null, where err
 * says why. What cached points to must stay, and no other call of the engine may come
 * between, until voice_free. */
struct voice * voice_new(struct engine * e, const struct cached * cached, int32_t limit, int32_t looks_from, struct error * err);
void voice_free(struct voice * v);

/* Computes a token, and says which is likeliest to follow; attention gets how it shares out
 * its attention, summed over heads and layers, a float for each of the cells up to its own. */
bool voice_say(struct voice * v, int32_t token, int32_t cell, int32_t pos, float * attention, int32_t * next, struct error * err);

#endif
