/* The agent's parsers against what is not as it should be: every file that a recipe
 * names, and the recipe itself, may hold anything. Run under the sanitizers, where a
 * read outside the file ends the test. */
#include "agent/attended.h"
#include "agent/attention.h"
#include "agent/model.h"
#include "agent/recipe.h"
#include "agent/retain.h"
#include "agent/state.h"
#include "agent/tokenized.h"
#include "states.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint32_t next(void) { return (uint32_t) (next_random(&seed) >> 32); }

/* ---- a sound recipe and a sound state ---- */

enum { FOLLOWING = 2, RUNS = 2 };

static size_t write_recipe(uint8_t * to) {
    struct recipe_head h = {.magic = RECIPE_MAGIC, .version = RECIPE_VERSION, .n_tokens = TOKENS, .n_cells = CELLS, .n_runs = RUNS, .n_refs = 1,
                            .n_layers = LAYERS, .head_dim = DIMS, .dims = DIMS, .freq_base = 10000, .freq_scale = 1, .attn_factor = 1, .retention = 0.5f, .n_following = FOLLOWING, .n_drafted = 4, .share_attended = 0.2f, .share_first = 0.5f, .share_last = 0.1f, .state_version = 4, .streams = 2};
    struct recipe_ref ref = {.size = 100, .name = "reference"};
    const struct state_types types[LAYERS] = {{SEMSHARE_TYPE_F16, SEMSHARE_TYPE_F16}, {SEMSHARE_TYPE_F16, SEMSHARE_TYPE_F16}, {SEMSHARE_TYPE_F16, SEMSHARE_TYPE_F16}};
    int32_t tokens[TOKENS + FOLLOWING], pos[CELLS];
    uint16_t depth[CELLS], passage[CELLS] = {0};
    const struct semshare_run runs[RUNS] = {{0, 5, 0, 4, -5}, {0, 0, 5, 5, 7}};
    float freqs[DIMS / 2] = {1, 0.5f, 0.1f, 0.01f};
    for (int i = 0; i < TOKENS + FOLLOWING; i++) {
        tokens[i] = i * 7;
    }
    for (int i = 0; i < CELLS; i++) {
        pos[i] = i + 2;
        depth[i] = (uint16_t) (i == 4 ? LAYERS : i % LAYERS);
        passage[i] = i >= 5;
    }
    depth[6] = LAYERS | RECIPE_SAMPLE;
    uint8_t * p = to + sizeof h;
#define PUT(x) (memcpy(p, &(x), sizeof(x)), p += sizeof(x))
    PUT(ref);
    PUT(types);
    PUT(tokens);
    PUT(pos);
    PUT(depth);
    PUT(passage);
    PUT(runs);
    PUT(freqs);
#undef PUT
    h.size = (uint64_t) (p - to);
    memcpy(to, &h, sizeof h);
    return (size_t) h.size;
}

static void seal(uint8_t * bytes, size_t n) {
    if (n >= 24) {
        const uint64_t sum = xxhash64(bytes + 24, n - 24);
        memcpy(bytes + 16, &sum, sizeof sum);
    }
}

/* Parses a copy of exactly n bytes, so that the sanitizer sees every read beyond. */
static bool parses(const uint8_t * bytes, size_t n, struct recipe * r) {
    struct error err = {""};
    uint8_t * copy = malloc(n + (n == 0));
    memcpy(copy, bytes, n);
    memset(r, 0, sizeof *r);
    const bool ok = recipe_parse(r, copy, n, &err);
    CHECK(ok || err.text[0] != 0, "a refusal says why");
    if (ok) { /* all that may be read is there */
        int64_t sum = 0;
        for (uint32_t i = 0; i < r->head.n_cells; i++) {
            sum += r->tokens[r->pos[i]] + (int64_t) recipe_depth(r, i);
        }
        for (uint32_t i = 0; i < r->head.n_runs; i++) {
            sum += r->runs[i].dst;
        }
        CHECK(sum >= 0, "what was accepted adds up to %lld", (long long) sum);
    }
    free(copy);
    return ok;
}

static void test_hash(void) {
    CHECK(xxhash64((const uint8_t *) "", 0) == 0xef46db3751d8e999u, "the hash of nothing");
    CHECK(xxhash64((const uint8_t *) "abc", 3) == 0x44bc2cf5ad770999u, "the hash of abc");
}

static void test_recipe(void) {
    uint8_t bytes[2048];
    struct recipe r;
    const size_t n = write_recipe(bytes);
    seal(bytes, n);
    CHECK(parses(bytes, n, &r), "a sound recipe was refused");
    CHECK(r.head.n_cells == CELLS, "%u cells", r.head.n_cells);
    bytes[n - 1] ^= 1;
    CHECK(!parses(bytes, n, &r), "a wrong checksum was accepted");
}

/* A sample has a row to compare with, and is computed. */
static void test_samples(void) {
    uint8_t sound[2048], bytes[2048];
    struct recipe r;
    const size_t n = write_recipe(sound);
    uint8_t * depths = bytes + sizeof(struct recipe_head) + sizeof(struct recipe_ref) + LAYERS * sizeof(struct state_types) + (TOKENS + FOLLOWING + CELLS) * sizeof(int32_t);
    const struct {
        int cell;
        uint16_t depth;
        bool sound;
    } cases[] = {{7, LAYERS | RECIPE_SAMPLE, true}, {7, 1 | RECIPE_SAMPLE, false}, {4, LAYERS | RECIPE_SAMPLE, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        memcpy(bytes, sound, n);
        memcpy(depths + 2 * cases[i].cell, &cases[i].depth, 2);
        seal(bytes, n);
        CHECK(parses(bytes, n, &r) == cases[i].sound, "cell %d as a sample of depth %d", cases[i].cell, cases[i].depth & ~RECIPE_SAMPLE);
    }
}

static void test_shares(void) {
    uint8_t bytes[2048];
    struct recipe r;
    const size_t n = write_recipe(bytes);
    struct recipe_head * h = (struct recipe_head *) bytes;
    const struct {
        float retention, attended;
        bool sound;
    } cases[] = {{1, 0, true}, {1, 0.2f, true}, {0.5f, 0, true}, {0.5f, 1, true}, {1, -0.1f, false}, {1, 1.1f, false}, {0, 0, false}, {1.1f, 0, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        h->retention = cases[i].retention;
        h->share_attended = cases[i].attended;
        seal(bytes, n);
        CHECK(parses(bytes, n, &r) == cases[i].sound, "retention %g, attended %g", (double) cases[i].retention, (double) cases[i].attended);
    }
}

/* A draft wants a token to go on from. */
static void test_drafted(void) {
    uint8_t bytes[2048];
    struct recipe r;
    const size_t n = write_recipe(bytes);
    struct recipe_head * h = (struct recipe_head *) bytes;
    const struct {
        float retention;
        uint32_t drafted;
        bool sound;
    } cases[] = {{0.5f, 4, true}, {0.5f, 0, true}, {1, 4, true}, {0.5f, RECIPE_MAX_DRAFTED + 1, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        h->retention = cases[i].retention;
        h->n_drafted = cases[i].drafted;
        seal(bytes, n);
        CHECK(parses(bytes, n, &r) == cases[i].sound, "retention %g by %u tokens", (double) cases[i].retention, cases[i].drafted);
    }
    uint8_t * last = bytes + sizeof *h + sizeof(struct recipe_ref) + LAYERS * sizeof(struct state_types) + (TOKENS + FOLLOWING - 1) * sizeof(int32_t);
    write_recipe(bytes);
    last[3] = 0x80;
    seal(bytes, n);
    CHECK(!parses(bytes, n, &r), "a token below 0 that follows");
    /* The same bytes with nothing that follows: two more positions would be missing. */
    write_recipe(bytes);
    h->n_following = 0;
    seal(bytes, n);
    CHECK(!parses(bytes, n, &r), "no token that follows");
}

/* One thing at a time, on which all that comes after the checks relies. */
static void test_refused(void) {
    enum {
        REF = sizeof(struct recipe_head),
        TOKEN = REF + sizeof(struct recipe_ref) + LAYERS * sizeof(struct state_types),
        POS = TOKEN + (TOKENS + FOLLOWING) * 4,
        DEPTH = POS + CELLS * 4,
        PASSAGE = DEPTH + CELLS * 2,
        RUN = PASSAGE + CELLS * 2,
        FREQ = RUN + RUNS * sizeof(struct semshare_run),
        NAME = REF + offsetof(struct recipe_ref, name),
    };
#define OF_RUN(i, field) RUN + (i) * sizeof(struct semshare_run) + offsetof(struct semshare_run, field)
    const struct {
        const char * what;
        size_t at, size;
        uint32_t value;
    } cases[] = {
        {"another version", offsetof(struct recipe_head, version), 4, RECIPE_VERSION + 1},
        {"states of an unknown version", offsetof(struct recipe_head, state_version), 2, 5},
        {"states of no stream", offsetof(struct recipe_head, streams), 2, 0},
        {"no name", NAME, 1, 0},
        {"a name with a dot in front", NAME, 1, '.'},
        {"a name that leads elsewhere", NAME + 3, 1, '/'},
        {"a token below 0", TOKEN + 4, 4, (uint32_t) -1},
        {"a position below 0", POS, 4, (uint32_t) -1},
        {"a position twice", POS + 4, 4, 2},
        {"a position behind the tokens", POS + (CELLS - 1) * 4, 4, TOKENS},
        {"more layers than there are", DEPTH + 8 * 2, 2, LAYERS + 1},
        {"a passage of a higher number than the cells", PASSAGE + 8 * 2, 2, CELLS + 1},
        {"a reference below 0", OF_RUN(0, ref), 4, (uint32_t) -1},
        {"a reference that is not there", OF_RUN(0, ref), 4, 1},
        {"a row below 0", OF_RUN(0, src), 4, (uint32_t) -1},
        {"a cell below 0", OF_RUN(0, dst), 4, (uint32_t) -1},
        {"a run of nothing", OF_RUN(0, len), 4, 0},
        {"a run beyond the cells", OF_RUN(1, len), 4, 6},
        {"a run that ends beyond all numbers", OF_RUN(1, len), 4, INT32_MAX},
        {"a cell in two runs", OF_RUN(0, len), 4, 6},
        {"a cell in no run", OF_RUN(0, len), 4, 3},
        {"a frequency that is no number", FREQ, 4, 0x7fc00000},
    };
#undef OF_RUN
    uint8_t sound[2048], bytes[2048];
    struct recipe r;
    const size_t n = write_recipe(sound);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        memcpy(bytes, sound, n);
        memcpy(bytes + cases[i].at, &cases[i].value, cases[i].size);
        seal(bytes, n);
        CHECK(!parses(bytes, n, &r), "%s was accepted", cases[i].what);
    }
    struct recipe_head * h = (struct recipe_head *) bytes;
    memcpy(bytes, sound, n);
    h->n_tokens++; /* the last of which has no cell */
    h->n_following--;
    seal(bytes, n);
    CHECK(!parses(bytes, n, &r), "a last token without a cell was accepted");
}

static void test_recipes_mutated(int rounds) {
    uint8_t sound[2048], bytes[2048];
    struct recipe r;
    int accepted = 0;
    const size_t n = write_recipe(sound);
    for (int round = 0; round < rounds; round++) {
        memcpy(bytes, sound, n);
        size_t size = next() % 8 == 0 ? next() % (n + 1) : n;
        for (uint32_t i = next() % 4; i > 0; i--) {
            const size_t at = next() % n;
            bytes[at] = (uint8_t) (next() % 3 == 0 ? 0xff : next());
        }
        if (next() % 4 != 0 && size >= 16) {
            const uint64_t claimed = size;
            memcpy(bytes + 8, &claimed, sizeof claimed);
        }
        seal(bytes, size);
        accepted += parses(bytes, size, &r);
    }
    CHECK(accepted > 0 && accepted < rounds, "%d of %d mutated recipes accepted", accepted, rounds);
}

/* One sequence of one stream, and nothing behind it. */
static void test_plain_states(void) {
    int32_t tokens[TOKENS] = {1, 2, 3}, pos[1] = {0};
    const struct state_layout * l = layout(4, false);
    const size_t n = state_bytes(l, TOKENS, 1), streams = STATE_TOKENS + state_words(l, TOKENS) * 4 + 4;
    const size_t first = n - streams - 4; /* of the stream, its count of cells included */
    struct error err;
    struct state * s = calloc(1, sizeof *s);
    uint8_t * made = calloc(1, n + first);
    s->data = made;
    state_write(s, l, 0, tokens, TOKENS, pos, 1);
    const size_t sizes[] = {n, n + 1, n - 4 + first};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (i == 2) {
            memcpy(made + streams + first, made + streams, first); /* in the second stream too */
        }
        *s = (struct state) {.data = made, .size = sizes[i]};
        CHECK(state_parse(s, &err) == (i == 0), "a state of %zu bytes, of which %zu are its own", sizes[i], n);
    }
    free(made);
    free(s);
}

static void test_states(uint32_t version, bool trans, int rounds) {
    int32_t tokens[TOKENS] = {1, 2, 3}, pos[CELLS];
    struct error err;
    int accepted = 0;
    for (int i = 0; i < CELLS; i++) {
        pos[i] = i;
    }
    const size_t n = state_bytes(layout(version, trans), TOKENS, CELLS);
    struct state * made = calloc(1, sizeof *made), * read = calloc(1, sizeof *read);
    made->data = malloc(n);
    made->size = n;
    memset(made->data, 7, n);
    state_write(made, layout(version, trans), 1, tokens, TOKENS, pos, CELLS);
    for (int round = 0; round < rounds; round++) {
        const size_t size = round > 0 && next() % 8 == 0 ? next() % n : n;
        memset(read, 0, sizeof *read);
        read->data = malloc(size + (size == 0));
        read->size = size;
        memcpy(read->data, made->data, size);
        for (uint32_t i = round == 0 || size == 0 ? 0 : next() % 4; i > 0; i--) {
            read->data[next() % size] = (uint8_t) (next() % 3 == 0 ? 0xff : next());
        }
        const bool ok = state_parse(read, &err);
        accepted += ok;
        if (round == 0) {
            CHECK(ok && read->cells == CELLS && state_layout_takes(&read->layout, layout(version, trans)) && state_layer_equal(&read->layout, layout(version, trans), LAYERS - 1), "a state is read as it was written");
            CHECK(read->k[2] - read->data == made->k[2] - made->data && read->v[2] - read->data == made->v[2] - made->data, "rows of the last layer");
        }
        free(read->data);
    }
    CHECK(accepted > 0, "no state accepted");
    free(made->data);
    free(made);
    free(read);
}

static void test_retype(void) {
    struct error err = {""};
    struct state_layout * packed = calloc(1, sizeof *packed), * plain = calloc(1, sizeof *plain);
    *packed = *layout(4, false);
    for (int i = 0; i < LAYERS; i++) {
        packed->layers[i] = (struct state_layer) {.k_type = SEMSHARE_TYPE_Q8_0, .v_type = SEMSHARE_TYPE_Q5_1, .k_row = 2 * 34, .v_row = 2 * 24};
    }
    struct state_types to[LAYERS] = {{SEMSHARE_TYPE_F16, SEMSHARE_TYPE_F32}, {SEMSHARE_TYPE_F16, SEMSHARE_TYPE_F32}, {SEMSHARE_TYPE_Q8_0, SEMSHARE_TYPE_F32}};
    CHECK(state_retype(plain, packed, true, to, &err), "%s", err.text);
    CHECK(plain->v_trans && plain->layers[0].k_row == 128 && plain->layers[2].k_row == 68 && plain->layers[0].v_row == 0 && plain->layers[0].v_elem == 4 && plain->layers[0].v_width == 64,
          "rows of %lld, columns %lld of %lld", (long long) plain->layers[0].k_row, (long long) plain->layers[0].v_width, (long long) plain->layers[0].v_elem);
    CHECK(state_layout_takes(plain, packed) && !state_layer_equal(plain, packed, 2), "a retyped layout takes what it was made of");
    CHECK(!state_layout_takes(layout(4, false), packed), "rows of 8 and of 64 elements");
    packed->rot_k ^= 64;
    CHECK(!state_layout_takes(plain, packed), "keys of another rotation");
    packed->rot_k ^= 64;
    packed->version = 3;
    packed->streams++;
    CHECK(state_layout_takes(plain, packed), "rows of a file that is laid out otherwise");
    to[1].v = SEMSHARE_TYPE_Q8_0;
    CHECK(!state_retype(plain, packed, true, to, &err), "packed values do not lie in columns");
    to[1].v = SEMSHARE_TYPE_Q6_K;
    CHECK(!state_retype(plain, packed, false, to, &err), "no cache has K-quants");
    free(packed);
    free(plain);
}

static void test_retain(void) {
    enum { N = 100 };
    float attention[N] = {0};
    uint16_t depth[N] = {0};
    uint8_t keep[N];
    const struct recipe r = {.head = {.n_cells = N, .n_layers = LAYERS, .retention = 0.75f}, .depth = depth};
    depth[60] = RECIPE_KEEP;
    depth[61] = LAYERS;
    for (int i = 40; i < 50; i++) {
        attention[i] = 1;
    }
    const uint32_t kept = retain(&r, attention, keep);
    CHECK(kept == 75, "%u cells kept", kept);
    CHECK(keep[0] && keep[15] && keep[N - 32] && keep[N - 1] && keep[60], "the first, the last and the named");
    CHECK(keep[40] && keep[49], "what is attended to");
    CHECK(keep[16] && keep[31] && !keep[32] && !keep[61], "then the earliest");
}

/* Two heads share out their attention to three cells, the last of which is not the recipe's;
 * of three layers the first does not look things up. */
static void test_attention(void) {
    const float shared[] = {0.5f, 0.25f, 0.25f, 0, 0.5f, 0.5f};
    struct error err = {""};
    struct attention a;
    const struct recipe looks = {.head = {.n_cells = 2, .n_layers = 3, .retention = 1, .share_attended = 0.1f}};
    CHECK(attention_init(&a, &looks, &err) && a.shares != NULL && a.logs == NULL, "what a recipe that looks asks for");
    CHECK(!attention_wants(&a, 0) && attention_wants(&a, 1) && attention_wants(&a, 2), "the layers that count");
    attention_add(&a, 1, shared, 2, 3);
    attention_add(&a, 2, shared, 2, 3);
    CHECK(fabsf(a.shares[0] - 1) < 1e-6f && fabsf(a.shares[1] - 1.5f) < 1e-6f, "shares %g and %g", (double) a.shares[0], (double) a.shares[1]);
    attention_free(&a);

    const struct recipe thins = {.head = {.n_cells = 2, .n_layers = 3, .retention = 0.5f}};
    CHECK(attention_init(&a, &thins, &err) && a.shares == NULL && a.logs != NULL, "what a recipe that thins asks for");
    CHECK(attention_wants(&a, 0), "all layers count");
    attention_add(&a, 0, shared, 2, 3);
    CHECK(fabsf(a.logs[0] - logf(0.5f) - logf(1e-5f)) < 1e-3f && fabsf(a.logs[1] - logf(0.25f) - logf(0.5f)) < 1e-3f, "logarithms %g and %g", (double) a.logs[0], (double) a.logs[1]);
    attention_free(&a);

    const struct recipe all = {.head = {.n_cells = 2, .retention = 1}};
    uint8_t keep[2] = {0};
    CHECK(retain(&all, NULL, keep) == 2 && keep[0] && keep[1], "a recipe that does not thin keeps all");
}

static void test_attended(void) {
    enum { N = 100 };
    float attention[N];
    uint16_t depth[N] = {0};
    uint8_t chosen[N] = {0};
    struct error err = {""};
    const struct recipe r = {.head = {.n_cells = N, .n_layers = LAYERS, .share_attended = 0.1f}, .depth = depth};
    for (int i = 0; i < N; i++) {
        attention[i] = (float) -i; /* the first the most */
        depth[i] = i >= 50 ? RECIPE_DISPLACED : 0;
    }
    depth[50] |= LAYERS;
    depth[51] |= 1;
    CHECK(choose_attended(&r, attention, chosen, &err), "%s", err.text);
    int n = 0;
    for (int i = 0; i < N; i++) {
        n += chosen[i];
    }
    CHECK(n == 5, "%d cells chosen: expected a tenth of 50", n);
    CHECK(chosen[51] && chosen[55] && !chosen[50] && !chosen[49] && !chosen[0], "of the displaced ones that are not computed anyway those most attended to");
}

/* ---- the model ---- */

/* A llama of one layer, as a server would show it: the names and tensors of its map, and
 * where they lie. */
enum { HEAD = 4, EMBEDDING = 2 * HEAD, KV = HEAD, INNER = 16, VOCABULARY = 24, IN_HOST = 1, ELSEWHERE = 2 };

static struct {
    struct {
        const char * name;
        ggt * tensor;
    } entries[16];
    ggt tensors[16];
    const void * vector[2];
} shown;

static void show(const char * name, int64_t in, int64_t out, int64_t buffer) {
    const size_t n = (size_t) ((const char *) shown.vector[1] - (const char *) shown.vector[0]) / sizeof *shown.entries;
    shown.tensors[n] = (ggt) {.buffer = (void *) (uintptr_t) buffer, .ne = {in, out, 1, 1}};
    shown.entries[n].name = name;
    shown.entries[n].tensor = &shown.tensors[n];
    shown.vector[1] = &shown.entries[n + 1];
}

static int32_t show_meta(const struct llama_model * unused, const char * key, char * to, size_t size) {
    (void) unused;
    const char * value = strcmp(key, "general.architecture") == 0 ? "llama" : strcmp(key, "llama.attention.layer_norm_rms_epsilon") == 0 ? "1e-5" : NULL;
    return value == NULL ? -1 : snprintf(to, size, "%s", value);
}

static int32_t show_1(const struct llama_model * unused) { return unused == NULL; }

static int32_t show_2(const struct llama_model * unused) { return 1 + show_1(unused); }

static int32_t show_embedding(const struct llama_model * unused) { return EMBEDDING * show_1(unused); }

static bool show_host(void * buffer) { return buffer == (void *) (uintptr_t) IN_HOST; }

static const void * show_map(const struct llama_model * unused) { return unused == NULL ? shown.vector : NULL; }

/* Reads a model whose table lies in one buffer, and a second time, where that is not 0, in
 * another. */
static bool read_shown(struct model * m, int64_t first, int64_t second, struct error * err) {
    const struct abi abi = {.llama_model_meta_val_str = show_meta, .llama_model_n_layer = show_1, .llama_model_n_embd = show_embedding, .llama_model_n_head = show_2, .llama_model_n_head_kv = show_1,
                            .ggml_backend_buffer_is_host = show_host, .tensor_map = show_map, .tensor_map_entry = sizeof *shown.entries};
    shown.vector[0] = shown.vector[1] = shown.entries;
    show("token_embd.weight", EMBEDDING, VOCABULARY, first);
    show("output_norm.weight", EMBEDDING, 1, IN_HOST);
    show("blk.0.attn_norm.weight", EMBEDDING, 1, IN_HOST);
    show("blk.0.attn_q.weight", EMBEDDING, EMBEDDING, ELSEWHERE);
    show("blk.0.attn_k.weight", EMBEDDING, KV, ELSEWHERE);
    show("blk.0.attn_v.weight", EMBEDDING, KV, ELSEWHERE);
    show("blk.0.attn_output.weight", EMBEDDING, EMBEDDING, ELSEWHERE);
    show("blk.0.ffn_norm.weight", EMBEDDING, 1, IN_HOST);
    show("blk.0.ffn_gate.weight", EMBEDDING, INNER, ELSEWHERE);
    show("blk.0.ffn_up.weight", EMBEDDING, INNER, ELSEWHERE);
    show("blk.0.ffn_down.weight", INNER, EMBEDDING, ELSEWHERE);
    if (second != 0) {
        show("token_embd.weight", EMBEDDING, VOCABULARY, second);
    }
    return model_read(m, &abi, NULL, HEAD, err);
}

/* Of a table that is there twice the agent takes rows from that in plain host memory, however
 * they stand, and one from which it cannot is refused. */
static void test_tables(void) {
    static struct model m;
    struct error err;
    ggt * first = &shown.tensors[0], * second = &shown.tensors[11];
    CHECK(read_shown(&m, IN_HOST, 0, &err) && m.embeddings == first && m.output == first, "one table: %s", err.text);
    CHECK(read_shown(&m, IN_HOST, ELSEWHERE, &err) && m.embeddings == first && m.output == second, "the second repacked: %s", err.text);
    CHECK(read_shown(&m, ELSEWHERE, IN_HOST, &err) && m.embeddings == second && m.output == first, "the first repacked: %s", err.text);
    CHECK(!read_shown(&m, ELSEWHERE, 0, &err) && strstr(err.text, "token_embd.weight") != NULL, "no plain table: not refused by name: %s", err.text);
    CHECK(!read_shown(&m, ELSEWHERE, ELSEWHERE, &err), "two tables, none plain: not refused");
}

/* ---- texts ---- */

static void expect(const struct llama_vocab * vocab, const int32_t * tokens, uint32_t n) { tokenized_expect(vocab, n, xxhash64((const uint8_t *) tokens, n * sizeof *tokens)); }

static void test_tokenized(void) {
    enum { LEN = TOKENIZED_LEAST, N = 5 };
    static char bytes[LEN + 1], other[LEN + 1];
    memset(bytes, 'a', LEN);
    memset(other, 'a', LEN);
    other[LEN - 1] = 'b';
    const struct llama_vocab * vocab = (const struct llama_vocab *) (const void *) bytes, * reloaded = (const struct llama_vocab *) (const void *) other;
    const int32_t tokens[N] = {3, 1, 4, 1, 5}, others[N] = {3, 1, 4, 1, 6};
    int32_t got[N] = {0};
    struct text t = {vocab, bytes, LEN, true, true};
#define TAKE(capacity) tokenized_take(&t, got, capacity)
    tokenized_keep(&t, tokens, N);
    CHECK(TAKE(N) == -1, "given out without a recipe");
    expect(vocab, tokens, N - 1); /* a prompt that this one goes on with */
    expect(vocab, others, N);
    expect(reloaded, tokens, N);
    CHECK(TAKE(N) == -1, "given out after the recipe of something else");
    t.bytes = other; /* another's prompt of the same beginning, asked for later */
    tokenized_keep(&t, others, N);
    expect(vocab, tokens, N);
    CHECK(TAKE(N) == -1, "given out for another text");
    t = (struct text) {vocab, bytes, LEN, false, true};
    CHECK(TAKE(N) == -1, "given out where no special tokens are to be added");
    t = (struct text) {vocab, bytes, LEN, true, false};
    CHECK(TAKE(N) == -1, "given out where special tokens are text");
    t = (struct text) {reloaded, bytes, LEN, true, true};
    CHECK(TAKE(N) == -1, "given out for another model");
    t.vocab = vocab;
    CHECK(TAKE(N) == N && memcmp(got, tokens, sizeof tokens) == 0, "not given out after its recipe");
    CHECK(TAKE(N) == -1, "given out twice");

    tokenized_keep(&t, tokens, N);
    expect(vocab, tokens, N);
    CHECK(TAKE(N - 1) == -1 && TAKE(N) == -1, "given out where they do not fit, or kept after that");

    tokenized_keep(&t, tokens, N);
    expect(vocab, tokens, N);
    const struct timespec wait = {.tv_sec = 1, .tv_nsec = 50000000};
    nanosleep(&wait, NULL);
    CHECK(TAKE(N) == -1, "given out long after its recipe");

    t.add_special = false; /* a part of a prompt */
    tokenized_keep(&t, tokens, N);
    expect(vocab, tokens, N);
    CHECK(TAKE(N) == -1, "a part of a prompt is kept");
    t.add_special = true;

    for (int32_t i = 0; i < 3 * TOKENIZED_ENTRIES; i++) { /* the last ones stay */
        const int32_t numbered[N] = {i, 1, 4, 1, 5};
        bytes[0] = (char) i;
        tokenized_keep(&t, numbered, N);
        if (i % 3 != 0) {
            expect(vocab, numbered, N);
            CHECK(TAKE(N) == N && got[0] == i, "text %d not given out", i);
        }
    }
    const size_t large = TOKENIZED_BYTES / 3;
    char * long_text = calloc(1, large);
    t = (struct text) {vocab, long_text, (int32_t) large, true, true};
    for (int32_t i = 0; i < 9; i++) {
        const int32_t numbered[N] = {1000 + i, 1, 4, 1, 5};
        long_text[0] = (char) i;
        tokenized_keep(&t, numbered, N);
    }
    int32_t kept = 0;
    for (int32_t i = 0; i < 9; i++) {
        const int32_t numbered[N] = {1000 + i, 1, 4, 1, 5};
        long_text[0] = (char) i;
        expect(vocab, numbered, N);
        kept += TAKE(N) == N;
    }
    CHECK(kept == 2, "%d texts of %zu bytes are kept: expected 2", kept, large);
    free(long_text);
#undef TAKE
}

int main(void) {
    test_tokenized();
    test_tables();
    test_hash();
    test_recipe();
    test_samples();
    test_shares();
    test_drafted();
    test_refused();
    test_recipes_mutated(200000);
    test_retype();
    test_retain();
    test_attention();
    test_attended();
    test_plain_states();
    test_states(3, false, 20000);
    test_states(4, false, 20000);
    test_states(4, true, 20000);
    return report("agent");
}
