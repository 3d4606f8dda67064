/* Room for the rows of the state that a recipe makes: in the server's cache, or aside. */
#ifndef AGENT_ROOM_H
#define AGENT_ROOM_H

#include "job.h"

/* The memory files in which states are made that cannot be made in the cache: as composed,
 * and with fewer cells. */
enum room_file { ROOM_WHOLE, ROOM_THINNED };

/* Finds room for the rows: in the cache where that can be, else aside, to be restored from
 * there. Where the server has no cells for the whole state, it will have none for it later;
 * but what was drafted goes before. The agent's lock is held, as for all below. */
bool room_find(struct job * j, int32_t seq, struct error * err);

/* Has the rows lie in a memory file, whatever was laid out before. */
bool room_aside(struct job * j, int32_t seq, struct error * err);

/* Maps size bytes of a memory file for the job's state. */
bool room_map(struct job * j, enum room_file which, size_t size, struct error * err);

/* Takes the sequence's cells from a position on out of the cache; -1: all. */
void room_empty(const struct job * j, int32_t seq, int32_t from);

/* Gives the memory files back. */
void room_forget(void);

#endif
