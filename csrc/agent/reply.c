#include "reply.h"

#include "agent.h"
#include "tokenized.h"

#include <fcntl.h>
#include <stdio.h>

/* Error texts hold names from files: keep what JSON would want escaped out of it. */
static void plain(char * text) {
    for (; *text != 0; text++) {
        if ((unsigned char) *text < ' ' || *text == '"' || *text == '\\') {
            *text = '?';
        }
    }
}

void reply_write(struct job * j, const char * path, struct error * err) {
    char name[4096];
    if (snprintf(name, sizeof name, "%s.reply", path) >= (int) sizeof name) {
        return;
    }
    const int fd = open(name, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW);
    FILE * f = fd < 0 ? NULL : fdopen(fd, "w");
    if (f == NULL) {
        return; /* nobody asked, or no longer; the sidecar sees the result anyway */
    }
    plain(err->text);
    plain(j->aside.text);
    fprintf(f, "{\"drafted\":[");
    for (uint32_t i = 0; i < j->did.n_drafted; i++) {
        fprintf(f, i > 0 ? ",%d" : "%d", j->did.drafted[i]);
    }
    fprintf(f, "],\"agent\":%d,\"arch\":\"%s\",\"layers\":%d,\"cells\":%u,\"keys\":%lld,\"through\":%lld,\"compose_ms\":%.3f,\"recompute_ms\":%.3f,\"restore_ms\":%.3f,\"cache\":\"%s\",\"aside\":\"%s\",\"brought\":%d,\"kernels\":\"%s\",\"spared\":%lld,\"no_cells\":%s,\"error\":\"%s\"}\n",
            AGENT_VERSION, j->model != NULL ? j->model->arch : "", j->model != NULL ? j->model->n_layers : 0, j->made.cells, (long long) j->did.keys, (long long) j->did.layers, j->compose_ms, j->recompute_ms, j->restore_ms, !j->in_cache ? "aside" : j->cuda != NULL ? "cuda" : "host", j->in_cache ? "" : j->aside.text, j->brought, j->kernels != NULL ? j->kernels : "", (long long) tokenized_spared(), j->no_cells ? "true" : "false", err->text);
    fclose(f);
}
