#include "resident.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_RESIDENTS = 64, ALIGN = 256 };

struct resident {
    struct state_file file;
    int32_t device;
    void * at; /* null: no such resident */
    int64_t size;
    uint64_t recipe; /* that last needed it */
};

/* Callers hold the agent's lock. */
static struct resident residents[MAX_RESIDENTS];
static int64_t budget = -1;

static int64_t aligned(int64_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

static int64_t key_bytes(const struct state * s, uint32_t layer) { return s->cells * s->layout.layers[layer].k_row; }

static int64_t value_bytes(const struct state * s, uint32_t layer) {
    const struct state_layer * y = &s->layout.layers[layer];
    return s->cells * (y->v_row + y->v_elem * y->v_width);
}

static int64_t bytes_of(const struct state * s) {
    int64_t n = 0;
    for (uint32_t i = 0; i < s->layout.n_layers; i++) {
        n += aligned(key_bytes(s, i)) + aligned(value_bytes(s, i));
    }
    return n;
}

static bool set_budget(const struct cuda * cuda, int32_t device) {
    const char * set = getenv("SEMSHARE_AGENT_DEVICE_MB");
    if (budget < 0 && set != NULL) {
        budget = strtoll(set, NULL, 10) << 20;
    } else if (budget < 0 && cuda->memory(&budget, device) == SEMSHARE_OK) {
        budget /= 4;
    }
    return budget >= 0;
}

/* ---- making room ---- */

static void drop(const struct cuda * cuda, struct resident * r) {
    cuda->free(r->at, r->device);
    memset(r, 0, sizeof *r);
}

/* A place for size bytes: the one used longest ago goes, until they fit. Null where what
 * this recipe needs leaves none. */
static struct resident * make_room(const struct cuda * cuda, int64_t size, uint64_t recipe) {
    for (;;) {
        struct resident * oldest = NULL, * empty = NULL;
        int64_t taken = 0;
        for (int i = 0; i < MAX_RESIDENTS; i++) {
            struct resident * r = &residents[i];
            taken += r->size;
            if (r->at == NULL) {
                empty = r;
            } else if (r->recipe != recipe && (oldest == NULL || r->recipe < oldest->recipe)) {
                oldest = r;
            }
        }
        if (empty != NULL && taken + size <= budget) {
            return empty;
        }
        if (oldest == NULL) {
            return NULL;
        }
        drop(cuda, oldest);
    }
}

/* ---- bringing and finding ---- */

static bool same_file(const struct state_file * a, const struct state_file * b) { return a->device == b->device && a->inode == b->inode && a->changed == b->changed; }

static struct resident * find(const struct state * ref, int32_t device) {
    for (int i = 0; i < MAX_RESIDENTS; i++) {
        if (residents[i].at != NULL && residents[i].device == device && residents[i].size == bytes_of(ref) && same_file(&residents[i].file, &ref->file)) {
            return &residents[i];
        }
    }
    return NULL;
}

/* Has the rows of there lie in memory of bytes_of(there), one half of a layer behind the
 * other. */
static void settle(struct state * there, uint8_t * at) {
    for (uint32_t i = 0; i < there->layout.n_layers; i++) {
        there->k[i] = at;
        at += aligned(key_bytes(there, i));
        there->v[i] = at;
        at += aligned(value_bytes(there, i));
    }
}

static bool bring(const struct cuda * cuda, int32_t device, const struct state * ref, const struct state * there) {
    bool ok = true;
    for (uint32_t i = 0; ok && i < ref->layout.n_layers; i++) {
        ok = cuda->upload(there->k[i], ref->k[i], key_bytes(ref, i), device) == SEMSHARE_OK && cuda->upload(there->v[i], ref->v[i], value_bytes(ref, i), device) == SEMSHARE_OK;
    }
    return ok;
}

bool resident_take(const struct cuda * cuda, int32_t device, uint64_t recipe, const struct state * ref, struct state * there, struct error * err) {
    struct resident * r = find(ref, device);
    const bool is_new = r == NULL;
    const int64_t size = bytes_of(ref);
    if (is_new && (!set_budget(cuda, device) || (r = make_room(cuda, size, recipe)) == NULL)) {
        return fail(err, "the device has no %lld bytes for a reference: %lld are meant for all", (long long) size, (long long) budget);
    }
    if (is_new && cuda->alloc(&r->at, size, device) != SEMSHARE_OK) {
        return fail(err, "the device has no %lld bytes for a reference", (long long) size);
    }
    *there = *ref;
    there->data = NULL; /* its file is mapped once */
    settle(there, r->at);
    r->recipe = recipe;
    if (!is_new) {
        return true;
    }
    r->file = ref->file;
    r->device = device;
    r->size = size;
    if (!bring(cuda, device, ref, there)) {
        drop(cuda, r);
        return fail(err, "a reference cannot be copied to the device");
    }
    return true;
}
