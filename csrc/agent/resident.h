/*
 * References in a device's memory. The first recipe that draws on one brings it there, and
 * it stays until others need the room, so that later recipes compose it on the device.
 *
 * They may take a quarter of what the server has left unused, or SEMSHARE_AGENT_DEVICE_MB.
 */
#ifndef AGENT_RESIDENT_H
#define AGENT_RESIDENT_H

#include "cuda.h"
#include "state.h"

/* Sets there to ref with rows on the device, in memory that stays the agent's: valid
 * until the next recipe. Takes note that this recipe, a number that grows, needs it. */
bool resident_take(const struct cuda * cuda, int32_t device, uint64_t recipe, const struct state * ref, struct state * there, struct error * err);

#endif
