#include "room.h"

#include "resident.h"
#include "rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* They are kept, since their pages cost more to get than to fill. */
static int memory_files[] = {[ROOM_WHOLE] = -1, [ROOM_THINNED] = -1};

void room_forget(void) {
    for (int i = ROOM_WHOLE; i <= ROOM_THINNED; i++) {
        if (memory_files[i] >= 0) {
            close(memory_files[i]);
        }
        memory_files[i] = -1;
    }
}

bool room_map(struct job * j, enum room_file which, size_t size, struct error * err) {
    int * fd = &memory_files[which];
    if (*fd < 0) {
        *fd = memfd_create("semshare-state", MFD_CLOEXEC);
    }
    if (*fd < 0 || ftruncate(*fd, (off_t) size) != 0) {
        return fail(err, "cannot make a memory file of %zu bytes", size);
    }
    void * data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (data == MAP_FAILED) {
        return fail(err, "cannot map a memory file of %zu bytes", size);
    }
    j->made.data = data;
    j->made.size = size;
    snprintf(j->path, sizeof j->path, "/proc/self/fd/%d", *fd);
    return true;
}

/* Writes all of the state but its rows, into memory of state_bytes. */
static bool write_state(struct job * j, uint32_t stream, struct error * err) {
    const struct recipe_head * h = &j->recipe.head;
    const struct state_layout layout = j->made.layout;
    const uint32_t n = recipe_all_cells(&j->recipe);
    int32_t * pos = malloc(n * sizeof *pos);
    if (pos == NULL) {
        return fail(err, "out of memory");
    }
    memcpy(pos, j->recipe.pos, h->n_cells * sizeof *pos);
    for (uint32_t i = h->n_cells; i < n; i++) {
        pos[i] = (int32_t) (h->n_tokens + i - h->n_cells);
    }
    state_write(&j->made, &layout, stream, j->recipe.tokens, h->n_tokens, pos, n);
    free(pos);
    return true;
}

/* Address space for a state of which only what is not rows is written: it takes a page a
 * layer. */
static bool map_outline(struct job * j, struct error * err) {
    const size_t size = state_bytes(&j->made.layout, j->recipe.head.n_tokens, recipe_all_cells(&j->recipe));
    void * data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) {
        return fail(err, "cannot map %zu bytes", size);
    }
    j->made.data = data;
    j->made.size = size;
    return true;
}

static bool in_host_memory(const struct job * j) {
    for (uint32_t i = 0; i < j->made.layout.n_layers; i++) {
        if (!j->abi->ggml_backend_buffer_is_host(j->cache.k[i]->buffer) || !j->abi->ggml_backend_buffer_is_host(j->cache.v[i]->buffer)) {
            return false;
        }
    }
    return true;
}

/* Checks that all rows lie in the memory of one device that the CUDA library runs on. */
static bool in_device_memory(struct job * j, struct error * err) {
    const struct cuda * cuda = cuda_for(j->made.k[0], &j->device, err);
    if (cuda == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < j->made.layout.n_layers; i++) {
        if (cuda->device_of(j->made.k[i]) != j->device || cuda->device_of(j->made.v[i]) != j->device) {
            return fail(err, "the server's cache does not lie on one CUDA device");
        }
    }
    if (recipe_computes(&j->recipe) && !rows_plain(&j->made)) {
        return fail(err, "rows of this cache are not computed on the device: its types, or values in columns");
    }
    j->cuda = cuda;
    return true;
}

/* Has references lie in the device's memory too. */
static bool take_residents(struct job * j, struct error * err) {
    for (uint32_t i = 0; i < j->recipe.head.n_refs; i++) {
        if (!resident_take(j->cuda, j->device, j->turn, j->recipe.refs[i].name, &j->refs[i], &j->residents[i], &j->brought, err)) {
            return false;
        }
    }
    return true;
}

void room_empty(const struct job * j, int32_t seq, int32_t from) {
    j->abi->llama_memory_seq_rm(j->abi->llama_get_memory(j->ctx), seq, from, -1);
}

static bool lay_in_cache(struct job * j, int32_t seq, struct error * err) {
    if (recipe_thins(&j->recipe)) {
        return fail(err, "only some of the cells are to be kept");
    }
    if (!map_outline(j, err) || !write_state(j, state_stream(&j->made.layout, seq), err) || !cache_find(&j->cache, j->abi, j->ctx, seq, &j->made, err)) {
        return false;
    }
    if (in_host_memory(j) || (in_device_memory(j, err) && take_residents(j, err))) {
        return true;
    }
    room_empty(j, seq, -1);
    return false;
}

bool room_aside(struct job * j, int32_t seq, struct error * err) {
    const struct state_layout * l = &j->made.layout;
    j->in_cache = false;
    j->cuda = NULL;
    state_close(&j->made);
    return room_map(j, ROOM_WHOLE, state_bytes(l, j->recipe.head.n_tokens, recipe_all_cells(&j->recipe)), err) && write_state(j, state_stream(l, seq), err);
}

bool room_find(struct job * j, int32_t seq, struct error * err) {
    j->in_cache = lay_in_cache(j, seq, &j->aside);
    if (j->in_cache) {
        return true;
    }
    if (j->cache.no_cells && !recipe_drafts(&j->recipe)) {
        j->no_cells = true;
        return fail(err, "%s", j->aside.text);
    }
    return room_aside(j, seq, err);
}
