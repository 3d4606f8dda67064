/* What the agent tells the sidecar of a recipe. */
#ifndef AGENT_REPLY_H
#define AGENT_REPLY_H

#include "job.h"

/* Writes the reply, as JSON, into the file of the recipe's name with ".reply" appended. The
 * sidecar has made the file: the server's user may be another one, whose files the sidecar
 * could neither read nor tell from those of others. err has no text if the recipe was carried
 * out. Characters that JSON would want escaped are replaced in the texts of err and j. */
void reply_write(struct job * j, const char * path, struct error * err);

#endif
