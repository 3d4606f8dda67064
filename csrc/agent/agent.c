#include "agent.h"

#include "attended.h"
#include "draft.h"
#include "job.h"
#include "linear.h"
#include "references.h"
#include "reply.h"
#include "resident.h"
#include "retain.h"
#include "room.h"
#include "rows.h"
#include "tokenized.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t turn; /* of the recipe or saving under way, or the last */

void agent_lock(void) { pthread_mutex_lock(&lock); }

void agent_unlock(void) { pthread_mutex_unlock(&lock); }

uint64_t agent_turn(void) { return ++turn; }

void agent_forget(const struct abi * abi) {
    agent_lock();
    resident_drop_all();
    engine_forget(abi);
    room_forget();
    agent_unlock();
}

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec * 1e3 + (double) t.tv_nsec / 1e6;
}

/* ---- composing ---- */

/* Rows of a reference's layer, for a state of the layout to. */
static struct semshare_source source_of(const struct state * r, const struct state_layout * to, uint32_t layer) {
    const struct state_layer * y = &r->layout.layers[layer];
    return (struct semshare_source) {
        .k = r->k[layer], .v = r->v[layer], .k_size = state_key_bytes(r, layer), .v_size = state_value_bytes(r, layer), .cells = r->cells,
        .retyped = !state_layer_equal(&r->layout, to, layer), .k_type = y->k_type, .v_type = y->v_type, .v_trans = r->layout.v_trans,
    };
}

static void set_job(struct semshare_job * to, const struct state * s, const struct state * refs, uint32_t n_refs, uint32_t layer, struct semshare_source * sources) {
    const struct state_layer * y = &s->layout.layers[layer];
    for (uint32_t i = 0; i < n_refs; i++) {
        sources[i] = source_of(&refs[i], &s->layout, layer);
    }
    *to = (struct semshare_job) {
        .k = s->k[layer], .v = s->v[layer],
        .k_size = state_key_bytes(s, layer), .v_size = state_value_bytes(s, layer),
        .k_row = y->k_row, .v_row = y->v_row, .v_elem = y->v_elem, .v_width = y->v_width,
        .dst_cells = s->stride, .sources = sources, .n_sources = (int32_t) n_refs,
        .k_rot = (int32_t) s->layout.rot_k, .k_type = y->k_type, .v_trans = s->layout.v_trans, .v_type = y->v_type,
    };
}

/* Fills the rows of s with those of refs that the runs name. */
static bool compose(const struct job * j, const struct state * s, const struct state * refs, uint32_t n_refs, const struct semshare_run * runs, uint32_t n_runs, struct error * err) {
    const struct recipe_head * h = &j->recipe.head;
    struct semshare_job * jobs = malloc(h->n_layers * sizeof *jobs);
    struct semshare_source * sources = malloc((size_t) h->n_layers * n_refs * sizeof *sources);
    int32_t status = SEMSHARE_ERR_MEMORY;
    if (jobs != NULL && sources != NULL) {
        for (uint32_t i = 0; i < h->n_layers; i++) {
            set_job(&jobs[i], s, refs, n_refs, i, sources + (size_t) i * n_refs);
        }
        const struct semshare_rope rope = {(h->flags & RECIPE_NEOX) != 0, (int32_t) h->head_dim, (int32_t) h->dims, 0, j->recipe.freqs};
        status = j->cuda != NULL ? j->cuda->compose_resident(jobs, (int32_t) h->n_layers, runs, (int32_t) n_runs, &rope, j->device)
                                 : semshare_compose(jobs, (int32_t) h->n_layers, runs, (int32_t) n_runs, &rope, j->abi->llama_n_threads_batch(j->ctx));
    }
    free(jobs);
    free(sources);
    return status == SEMSHARE_OK || fail(err, "composing: %s", semshare_error(status));
}

/* ---- computing ---- */

/* Has an answer tell what it attends to, and computes that where the recipe says so. */
static bool ask_answer(struct job * j, struct rows * rows, struct engine * e, int32_t batch, struct error * err) {
    uint8_t * chosen = calloc(j->recipe.head.n_cells, 1);
    bool ok = (chosen != NULL || fail(err, "out of memory")) && draft(e, &j->recipe, rows, batch, &j->attention, &j->did, err);
    if (ok && recipe_looks(&j->recipe)) {
        ok = choose_attended(&j->recipe, j->attention.shares, chosen, err) && recompute(e, &j->recipe, rows, batch, chosen, &j->did, err);
    }
    free(chosen);
    return ok;
}

static bool compute_with(struct job * j, struct rows * rows, struct engine * e, struct error * err) {
    const struct recipe_head * h = &j->recipe.head;
    const struct rope rope = {(h->flags & RECIPE_NEOX) != 0, (int32_t) h->dims, (int32_t) h->orig_ctx, h->freq_base, h->freq_scale, h->ext_factor, h->attn_factor, h->beta_fast, h->beta_slow};
    if (j->model->n_layers != (int32_t) h->n_layers) {
        return fail(err, "a recipe for %u layers, and a model of %d", h->n_layers, j->model->n_layers);
    }
    if (h->dims == 0 || (j->model->rope_factors != NULL && j->model->rope_factors->ne[0] < h->dims / 2)) {
        return fail(err, "computing needs RoPE: %u dimensions turn", h->dims);
    }
    if (!rows_init(rows, j->model->n_heads_kv * j->model->head_dim, err) || !engine_init(e, j->abi, j->model, &rope, j->abi->llama_n_threads_batch(j->ctx), err)) {
        return false;
    }
    j->kernels = linear_kernel(e);
    const uint32_t ubatch = j->abi->llama_n_ubatch(j->ctx);
    const int32_t batch = ubatch > 0 && ubatch < ENGINE_MAX_BATCH ? (int32_t) ubatch : ENGINE_MAX_BATCH;
    return recompute(e, &j->recipe, rows, batch, NULL, &j->did, err) && (!recipe_drafts(&j->recipe) || ask_answer(j, rows, e, batch, err));
}

static bool compute(struct job * j, struct error * err) {
    struct rows rows = {.state = &j->made, .cache = j->in_cache ? &j->cache : NULL, .cuda = j->cuda, .device = j->device};
    struct engine engine = {0};
    engine.abi = j->abi;
    j->abi->llama_synchronize(j->ctx);
    j->model = malloc(sizeof *j->model);
    const bool ok = (j->model != NULL || fail(err, "out of memory")) && model_read(j->model, j->abi, j->abi->llama_get_model(j->ctx), (int32_t) j->recipe.head.head_dim, err) && compute_with(j, &rows, &engine, err);
    rows_free(&rows);
    engine_free(&engine);
    return ok;
}

/* ---- what goes into the cache ---- */

/* Puts a state of the kept cells in the place of the whole one. */
static bool take_kept(struct job * j, uint32_t stream, const uint8_t * keep, uint32_t n_kept, int32_t * pos, struct semshare_run * runs, struct error * err) {
    const struct recipe_head * h = &j->recipe.head;
    struct state whole = j->made;
    uint32_t n = 0, n_runs = 0;
    for (uint32_t c = 0; c < h->n_cells; c++) {
        if (keep[c]) {
            const bool goes_on = c > 0 && keep[c - 1];
            if (goes_on) {
                runs[n_runs - 1].len++;
            } else {
                runs[n_runs++] = (struct semshare_run) {.src = (int32_t) c, .dst = (int32_t) n, .len = 1};
            }
            pos[n++] = j->recipe.pos[c];
        }
    }
    j->made.data = NULL;
    bool ok = room_map(j, ROOM_THINNED, state_bytes(&whole.layout, h->n_tokens, n_kept), err);
    if (ok) {
        state_write(&j->made, &whole.layout, stream, j->recipe.tokens, h->n_tokens, pos, n_kept);
        ok = compose(j, &j->made, &whole, 1, runs, n_runs, err);
    }
    state_close(&whole);
    return ok;
}

/* Leaves out of a state made aside what was drafted, and what is not to be kept. */
static bool thin(struct job * j, uint32_t stream, struct error * err) {
    const uint32_t n = j->recipe.head.n_cells;
    uint8_t * keep = malloc(n);
    int32_t * pos = malloc(n * sizeof *pos);
    struct semshare_run * runs = malloc(n * sizeof *runs);
    const uint32_t kept = keep != NULL && pos != NULL && runs != NULL ? retain(&j->recipe, j->attention.logs, keep) : 0;
    const bool ok = kept > 0 ? take_kept(j, stream, keep, kept, pos, runs, err) : fail(err, "out of memory");
    free(keep);
    free(pos);
    free(runs);
    return ok;
}

/* Fills the state's rows with those of the references. Where a device fails at it, such as
 * one without memory left, they are made aside instead. */
static bool compose_refs(struct job * j, int32_t seq, struct error * err) {
    const struct recipe * r = &j->recipe;
    if (j->cuda != NULL) {
        if (compose(j, &j->made, j->residents, r->head.n_refs, r->runs, r->head.n_runs, &j->aside)) {
            return true;
        }
        room_empty(j, seq, -1);
        if (!room_aside(j, seq, err)) {
            return false;
        }
    }
    return compose(j, &j->made, j->refs, r->head.n_refs, r->runs, r->head.n_runs, err);
}

/* Fills the state's rows, and computes what the recipe says. */
static bool make_rows(struct job * j, int32_t seq, struct error * err) {
    const double start = now_ms();
    if (!compose_refs(j, seq, err)) {
        return false;
    }
    if (!attention_init(&j->attention, &j->recipe, err)) {
        return false;
    }
    const double composed = now_ms();
    j->compose_ms = composed - start;
    if (recipe_computes(&j->recipe) && !compute(j, err)) {
        return false;
    }
    j->recompute_ms = now_ms() - composed;
    return true;
}

/* ---- into the server ---- */

/* Gives the server the recipe's tokens as it packs them; returns their count. */
static size_t give_tokens(const struct job * j, int32_t * tokens, size_t capacity) {
    const size_t words = state_words(&j->made.layout, j->recipe.head.n_tokens);
    if (words <= capacity) {
        memcpy(tokens, j->made.data + STATE_TOKENS, words * sizeof *tokens);
    }
    return words;
}

/* What was drafted goes again; the rest stays where it is. */
static size_t finish_in_cache(struct job * j, int32_t seq, int32_t * tokens, size_t capacity, size_t * count, struct error * err) {
    if (recipe_drafts(&j->recipe)) {
        room_empty(j, seq, (int32_t) j->recipe.head.n_tokens);
        j->made.cells = j->recipe.head.n_cells;
    }
    *count = give_tokens(j, tokens, capacity);
    if (*count > capacity) {
        fail(err, "the server takes %zu tokens: the recipe has %zu", capacity, *count);
        return 0;
    }
    return j->made.size;
}

/* Has the server restore what was made aside, without what was drafted or is not kept. */
static size_t finish_aside(struct job * j, int32_t seq, int32_t * tokens, size_t capacity, size_t * count, struct error * err) {
    if (recipe_drafts(&j->recipe) && !thin(j, state_stream(&j->made.layout, seq), err)) {
        return 0;
    }
    const size_t got = j->abi->load_file(j->ctx, j->path, seq, tokens, capacity, count);
    if (got == 0) {
        j->no_cells = true; /* the state is sound */
        fail(err, "the server refused the state made by the recipe");
    }
    return got;
}

static size_t carry_out(struct job * j, int32_t seq, int32_t * tokens, size_t capacity, size_t * count, struct error * err) {
    const double begun = now_ms();
    if (!room_find(j, seq, err)) {
        return 0;
    }
    j->restore_ms = now_ms() - begun;
    size_t got = 0;
    if (make_rows(j, seq, err)) {
        const double start = now_ms();
        got = j->in_cache ? finish_in_cache(j, seq, tokens, capacity, count, err) : finish_aside(j, seq, tokens, capacity, count, err);
        j->restore_ms += now_ms() - start;
    }
    if (got == 0 && j->in_cache) {
        room_empty(j, seq, -1);
    }
    return got;
}

/* ---- a recipe, start to end ---- */

static bool open_references(struct job * j, const char * path, struct error * err) {
    j->refs = calloc(j->recipe.head.n_refs, sizeof *j->refs);
    j->residents = calloc(j->recipe.head.n_refs, sizeof *j->residents);
    return ((j->refs != NULL && j->residents != NULL) || fail(err, "out of memory")) && references_open(j->refs, &j->recipe, path, err);
}

/* Checks what the state will be like. */
static bool begin_state(struct job * j, int32_t seq, struct error * err) {
    const struct recipe_head * h = &j->recipe.head;
    struct state_layout * l = &j->made.layout;
    if (j->refs[0].layout.n_layers != h->n_layers) {
        return fail(err, "a recipe for %u layers, and references of %u", h->n_layers, j->refs[0].layout.n_layers);
    }
    if (!state_retype(l, &j->refs[0].layout, (h->flags & RECIPE_V_TRANS) != 0, j->recipe.types, err)) {
        return false;
    }
    l->version = h->state_version;
    l->packed = (h->flags & RECIPE_PACKED) != 0;
    l->streams = h->streams;
    return (seq >= 0 && (l->streams == 1 || (uint32_t) seq < l->streams)) || fail(err, "sequence %d: the recipe is for %u streams", seq, l->streams);
}

static bool prepare(struct job * j, const char * path, int32_t seq, struct error * err) {
    if (j->abi->missing != NULL) {
        return fail(err, "the server has no function %s", j->abi->missing);
    }
    return recipe_read(&j->recipe, path, err) && open_references(j, path, err) && begin_state(j, seq, err);
}

static void job_free(struct job * j) {
    for (uint32_t i = 0; j->refs != NULL && i < j->recipe.head.n_refs; i++) {
        state_close(&j->refs[i]);
    }
    free(j->refs);
    free(j->residents);
    free(j->model);
    attention_free(&j->attention);
    state_close(&j->made);
    recipe_free(&j->recipe);
}

/* How many tokens the server is to make room for, and where they end in a state. */
static size_t count_tokens(const struct job * j, size_t * count) {
    *count = state_words(&j->made.layout, j->recipe.head.n_tokens);
    return STATE_TOKENS + *count * sizeof(int32_t);
}

size_t agent_restore(const struct abi * abi, struct llama_context * ctx, const char * path, int32_t seq, int32_t * tokens, size_t capacity, size_t * count) {
    struct error err = {""};
    struct job * j = calloc(1, sizeof *j);
    size_t got = 0;
    if (j == NULL) {
        return 0;
    }
    j->abi = abi;
    j->ctx = ctx;
    agent_lock();
    bool ok = prepare(j, path, seq, &err);
    j->turn = agent_turn();
    /* Newer servers first ask, with no room for tokens, how many there are. */
    const bool asks = tokens == NULL;
    if (ok && asks) {
        got = count_tokens(j, count);
    } else if (ok) {
        got = carry_out(j, seq, tokens, capacity, count, &err);
        ok = got != 0;
        if (ok) {
            tokenized_expect(abi->llama_model_get_vocab(abi->llama_get_model(ctx)), j->recipe.head.n_whole, j->recipe.head.whole);
        }
    }
    if (!ok || !asks) {
        reply_write(j, path, &err);
    }
    if (!ok) {
        fprintf(stderr, "semshare-agent: %s: %s\n", path, err.text);
    }
    job_free(j);
    free(j);
    agent_unlock();
    return got;
}
