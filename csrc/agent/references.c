#include "references.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int references_dir(const char * path) {
    const char * slash = strrchr(path, '/');
    char dir[4096] = ".";
    if (slash != NULL) {
        snprintf(dir, sizeof dir, "%.*s", (int) (slash - path + 1), path);
    }
    return open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

bool references_open(struct state * refs, const struct recipe * r, const char * path, struct error * err) {
    const int dir = references_dir(path);
    bool ok = dir >= 0 || fail(err, "cannot open the recipe's directory");
    for (uint32_t i = 0; ok && i < r->head.n_refs; i++) {
        ok = state_open(&refs[i], dir, r->refs[i].name, r->refs[i].size, err);
        if (ok && !state_layout_takes(&refs[0].layout, &refs[i].layout)) {
            ok = fail(err, "reference %s does not fit %s", r->refs[i].name, r->refs[0].name);
        }
    }
    if (dir >= 0) {
        close(dir);
    }
    return ok;
}
