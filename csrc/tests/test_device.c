/* References on a device, and recipes carried out there, on a device that is the host (see
 * cuda_on_host.h): what is kept there, and what is done where the device fails. */
#include "agent/agent.h"
#include "agent/cache.h"
#include "agent/cuda.h"
#include "agent/recipe.h"
#include "agent/resident.h"
#include "agent/saving.h"
#include "cuda_on_host.h"
#include "states.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static const int32_t in_order[CELLS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};

/* ---- residents ---- */

/* A reference is brought once, and anew where its file is another; the one that was needed
 * longest ago makes room, and none that the same recipe needs. */
static void test_residents(void) {
    enum { REFS = 4 };
    struct state * refs = calloc(REFS + 1, sizeof *refs), * there = &refs[REFS];
    static const char * const names[] = {"a", "b", "c", "d", "e"};
    struct error err = {""};
    int32_t brought = 0, device = -1;
    const struct cuda * cuda = cuda_for(refs, &device, &err);
    CHECK(cuda != NULL && device == 0, "%s", err.text);
    for (int i = 0; i < REFS; i++) {
        make_state(&refs[i], in_order);
    }
    setenv("SEMSHARE_AGENT_DEVICE_MB", "0", 1);
    CHECK(!resident_take(cuda, 0, 1, "a.bin", &refs[0], there, &brought, &err), "a reference where none may lie");
    resident_set_budget(3 * 2 * LAYERS * 256); /* three references */
    for (int i = 0; i < REFS; i++) {
        CHECK(resident_make(cuda, 0, agent_turn(), names[i], &refs[i], there, &err), "one saving makes room for the next: %s", err.text);
    }
    for (int i = 0; i < REFS; i++) {
        resident_drop(names[i]);
    }
    cuda_on_host.uploads = 0;
#define TAKE(recipe, name, i) resident_take(cuda, 0, recipe, name, &refs[i], there, &brought, &err)
    CHECK(TAKE(1, "a.bin", 0) && brought == 1 && memcmp(there->k[1], refs[0].k[1], CELLS * ROW) == 0 && there->k[1] != refs[0].k[1], "the first time it is brought");
    CHECK(TAKE(2, "a.bin", 0) && brought == 1, "and stays");
    CHECK(TAKE(2, "a.saved", 0) && brought == 1, "under its name up to the dot");
    CHECK(TAKE(3, "a.bin", 1) && brought == 2 && memcmp(there->v[2], refs[1].v[2], CELLS * ROW) == 0, "another file of that name is brought anew");
    CHECK(TAKE(4, "b.bin", 2) && TAKE(5, "c.bin", 3) && TAKE(6, "b.bin", 2) && brought == 4, "others beside it");
    CHECK(TAKE(7, "d.bin", 0) && TAKE(8, "b.bin", 2) && TAKE(8, "c.bin", 3) && brought == 5, "a fourth in the place of the first");
    CHECK(TAKE(9, "a.bin", 1) && brought == 6 && TAKE(9, "b.bin", 2) && brought == 6, "which is brought again in the place of the fourth");
    CHECK(TAKE(9, "c.bin", 3) && !TAKE(9, "d.bin", 0), "one recipe cannot have four");
    CHECK(resident_make(cuda, 0, 10, "e.saved", &refs[0], there, &err), "%s", err.text);
    for (int i = 0; i < LAYERS; i++) {
        memcpy(there->k[i], refs[0].k[i], CELLS * ROW);
        memcpy(there->v[i], refs[0].v[i], CELLS * ROW);
    }
    brought = 0;
    CHECK(TAKE(11, "e.bin", 0) && brought == 0, "what was saved need not be brought");
    CHECK(!TAKE(12, ".bin", 0) && !TAKE(12, "0123456789012345678901234567890123456789012345678901234567890123456789.bin", 0), "no names");
    resident_drop_all();
    setenv("SEMSHARE_AGENT_DEVICE_MB", "1", 1);
    CHECK(TAKE(13, "e.bin", 0) && brought == 1, "after all were dropped it is brought anew, and what they may take is looked up anew");
    CHECK(resident_take(cuda, 1, 14, "e.bin", &refs[0], there, &brought, &err) && brought == 2, "on another device it is brought anew");
#undef TAKE
    resident_drop_all();
    CHECK(cuda_on_host.uploads == 8 * 2 * LAYERS, "%d halves of layers were brought: expected those of 8 references", cuda_on_host.uploads);
    for (int i = 0; i < REFS; i++) {
        free(refs[i].data);
    }
    free(refs);
}

/* ---- a server ---- */

enum { FIRST = 3, CACHE_CELLS = 512, LEAST = 4 + 4 * 2 /* bytes of a state of two empty streams */ };

/* Whose one sequence lies in the cells from FIRST on, of a cache that is not in the host's
 * memory, by what it says. */
static struct {
    ggt k[LAYERS], v[LAYERS];
    uint8_t rows[2 * LAYERS][CACHE_CELLS * ROW];
    char names[2 * LAYERS][24];
    bool filled;           /* whether the sequence has cells */
    const int32_t * pos;   /* of its cells, for saving */
    struct state restored; /* from a file */
} server;

static void start_server(void) {
    for (int i = 0; i < LAYERS; i++) {
        server.k[i] = server.v[i] = (ggt) {.type = GGML_TYPE_F16, .buffer = &server, .ne = {DIMS, CACHE_CELLS, 1, 1}};
        snprintf(server.names[i], sizeof server.names[i], "cache_k_l%d", i);
        snprintf(server.names[LAYERS + i], sizeof server.names[i], "cache_v_l%d", i);
    }
}

static int place_of(const ggt * t) { return t >= server.v && t < server.v + LAYERS ? LAYERS + (int) (t - server.v) : (int) (t - server.k); }

static void * show_data(const ggt * t) { return server.rows[place_of(t)]; }

static const char * show_name(const ggt * t) { return server.names[place_of(t)]; }

static bool show_host(void * buffer) { return buffer == NULL; }

static size_t show_row(int32_t type, int64_t n) { return (size_t) state_row_bytes((uint32_t) type, n); }

static const struct llama_model * show_model(const struct llama_context * ctx) { return (const void *) ctx; }

static const struct llama_vocab * show_vocab(const struct llama_model * model) { return (const void *) model; }

static int32_t show_threads(struct llama_context * ctx) { return ctx == NULL; }

static llama_memory_t show_memory(const struct llama_context * ctx) { return ctx == NULL ? &server : NULL; }

static void synchronize(struct llama_context * ctx) { (void) ctx; }

static bool empty(llama_memory_t memory, int32_t seq, int32_t from, int32_t to) {
    (void) memory, (void) seq, (void) to;
    server.filled = server.filled && from > 0;
    return true;
}

static size_t empty_size(struct llama_context * ctx, int32_t seq) {
    (void) ctx, (void) seq;
    return LEAST;
}

static size_t empty_state(struct llama_context * ctx, uint8_t * to, size_t size, int32_t seq) {
    (void) ctx, (void) seq;
    const uint32_t streams = 2;
    memset(to, 0, size);
    memcpy(to, &streams, sizeof streams);
    return size;
}

/* Copies the rows of a state without its head to the cells, past the agent's note. */
static size_t set_state(struct llama_context * ctx, const uint8_t * from, size_t size, int32_t seq) {
    const uint32_t head[] = {0x67677371, 4, 1, (uint32_t) -1};
    struct state * s = calloc(1, sizeof *s);
    struct error err;
    (void) ctx, (void) seq;
    s->size = sizeof head + size;
    s->data = malloc(s->size);
    memcpy(s->data, head, sizeof head);
    memcpy(s->data + sizeof head, from, size);
    const bool ok = state_parse(s, &err);
    const uint8_t * shifted = from - sizeof head;
    for (int i = 0; ok && i < LAYERS; i++) {
        CHECK(cache_notes(&server.k[i], shifted + (s->k[i] - s->data), FIRST * ROW, (size_t) state_key_bytes(s, (uint32_t) i)), "keys are not noted");
        CHECK(cache_notes(&server.v[i], shifted + (s->v[i] - s->data), FIRST * ROW, (size_t) state_value_bytes(s, (uint32_t) i)), "values are not noted");
    }
    server.filled = ok;
    free(s->data);
    free(s);
    return ok ? size : 0;
}

static void write_file(const char * path, const void * bytes, size_t size) {
    FILE * f = fopen(path, "wb");
    CHECK(f != NULL && fwrite(bytes, 1, size, f) == size, "%s cannot be written", path);
    fclose(f);
}

static size_t load_file(struct llama_context * ctx, const char * path, int32_t seq, int32_t * tokens, size_t capacity, size_t * count) {
    struct state * s = &server.restored;
    struct stat st;
    struct error err = {""};
    (void) ctx, (void) seq, (void) tokens, (void) capacity;
    CHECK(!server.filled, "a state is restored beside what is there");
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &st) == 0, "%s cannot be opened", path);
    memset(s, 0, sizeof *s);
    s->size = (size_t) st.st_size;
    s->data = malloc(s->size);
    CHECK(read(fd, s->data, s->size) == (ssize_t) s->size && state_parse(s, &err), "%s", err.text);
    close(fd);
    *count = TOKENS;
    return s->size;
}

static size_t save_file(struct llama_context * ctx, const char * path, int32_t seq, const int32_t * tokens, size_t n_tokens) {
    struct state s;
    (void) ctx, (void) seq, (void) tokens, (void) n_tokens;
    make_state(&s, server.pos);
    for (int i = 0; i < LAYERS; i++) {
        saving_notes(&server.k[i], FIRST * ROW, CELLS * ROW);
        memcpy(s.k[i], server.rows[i] + FIRST * ROW, CELLS * ROW);
    }
    for (int i = 0; i < LAYERS; i++) {
        saving_notes(&server.v[i], FIRST * ROW, CELLS * ROW);
        memcpy(s.v[i], server.rows[LAYERS + i] + FIRST * ROW, CELLS * ROW);
    }
    write_file(path, s.data, s.size);
    free(s.data);
    return s.size;
}

static const struct abi abi = {
    .llama_get_model = show_model, .llama_model_get_vocab = show_vocab, .llama_n_threads_batch = show_threads, .llama_get_memory = show_memory,
    .llama_memory_seq_rm = empty, .llama_state_seq_get_size = empty_size, .llama_state_seq_get_data = empty_state, .llama_state_seq_set_data = set_state,
    .llama_synchronize = synchronize, .ggml_get_data = show_data, .ggml_get_name = show_name, .ggml_backend_buffer_is_host = show_host, .ggml_row_size = show_row,
    .load_file = load_file, .save_file = save_file,
};

/* ---- recipes ---- */

static char dir[] = "/tmp/semshare-device-XXXXXX";

static const char * in_dir(const char * name) {
    static char path[64];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

/* Has the server save its sequence of random rows, as cells at those positions; kept gets the
 * same with its rows in order of position, which is written as the file that recipes name. */
static void save(const int32_t * pos, struct state * kept) {
    make_state(kept, in_order);
    for (int i = 0; i < LAYERS; i++) {
        for (int c = 0; c < CELLS; c++) {
            memcpy(server.rows[i] + (FIRST + c) * ROW, kept->k[i] + pos[c] * ROW, ROW);
            memcpy(server.rows[LAYERS + i] + (FIRST + c) * ROW, kept->v[i] + pos[c] * ROW, ROW);
        }
    }
    server.pos = pos;
    CHECK(saving_keep(&abi, NULL, in_dir("a.saved"), 0, NULL, 0) > 0, "not saved");
    write_file(in_dir("a.bin"), kept->data, kept->size);
    memset(server.rows, 0, sizeof server.rows);
}

/* All cells of a.bin, where they are. */
static void write_recipe(size_t size) {
    struct {
        struct recipe_head h;
        struct recipe_ref ref;
        struct state_types types[LAYERS];
        int32_t tokens[CELLS], pos[CELLS];
        uint16_t depth[CELLS], passage[CELLS];
        struct semshare_run run;
    } r = {
        .h = {.magic = RECIPE_MAGIC, .version = RECIPE_VERSION, .n_tokens = CELLS, .n_cells = CELLS, .n_runs = 1, .n_refs = 1, .n_layers = LAYERS, .head_dim = DIMS, .retention = 1, .flags = RECIPE_PACKED, .state_version = 4, .streams = 2},
        .ref = {.size = size, .name = "a.bin"},
        .run = {.len = CELLS},
    };
    for (int i = 0; i < LAYERS; i++) {
        r.types[i] = (struct state_types) {SEMSHARE_TYPE_F16, SEMSHARE_TYPE_F16};
    }
    memcpy(r.pos, in_order, sizeof r.pos);
    const size_t hashed = offsetof(struct recipe_head, checksum) + sizeof r.h.checksum;
    r.h.size = (size_t) ((const uint8_t *) (&r.run + 1) - (const uint8_t *) &r);
    r.h.checksum = xxhash64((const uint8_t *) &r + hashed, (size_t) r.h.size - hashed);
    write_file(in_dir("r"), &r, (size_t) r.h.size);
}

/* Has the agent carry it out, and returns its reply. */
static const char * carry_out(size_t ref_size) {
    static char reply[4096];
    int32_t tokens[CELLS + 4];
    size_t count = 0, n = 0;
    write_recipe(ref_size);
    write_file(in_dir("r.reply"), "", 0);
    CHECK(agent_restore(&abi, NULL, in_dir("r"), 0, tokens, sizeof tokens / sizeof *tokens, &count) > 0, "the recipe failed");
    FILE * f = fopen(in_dir("r.reply"), "rb");
    if (f != NULL) {
        n = fread(reply, 1, sizeof reply - 1, f);
        fclose(f);
    }
    reply[n] = 0;
    return reply;
}

static bool says(const char * reply, const char * what) { return strstr(reply, what) != NULL; }

/* ---- what is kept ---- */

/* The device has rows in the order of the server's cells, recipes go by that of a file which
 * the sidecar wrote anew; those that the agent compares may be the same in both. */
static void test_order(void) {
    static const int32_t scattered[CELLS] = {0, 3, 4, 1, 2, 5, 6, 7, 8, 9};
    const struct {
        const int32_t * pos;
        const char * brought;
    } cases[] = {{in_order, "\"brought\":0"}, {scattered, "\"brought\":1"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct state kept;
        save(cases[i].pos, &kept);
        const char * reply = carry_out(kept.size);
        CHECK(says(reply, "\"cache\":\"cuda\"") && says(reply, cases[i].brought), "expected %s: %s", cases[i].brought, reply);
        for (int l = 0; l < LAYERS; l++) {
            CHECK(memcmp(server.rows[l] + FIRST * ROW, kept.k[l], CELLS * ROW) == 0 && memcmp(server.rows[LAYERS + l] + FIRST * ROW, kept.v[l], CELLS * ROW) == 0, "case %zu: rows of layer %d are not those of the kept file", i, l);
        }
        free(kept.data);
        agent_forget(&abi);
    }
}

/* ---- a device that fails ---- */

/* The recipe is carried out in the host's memory, and the reply says why. */
static void check_aside(const char * why) {
    struct state kept;
    save(in_order, &kept);
    const char * reply = carry_out(kept.size);
    CHECK(says(reply, "\"cache\":\"aside\"") && says(reply, why), "expected %s: %s", why, reply);
    CHECK(server.restored.data != NULL && server.restored.cells == CELLS, "nothing was restored");
    for (int l = 0; server.restored.data != NULL && l < LAYERS; l++) {
        CHECK(memcmp(server.restored.k[l], kept.k[l], CELLS * ROW) == 0 && memcmp(server.restored.v[l], kept.v[l], CELLS * ROW) == 0, "rows of layer %d are not those of the kept file", l);
    }
    free(server.restored.data);
    server.restored.data = NULL;
    free(kept.data);
    agent_forget(&abi);
}

static void test_failing(void) {
    cuda_on_host = (struct cuda_on_host) {.compose_status = SEMSHARE_ERR_DEVICE};
    check_aside("composing: ");
    cuda_on_host = (struct cuda_on_host) {.unusable = "too old"};
    check_aside("libsemshare_cuda.so does not run on CUDA device 0: too old");
    CHECK(cuda_on_host.copies == 0 && cuda_on_host.uploads == 0, "references are kept where no recipe is carried out");
    cuda_on_host = (struct cuda_on_host) {0};
}

int main(void) {
    CHECK(mkdtemp(dir) != NULL, "no directory");
    start_server();
    test_residents();
    test_order();
    test_failing();
    static const char * const names[] = {"a.saved", "a.bin", "r", "r.reply", ""};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        remove(in_dir(names[i]));
    }
    return report("device");
}
