/* How the agent's functions fail: they fill in what was wrong and return false. */
#ifndef AGENT_ERROR_H
#define AGENT_ERROR_H

#include <stdbool.h>

struct error {
    char text[256];
};

/* Formats the message; returns false, for `return fail(...)`. */
__attribute__((format(printf, 2, 3))) bool fail(struct error * err, const char * format, ...);

#endif
