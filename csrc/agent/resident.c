#include "resident.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_RESIDENTS = 64, MAX_NAME = 64, ALIGN = 256 };

struct resident {
    char name[MAX_NAME];
    const struct cuda * cuda; /* whose memory it lies in */
    int32_t device;
    void * at; /* null: no such resident */
    int64_t size;
    uint64_t turn; /* of the recipe that last needed it, or of its saving */
    struct state there;
};

static struct resident residents[MAX_RESIDENTS];
static int64_t budget = -1;

static int64_t aligned(int64_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

static int64_t bytes_of(const struct state * s) {
    int64_t n = 0;
    for (uint32_t i = 0; i < s->layout.n_layers; i++) {
        n += aligned(state_key_bytes(s, i)) + aligned(state_value_bytes(s, i));
    }
    return n;
}

void resident_set_budget(int64_t bytes) { budget = bytes; }

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

static void drop(struct resident * r) {
    r->cuda->free(r->at, r->device);
    memset(r, 0, sizeof *r);
}

/* A place for size bytes: the one used longest ago goes, until they fit. Null where what
 * this turn needs leaves none. */
static struct resident * make_room(int64_t size, uint64_t turn) {
    for (;;) {
        struct resident * oldest = NULL, * empty = NULL;
        int64_t taken = 0;
        for (int i = 0; i < MAX_RESIDENTS; i++) {
            struct resident * r = &residents[i];
            taken += r->size;
            if (r->at == NULL) {
                empty = r;
            } else if (r->turn != turn && (oldest == NULL || r->turn < oldest->turn)) {
                oldest = r;
            }
        }
        if (empty != NULL && taken + size <= budget) {
            return empty;
        }
        if (oldest == NULL || size > budget) {
            return NULL;
        }
        drop(oldest);
    }
}

/* ---- by name ---- */

/* The name up to its first dot; false where it is too long for one. */
static bool stem_of(const char * name, char * stem) {
    const size_t n = strcspn(name, ".");
    if (n == 0 || n >= MAX_NAME) {
        return false;
    }
    memcpy(stem, name, n);
    stem[n] = 0;
    return true;
}

static struct resident * find(const char * stem) {
    for (int i = 0; i < MAX_RESIDENTS; i++) {
        if (residents[i].at != NULL && strcmp(residents[i].name, stem) == 0) {
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
        at += aligned(state_key_bytes(there, i));
        there->v[i] = at;
        at += aligned(state_value_bytes(there, i));
    }
}

static struct resident * make(const struct cuda * cuda, int32_t device, uint64_t turn, const char * stem, const struct state * ref, struct error * err) {
    const int64_t size = bytes_of(ref);
    struct resident * r = set_budget(cuda, device) ? make_room(size, turn) : NULL;
    if (r == NULL || cuda->alloc(&r->at, size, device) != SEMSHARE_OK) {
        fail(err, "the device has no %lld bytes for a reference: %lld are meant for all", (long long) size, (long long) budget);
        return NULL;
    }
    memcpy(r->name, stem, strlen(stem) + 1);
    r->cuda = cuda;
    r->device = device;
    r->size = size;
    r->turn = turn;
    r->there = *ref;
    r->there.data = NULL; /* the file is mapped once */
    settle(&r->there, r->at);
    return r;
}

void resident_drop(const char * name) {
    char stem[MAX_NAME];
    struct resident * r = stem_of(name, stem) ? find(stem) : NULL;
    if (r != NULL) {
        drop(r);
    }
}

void resident_drop_all(void) {
    for (int i = 0; i < MAX_RESIDENTS; i++) {
        if (residents[i].at != NULL) {
            drop(&residents[i]);
        }
    }
    budget = -1;
}

bool resident_make(const struct cuda * cuda, int32_t device, uint64_t turn, const char * name, const struct state * ref, struct state * there, struct error * err) {
    char stem[MAX_NAME];
    if (!stem_of(name, stem)) {
        return fail(err, "%.64s is no name for a reference", name);
    }
    resident_drop(name);
    struct resident * r = make(cuda, device, turn, stem, ref, err);
    if (r == NULL) {
        return false;
    }
    *there = r->there;
    return true;
}

/* ---- the same as the file ---- */

enum { COMPARED = 3 }; /* cells of a layer's keys */

/* Whether cells of a layer's keys are about what the file has. Types may differ: four-bit
 * numbers are off by some 8 %. */
static bool layer_alike(const struct resident * r, const struct cuda * cuda, const struct state * ref, uint32_t layer, float * is, float * was) {
    const struct state_layer * y = &ref->layout.layers[layer];
    const int64_t width = state_row_elems(y->k_type, y->k_row);
    const struct semshare_rows rows = {r->there.k[layer], r->there.layout.layers[layer].k_type, (int32_t) width};
    const int32_t cells[COMPARED] = {0, (int32_t) ref->cells / 2, (int32_t) ref->cells - 1};
    if (cuda->get_rows(&rows, cells, COMPARED, is, r->device) != SEMSHARE_OK) {
        return false;
    }
    double off = 0, all = 0;
    for (int i = 0; i < COMPARED; i++) {
        semshare_dequantize(y->k_type, ref->k[layer] + cells[i] * y->k_row, y->k_row, was, width);
        for (int64_t e = 0; e < width; e++) {
            const double d = (double) is[i * width + e] - (double) was[e];
            off += d * d;
            all += (double) was[e] * (double) was[e];
        }
    }
    return off <= 0.04 * all;
}

static bool alike(const struct resident * r, const struct cuda * cuda, const struct state * ref) {
    if (r->there.cells != ref->cells || !state_layout_takes(&r->there.layout, &ref->layout)) {
        return false;
    }
    const struct state_layer * y = &ref->layout.layers[0], * z = &ref->layout.layers[ref->layout.n_layers - 1];
    const int64_t a = state_row_elems(y->k_type, y->k_row), b = state_row_elems(z->k_type, z->k_row), most = a > b ? a : b;
    float * x = malloc((size_t) (most * (COMPARED + 1)) * sizeof *x);
    const bool ok = x != NULL && layer_alike(r, cuda, ref, 0, x, x + COMPARED * most) && layer_alike(r, cuda, ref, ref->layout.n_layers - 1, x, x + COMPARED * most);
    free(x);
    return ok;
}

static bool bring(const struct cuda * cuda, int32_t device, const struct state * ref, const struct state * there) {
    bool ok = true;
    for (uint32_t i = 0; ok && i < ref->layout.n_layers; i++) {
        ok = cuda->upload(there->k[i], ref->k[i], state_key_bytes(ref, i), device) == SEMSHARE_OK && cuda->upload(there->v[i], ref->v[i], state_value_bytes(ref, i), device) == SEMSHARE_OK;
    }
    return ok;
}

bool resident_take(const struct cuda * cuda, int32_t device, uint64_t turn, const char * name, const struct state * ref, struct state * there, int32_t * brought, struct error * err) {
    char stem[MAX_NAME];
    if (!stem_of(name, stem)) {
        return fail(err, "%.64s is no name for a reference", name);
    }
    struct resident * r = find(stem);
    if (r != NULL && (r->device != device || !alike(r, cuda, ref))) {
        drop(r);
        r = NULL;
    }
    if (r != NULL) {
        r->turn = turn;
        *there = r->there;
        return true;
    }
    r = make(cuda, device, turn, stem, ref, err);
    if (r == NULL) {
        return false;
    }
    if (!bring(cuda, device, ref, &r->there)) {
        drop(r);
        return fail(err, "a reference cannot be copied to the device");
    }
    (*brought)++;
    *there = r->there;
    return true;
}
