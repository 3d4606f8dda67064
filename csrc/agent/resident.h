/*
 * References in a device's memory, so that recipes compose them there. One gets there when
 * the server saves it, out of the server's own cache (see saving.h), or where it did not,
 * from its file when the first recipe draws on it; and stays until others need the room.
 *
 * They may take a quarter of what the server has left unused, or SEMSHARE_AGENT_DEVICE_MB.
 *
 * A reference is known by its name up to the first dot: what the server saves as NAME.x may
 * be kept as NAME.y, in other types. Callers hold the agent's lock.
 */
#ifndef AGENT_RESIDENT_H
#define AGENT_RESIDENT_H

#include "cuda.h"
#include "state.h"

/* Sets there to ref, of that name, with rows on the device, in memory that stays the
 * agent's: valid until the next recipe or saving. They may be of other types than the
 * file's. turn is agent_turn's: what one recipe has taken does not make room for the rest.
 * *brought grows by one where the rows had to be brought from the file. */
bool resident_take(const struct cuda * cuda, int32_t device, uint64_t turn, const char * name, const struct state * ref, struct state * there, int32_t * brought, struct error * err);

/* Makes room on the device for what the server saved as ref under that name, in place of
 * what was known by it, and sets there as resident_take does: for its rows to be copied. */
bool resident_make(const struct cuda * cuda, int32_t device, uint64_t turn, const char * name, const struct state * ref, struct state * there, struct error * err);

/* How many bytes all may take, in place of what is said above. */
void resident_set_budget(int64_t bytes);

/* Forgets a reference, such as one whose rows could not be copied. */
void resident_drop(const char * name);

/* Forgets all, and measures anew what they may take when the next is made. */
void resident_drop_all(void);

#endif
