#include "saving.h"

#include "agent.h"
#include "references.h"
#include "resident.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_RANGES = 4096 };

/* Bytes that went from the cache to the file, in this order. */
struct range {
    const uint8_t * at;
    int64_t size;
};

struct saving {
    const struct abi * abi;
    struct range * ranges;
    int32_t n;
    bool overflow; /* more than MAX_RANGES, as of values in columns */
};

static _Thread_local struct saving * saving;

void saving_notes(const ggt * t, size_t offset, size_t size) {
    struct saving * s = saving;
    if (s == NULL || strncmp(s->abi->ggml_get_name(t), "cache_", 6) != 0 || t->buffer == NULL || s->abi->ggml_backend_buffer_is_host(t->buffer)) {
        return;
    }
    s->overflow = s->overflow || s->n == MAX_RANGES;
    if (!s->overflow) {
        s->ranges[s->n++] = (struct range) {(const uint8_t *) s->abi->ggml_get_data(t) + offset, (int64_t) size};
    }
}

/* ---- keeping ---- */

/* Copies the next size bytes that were noted; *at is the range where they begin. */
static bool copy_half(const struct saving * s, const struct cuda * cuda, int32_t device, int32_t * at, uint8_t * to, int64_t size) {
    while (size > 0 && *at < s->n && s->ranges[*at].size <= size) {
        const struct range * r = &s->ranges[(*at)++];
        if (cuda->copy(to, r->at, r->size, device) != SEMSHARE_OK) {
            return false;
        }
        to += r->size;
        size -= r->size;
    }
    return size == 0;
}

/* The file has the keys of all layers, then the values. */
static bool copy_rows(const struct saving * s, const struct cuda * cuda, int32_t device, const struct state * there) {
    int32_t at = 0;
    bool ok = true;
    for (uint32_t i = 0; ok && i < there->layout.n_layers; i++) {
        ok = copy_half(s, cuda, device, &at, there->k[i], state_key_bytes(there, i));
    }
    for (uint32_t i = 0; ok && i < there->layout.n_layers; i++) {
        ok = copy_half(s, cuda, device, &at, there->v[i], state_value_bytes(there, i));
    }
    return ok && at == s->n;
}

/* Makes a resident of what was saved; there is scratch. */
static bool make_resident(const struct saving * s, const char * name, const struct state * ref, struct state * there) {
    struct error err;
    int32_t device;
    const struct cuda * cuda = cuda_for(s->ranges[0].at, &device, &err);
    return cuda != NULL && resident_make(cuda, device, agent_turn(), name, ref, there, &err) && copy_rows(s, cuda, device, there);
}

/* Rows were noted in the order of cells; in the file that recipes name the sidecar may have
 * put them in order of position. Where the two differ, they are brought from there. */
static void keep(const struct saving * s, const char * name, const struct state * ref) {
    const bool can = s->n > 0 && !s->overflow && !ref->layout.v_trans && ref->in_order;
    struct state * there = malloc(sizeof *there);
    if (there == NULL || !can || !make_resident(s, name, ref, there)) {
        resident_drop(name);
    }
    free(there);
}

static int64_t bytes_of(int dir, const char * name) {
    const int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return -1;
    }
    const int64_t size = state_file_bytes(fd);
    close(fd);
    return size;
}

/* Opens the file that was saved. */
static void keep_file(const struct saving * s, const char * path) {
    struct error err;
    const char * slash = strrchr(path, '/');
    const char * name = slash == NULL ? path : slash + 1;
    struct state * ref = malloc(sizeof *ref);
    const int dir = references_dir(path);
    const int64_t size = dir >= 0 ? bytes_of(dir, name) : -1;
    if (ref != NULL && size > 0) {
        if (state_open(ref, dir, name, (uint64_t) size, &err)) {
            keep(s, name, ref);
        }
        state_close(ref);
    }
    if (dir >= 0) {
        close(dir);
    }
    free(ref);
}

size_t saving_keep(const struct abi * abi, struct llama_context * ctx, const char * path, int32_t seq, const int32_t * tokens, size_t n_tokens) {
    struct saving s = {.abi = abi, .ranges = malloc(MAX_RANGES * sizeof *s.ranges)};
    saving = s.ranges == NULL ? NULL : &s;
    const size_t got = abi->save_file(ctx, path, seq, tokens, n_tokens);
    saving = NULL;
    if (got != 0 && s.n > 0) {
        agent_lock();
        keep_file(&s, path);
        agent_unlock();
    }
    free(s.ranges);
    return got;
}
