#include "engine.h"

#include "half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_NODES = 8192, /* of ENGINE_MAX_STRETCH layers */
    VOICE_NODES = 64, /* of a layer, for one token, at most */
    CELL_PAD = 256, /* some of ggml's kernels want so many cells, or a multiple */
    ROW_PAD = 64,   /* rows of a mask; older ggml insists */
    TILE = 64,      /* rows from which on ggml's attention is fast on a CPU */
    PAD_FROM = 28,  /* rows from which on it pays to fill them up to so many (measured) */
    MAX_GROUPS = ENGINE_MAX_BATCH / TILE,
    MAX_INPUTS = 2 * MAX_GROUPS + 8,
};

/* ---- devices ---- */

/* What an engine computes on, kept from one to the next: on a GPU, getting it takes longer
 * than a recipe. It belongs to no model. */
static struct {
    ggml_backend_dev_t devices[ENGINE_MAX_BACKENDS];
    ggml_backend_t backends[ENGINE_MAX_BACKENDS];
    int32_t n;
    ggml_backend_sched_t sched;
    void (*set_threads)(ggml_backend_t, int);
} kept;

static void drop_kept(const struct abi * abi) {
    if (kept.sched != NULL) {
        abi->ggml_backend_sched_free(kept.sched);
    }
    for (int32_t i = 0; i < kept.n; i++) {
        abi->ggml_backend_free(kept.backends[i]);
    }
    memset(&kept, 0, sizeof kept);
}

static bool add_device(ggml_backend_dev_t * devices, int32_t * n, ggml_backend_dev_t dev) {
    for (int32_t i = 0; i < *n; i++) {
        if (devices[i] == dev) {
            return true;
        }
    }
    if (*n == ENGINE_MAX_BACKENDS - 1) {
        return false;
    }
    devices[(*n)++] = dev;
    return true;
}

/* The device that holds a weight; null for the CPU. */
static ggml_backend_dev_t device_of(const struct abi * abi, const ggt * t) {
    ggml_backend_dev_t dev = abi->ggml_backend_buft_get_device(abi->ggml_backend_buffer_get_type(t->buffer));
    return dev == NULL || abi->ggml_backend_dev_type(dev) == GGML_DEVICE_CPU ? NULL : dev;
}

/* The scheduler wants the CPU last. */
static bool open_devices(struct engine * e, const ggml_backend_dev_t * devices, int32_t n, struct error * err) {
    const struct abi * abi = e->abi;
    for (; kept.n < n; kept.n++) {
        kept.devices[kept.n] = devices[kept.n];
        kept.backends[kept.n] = abi->ggml_backend_dev_init(devices[kept.n], NULL);
        if (kept.backends[kept.n] == NULL) {
            return fail(err, "device %s cannot be used", abi->ggml_backend_dev_name(devices[kept.n]));
        }
    }
    ggml_backend_t cpu = abi->ggml_backend_init_by_type(GGML_DEVICE_CPU, NULL);
    if (cpu == NULL) {
        return fail(err, "the server has no CPU backend");
    }
    kept.backends[kept.n++] = cpu;
    *(void **) &kept.set_threads = abi->ggml_backend_reg_get_proc_address(abi->ggml_backend_dev_backend_reg(abi->ggml_backend_get_device(cpu)), "ggml_backend_set_n_threads");
    kept.sched = abi->ggml_backend_sched_new(kept.backends, NULL, kept.n, MAX_NODES, false, true);
    return kept.sched != NULL || fail(err, "out of memory");
}

static bool take_devices(struct engine * e, int32_t n_threads, struct error * err) {
    ggml_backend_dev_t devices[ENGINE_MAX_BACKENDS];
    int32_t n = 0;
    const int32_t n_layers = e->model->n_layers;
    for (int32_t i = 0; i <= n_layers; i++) {
        ggml_backend_dev_t dev = device_of(e->abi, i < n_layers ? e->model->layers[i].wq : e->model->output);
        if (dev != NULL && !add_device(devices, &n, dev)) {
            return fail(err, "the model lies on more than %d devices", ENGINE_MAX_BACKENDS - 1);
        }
    }
    if (kept.n != n + 1 || memcmp(kept.devices, devices, (size_t) n * sizeof *devices) != 0) {
        drop_kept(e->abi);
        if (!open_devices(e, devices, n, err)) {
            drop_kept(e->abi);
            return false;
        }
    }
    if (kept.set_threads != NULL && n_threads > 0) {
        kept.set_threads(kept.backends[kept.n - 1], n_threads);
    }
    e->sched = kept.sched;
    return true;
}

bool engine_init(struct engine * e, const struct abi * abi, const struct model * model, const struct rope * rope, int32_t n_threads, struct error * err) {
    memset(e, 0, sizeof *e);
    e->abi = abi;
    e->model = model;
    e->rope = *rope;
    if (!take_devices(e, n_threads, err)) {
        return false;
    }
    e->arena_size = abi->ggml_tensor_overhead() * MAX_NODES + abi->ggml_graph_overhead_custom(MAX_NODES, false);
    e->arena = malloc(e->arena_size);
    return e->arena != NULL || fail(err, "out of memory");
}

static void release(struct engine * e) {
    if (e->buffer != NULL) {
        e->abi->ggml_backend_buffer_free(e->buffer);
    }
    if (e->holder != NULL) {
        e->abi->ggml_free(e->holder);
    }
    e->buffer = NULL;
    e->holder = NULL;
    e->capacity = 0;
}

/* On the first device, where the model begins. */
bool engine_hold(struct engine * e, int64_t n, struct error * err) {
    if (n <= e->capacity) {
        return true;
    }
    release(e);
    e->holder = e->abi->ggml_init((struct ggml_init_params) {2 * e->abi->ggml_tensor_overhead(), NULL, true});
    if (e->holder != NULL) {
        e->x = e->abi->ggml_new_tensor_2d(e->holder, GGML_TYPE_F32, e->model->n_embd, n);
        e->buffer = e->abi->ggml_backend_alloc_ctx_tensors(e->holder, kept.backends[0]);
    }
    e->capacity = e->buffer == NULL ? 0 : n;
    return e->buffer != NULL || fail(err, "no memory for %lld tokens on their way through the layers", (long long) n);
}

void engine_free(struct engine * e) {
    release(e);
    if (e->failed) {
        drop_kept(e->abi);
    }
    free(e->arena);
    memset(e, 0, sizeof *e);
}

/* ---- graphs ---- */

/* A graph being built, and what to put into it once it has memory. */
struct graph {
    struct engine * e;
    const struct abi * abi;
    ggctx * ctx;
    struct ggml_cgraph * g;
    struct {
        ggt * tensor;
        const void * data;
        size_t size;
    } inputs[MAX_INPUTS];
    int32_t n_inputs;
    int64_t longs[2][ENGINE_MAX_BATCH]; /* indices as ggml_set_rows takes them */
    int32_t n_longs;
};

static bool graph_begin(struct graph * g, struct engine * e, struct error * err) {
    g->n_inputs = 0;
    g->n_longs = 0;
    g->e = e;
    g->abi = e->abi;
    g->ctx = e->abi->ggml_init((struct ggml_init_params) {e->arena_size, e->arena, true});
    if (g->ctx == NULL) {
        return fail(err, "ggml has no memory for a graph");
    }
    g->g = e->abi->ggml_new_graph_custom(g->ctx, MAX_NODES, false);
    return true;
}

static ggt * input(struct graph * g, ggt * t, const void * data, size_t size) {
    g->abi->ggml_set_input(t);
    g->inputs[g->n_inputs].tensor = t;
    g->inputs[g->n_inputs].data = data;
    g->inputs[g->n_inputs++].size = size;
    return t;
}

static ggt * input_ints(struct graph * g, const int32_t * x, int64_t n) {
    return input(g, g->abi->ggml_new_tensor_1d(g->ctx, GGML_TYPE_I32, n), x, (size_t) n * sizeof *x);
}

static ggt * input_longs(struct graph * g, const int32_t * x, int64_t n) {
    int64_t * longs = g->longs[g->n_longs++];
    for (int64_t i = 0; i < n; i++) {
        longs[i] = x[i];
    }
    return input(g, g->abi->ggml_new_tensor_1d(g->ctx, GGML_TYPE_I64, n), longs, (size_t) n * sizeof *longs);
}

/* What goes from layer to layer: taken from its rows, and put back into them. */
static ggt * take(struct graph * g, const int32_t * rows, int64_t n) { return g->abi->ggml_get_rows(g->ctx, g->e->x, input_ints(g, rows, n)); }

static void give(struct graph * g, const int32_t * rows, int64_t n, ggt * x) {
    g->abi->ggml_build_forward_expand(g->g, g->abi->ggml_set_rows(g->ctx, g->e->x, x, input_longs(g, rows, n)));
}

static void want(struct graph * g, ggt * t) {
    g->abi->ggml_set_output(t);
    g->abi->ggml_build_forward_expand(g->g, t);
}

/* What data does not fill is padding, and zero: garbage could be NaN, which even a mask
 * does not hide. */
static void fill(const struct abi * abi, ggt * t, const void * data, size_t size) {
    const size_t all = abi->ggml_nbytes(t);
    abi->ggml_backend_tensor_set(t, data, 0, size);
    if (size < all) {
        abi->ggml_backend_tensor_memset(t, 0, size, all - size);
    }
}

static bool graph_alloc(struct graph * g, struct error * err) {
    g->abi->ggml_backend_sched_reset(g->e->sched);
    return g->abi->ggml_backend_sched_alloc_graph(g->e->sched, g->g) || fail(err, "ggml has no memory to compute");
}

static bool graph_compute(struct graph * g, struct error * err) {
    const struct abi * abi = g->abi;
    for (int32_t i = 0; i < g->n_inputs; i++) {
        fill(abi, g->inputs[i].tensor, g->inputs[i].data, g->inputs[i].size);
    }
    const int32_t status = abi->ggml_backend_sched_graph_compute(g->e->sched, g->g);
    g->e->failed = status != 0;
    return status == 0 || fail(err, "ggml could not compute: status %d", status);
}

static bool graph_run(struct graph * g, struct error * err) { return graph_alloc(g, err) && graph_compute(g, err); }

static void fetch(struct graph * g, const ggt * t, float * to, int64_t n) {
    g->abi->ggml_backend_tensor_get(t, to, 0, (size_t) n * sizeof *to);
}

static void graph_end(struct graph * g) { g->abi->ggml_free(g->ctx); }

/* ---- pieces of a layer ---- */

static ggt * norm(struct graph * g, ggt * x, ggt * weight) {
    return g->abi->ggml_mul(g->ctx, g->abi->ggml_rms_norm(g->ctx, x, g->e->model->eps), weight);
}

static ggt * linear(struct graph * g, ggt * w, ggt * bias, ggt * x) {
    ggt * y = g->abi->ggml_mul_mat(g->ctx, w, x);
    return bias == NULL ? y : g->abi->ggml_add(g->ctx, y, bias);
}

/* Cuts rows into heads, norms them where the model does, and turns them. */
static ggt * heads(struct graph * g, ggt * x, int64_t n_heads, ggt * normed, ggt * pos) {
    const struct rope * r = &g->e->rope;
    x = g->abi->ggml_reshape_3d(g->ctx, x, g->e->model->head_dim, n_heads, x->ne[1]);
    if (normed != NULL) {
        x = norm(g, x, normed);
    }
    return g->abi->ggml_rope_ext(g->ctx, x, pos, g->e->model->rope_factors, r->dims, r->neox ? GGML_ROPE_NEOX : GGML_ROPE_NORM, r->orig_ctx,
                                 r->freq_base, r->freq_scale, r->ext_factor, r->attn_factor, r->beta_fast, r->beta_slow);
}

/* What is cached, rows n_heads_kv x head_dim wide: a tensor, and the cell it begins with. */
struct source {
    ggt * tensor;
    int64_t first;
};

static struct source cached_source(struct graph * g, ggt * tensor, int64_t first, int32_t type, const uint8_t * rows, int64_t cells, int64_t padded) {
    const int64_t width = (int64_t) g->e->model->n_heads_kv * g->e->model->head_dim;
    if (tensor != NULL) {
        return (struct source) {tensor, first};
    }
    return (struct source) {input(g, g->abi->ggml_new_tensor_2d(g->ctx, type, width, padded), rows, (size_t) cells * g->abi->ggml_row_size(type, width)), 0};
}

/* The first cells of it, head by head. */
static ggt * by_head(struct graph * g, struct source s, int64_t cells) {
    const struct model * m = g->e->model;
    const size_t head = g->abi->ggml_row_size(s.tensor->type, m->head_dim), row = head * (size_t) m->n_heads_kv;
    return g->abi->ggml_view_3d(g->ctx, s.tensor, m->head_dim, cells, m->n_heads_kv, row, head, (size_t) s.first * row);
}

static ggt * mlp(struct graph * g, const struct weights * w, ggt * x) {
    ggt * up = linear(g, w->up, w->up_b, x), * gate = linear(g, w->gate, w->gate_b, x);
    return linear(g, w->down, w->down_b, g->abi->ggml_swiglu_split(g->ctx, gate, up));
}

/* ---- the passes ---- */

bool engine_embed(struct engine * e, const int32_t * tokens, const int32_t * rows, int32_t n, struct error * err) {
    struct graph g;
    const int64_t known = e->model->embeddings->ne[1];
    for (int32_t i = 0; i < n; i++) {
        if (tokens[i] >= known) {
            return fail(err, "token %d: the model has %lld", tokens[i], (long long) known);
        }
    }
    if (!graph_begin(&g, e, err)) {
        return false;
    }
    give(&g, rows, n, e->abi->ggml_get_rows(g.ctx, e->model->embeddings, input_ints(&g, tokens, n)));
    const bool ok = graph_run(&g, err);
    graph_end(&g);
    return ok;
}

/* Keys and values of a layer with that input. */
static void keys_and_values(struct graph * g, const struct weights * w, ggt * x, ggt * pos, ggt ** k, ggt ** v) {
    ggt * in = norm(g, x, w->attn_norm);
    *k = heads(g, linear(g, w->wk, w->bk, in), g->e->model->n_heads_kv, w->k_norm, pos);
    *v = linear(g, w->wv, w->bv, in);
}

bool engine_keys(struct engine * e, int32_t layer, const int32_t * rows, const int32_t * pos, int32_t n, float * k, float * v, struct error * err) {
    const int64_t all = (int64_t) n * e->model->n_heads_kv * e->model->head_dim;
    struct graph g;
    ggt * keys, * values;
    if (!graph_begin(&g, e, err)) {
        return false;
    }
    keys_and_values(&g, &e->model->layers[layer], take(&g, rows, n), input_ints(&g, pos, n), &keys, &values);
    want(&g, keys);
    want(&g, values);
    const bool ok = graph_run(&g, err);
    if (ok) {
        fetch(&g, keys, k, all);
        fetch(&g, values, v, all);
    }
    graph_end(&g);
    return ok;
}

/* Writes rows into the first cells of a tensor, at those that to names. Reading them does
 * not depend on it in the graph: so it must stand there first. */
static void store(struct graph * g, struct source cache, int64_t cells, ggt * rows, ggt * to) {
    const struct model * m = g->e->model;
    const int64_t width = (int64_t) m->n_heads_kv * m->head_dim;
    const size_t row = g->abi->ggml_row_size(cache.tensor->type, width);
    ggt * all = g->abi->ggml_view_3d(g->ctx, cache.tensor, width, cells, 1, row, row * (size_t) cells, (size_t) cache.first * row);
    g->abi->ggml_build_forward_expand(g->g, g->abi->ggml_set_rows(g->ctx, all, g->abi->ggml_reshape_2d(g->ctx, rows, width, to->ne[0]), to));
}

bool engine_store(struct engine * e, int32_t layer, const int32_t * rows, const int32_t * pos, const int32_t * cells, int32_t n, const struct cached * cached, const int32_t * picked, int32_t n_picked, float * k, float * v, struct error * err) {
    const int64_t width = (int64_t) e->model->n_heads_kv * e->model->head_dim;
    struct graph g;
    ggt * keys, * values;
    if (!graph_begin(&g, e, err)) {
        return false;
    }
    keys_and_values(&g, &e->model->layers[layer], take(&g, rows, n), input_ints(&g, pos, n), &keys, &values);
    ggt * to = input_longs(&g, cells, n);
    store(&g, (struct source) {cached->k_tensor, cached->first}, cells[n - 1] + 1, keys, to);
    store(&g, (struct source) {cached->v_tensor, cached->first}, cells[n - 1] + 1, values, to);
    if (n_picked > 0) {
        ggt * which = input_ints(&g, picked, n_picked);
        keys = e->abi->ggml_get_rows(g.ctx, e->abi->ggml_reshape_2d(g.ctx, keys, width, n), which);
        values = e->abi->ggml_get_rows(g.ctx, values, which);
        want(&g, keys);
        want(&g, values);
    }
    const bool ok = graph_run(&g, err);
    if (ok && n_picked > 0) {
        fetch(&g, keys, k, n_picked * width);
        fetch(&g, values, v, n_picked * width);
    }
    graph_end(&g);
    return ok;
}

/* Row i of the mask hides the cells from visible[i] on; rows from n on hide none, so
 * that no sum is empty. */
static uint16_t * make_mask(const int32_t * visible, int32_t n, int64_t rows, int64_t cells) {
    uint16_t * mask = calloc((size_t) (rows * cells), sizeof *mask);
    const uint16_t hidden = f16_from_f32(-INFINITY);
    for (int32_t i = 0; mask != NULL && i < n; i++) {
        for (int64_t c = visible[i]; c < cells; c++) {
            mask[i * cells + c] = hidden;
        }
    }
    return mask;
}

static int64_t pad(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static ggt * rows_of(struct graph * g, ggt * x, int64_t first, int64_t n) {
    return g->abi->ggml_view_3d(g->ctx, x, x->ne[0], x->ne[1], n, x->nb[1], x->nb[2], (size_t) first * x->nb[2]);
}

/* Queries that attend together: rows of a batch, and what hides cells from them. */
struct group {
    int64_t first, n, rows, cells;
    uint16_t * hidden;
    ggt * mask; /* of hidden, in the graph; the same for all its layers */
};

/* Cuts a batch into groups, so that each attends to little more than it sees: the rows of
 * a recipe may stand anywhere in the prompt, and what a mask hides is computed all the
 * same. Returns how many; 0 without memory. */
static int32_t make_groups(struct group * groups, const int32_t * visible, int32_t n) {
    const int32_t n_groups = n / TILE > 0 ? n / TILE : 1;
    for (int32_t i = 0; i < n_groups; i++) {
        const int32_t first = i * TILE, end = i + 1 == n_groups ? n : first + TILE;
        struct group * to = &groups[i];
        *to = (struct group) {.first = first, .n = end - first, .rows = pad(end - first, ROW_PAD), .cells = pad(visible[end - 1], CELL_PAD)};
        to->hidden = make_mask(visible + first, end - first, to->rows, to->cells);
        if (to->hidden == NULL) {
            return 0;
        }
    }
    return n_groups;
}

static void free_groups(struct group * groups) {
    for (int32_t i = 0; i < MAX_GROUPS; i++) {
        free(groups[i].hidden);
    }
}

static ggt * attend_group(struct graph * g, struct group * group, ggt * q, struct source k, struct source v) {
    const struct model * m = g->e->model;
    const struct abi * abi = g->abi;
    if (group->mask == NULL) {
        group->mask = input(g, abi->ggml_new_tensor_2d(g->ctx, GGML_TYPE_F16, group->cells, group->rows), group->hidden, (size_t) (group->rows * group->cells) * sizeof *group->hidden);
    }
    q = rows_of(g, q, group->first, group->n);
    if (group->n >= PAD_FROM && group->n < TILE) {
        q = abi->ggml_pad(g->ctx, q, 0, 0, (int) (TILE - group->n), 0);
    }
    ggt * out = abi->ggml_flash_attn_ext(g->ctx, abi->ggml_permute(g->ctx, q, 0, 2, 1, 3), by_head(g, k, group->cells), by_head(g, v, group->cells), group->mask, m->scale, 0, 0);
    abi->ggml_flash_attn_ext_set_prec(out, GGML_PREC_F32);
    return abi->ggml_reshape_2d(g->ctx, rows_of(g, out, 0, group->n), (int64_t) m->n_heads * m->head_dim, group->n);
}

static ggt * attend(struct graph * g, struct group * groups, int32_t n_groups, ggt * q, struct source k, struct source v) {
    ggt * out = attend_group(g, &groups[0], q, k, v);
    for (int32_t i = 1; i < n_groups; i++) {
        out = g->abi->ggml_concat(g->ctx, out, attend_group(g, &groups[i], q, k, v), 1);
    }
    return out;
}

/* How one token shares out its attention. The heads of a group ask the same keys, and so
 * do it together: as rows of one matrix. */
static ggt * shares(struct graph * g, ggt * q, struct source k, int64_t cells, ggt * mask) {
    const struct model * m = g->e->model;
    q = g->abi->ggml_reshape_3d(g->ctx, q, m->head_dim, m->n_heads / m->n_heads_kv, m->n_heads_kv);
    return g->abi->ggml_soft_max_ext(g->ctx, g->abi->ggml_mul_mat(g->ctx, by_head(g, k, cells), q), mask, m->scale, 0);
}

static ggt * queries(struct graph * g, const struct weights * w, ggt * x, ggt * pos) {
    return heads(g, linear(g, w->wq, w->bq, norm(g, x, w->attn_norm)), g->e->model->n_heads, w->q_norm, pos);
}

/* What the layer puts out for tokens with input x and queries q. */
static ggt * layer_output(struct graph * g, const struct weights * w, ggt * x, ggt * q, struct group * groups, int32_t n_groups, struct source k, struct source v) {
    ggt * mid = g->abi->ggml_add(g->ctx, linear(g, w->wo, w->bo, attend(g, groups, n_groups, q, k, v)), x);
    return g->abi->ggml_add(g->ctx, mlp(g, w, norm(g, mid, w->ffn_norm)), mid);
}

bool engine_layer(struct engine * e, int32_t layer, const int32_t * rows, const int32_t * pos, const int32_t * visible, int32_t n, const struct cached * cached, float * attention, struct error * err) {
    const struct model * m = e->model;
    const struct weights * w = &m->layers[layer];
    const int64_t cells = visible[n - 1], padded = pad(cells, CELL_PAD);
    struct graph g;
    struct group groups[MAX_GROUPS] = {0};
    const int32_t n_groups = make_groups(groups, visible, n);
    const bool begun = n_groups > 0 ? graph_begin(&g, e, err) : fail(err, "out of memory");
    if (!begun) {
        free_groups(groups);
        return false;
    }
    ggt * in = take(&g, rows, n);
    ggt * q = queries(&g, w, in, input_ints(&g, pos, n));
    const struct source k = cached_source(&g, cached->k_tensor, cached->first, cached->k_type, cached->k, cells, padded);
    const struct source v = cached_source(&g, cached->v_tensor, cached->first, cached->v_type, cached->v, cells, padded);
    ggt * out = layer_output(&g, w, in, q, groups, n_groups, k, v);
    ggt * shared = attention != NULL ? shares(&g, q, k, cells, NULL) : NULL;
    give(&g, rows, n, out);
    if (shared != NULL) {
        want(&g, shared);
    }
    const bool ok = graph_run(&g, err);
    if (ok && shared != NULL) {
        fetch(&g, shared, attention, cells * m->n_heads);
    }
    graph_end(&g);
    free_groups(groups);
    return ok;
}

/* ---- several layers ---- */

/* A stretch while its graph is built: what its tokens share in all layers. */
struct run {
    const struct stretch * s;
    struct group groups[MAX_GROUPS], kept_groups[MAX_GROUPS];
    int32_t n_groups, n_kept_groups;
    ggt * pos, * to, * kept, * kept_pos;
    /* Of a voice: the attention that it tells, added up over the layers from looks_from on.
     * The group's mask hides from it what the token does not see yet. */
    bool tells;
    int32_t looks_from;
    ggt * attention;
};

/* Shares summed over heads: a row for each cell. */
static ggt * summed(struct graph * g, ggt * shared, int64_t cells) {
    ggt * by_cell = g->abi->ggml_reshape_3d(g->ctx, shared, cells, g->e->model->n_heads, 1);
    return g->abi->ggml_sum_rows(g->ctx, g->abi->ggml_cont(g->ctx, g->abi->ggml_permute(g->ctx, by_cell, 1, 0, 2, 3)));
}

static ggt * stretch_layer(struct graph * g, struct run * r, int32_t layer, ggt * x) {
    const struct stretch * s = r->s;
    const struct weights * w = &g->e->model->layers[layer];
    const struct cached * c = &s->cached[layer - s->from];
    const struct source k = {c->k_tensor, c->first}, v = {c->v_tensor, c->first};
    const bool narrows = layer + 1 == s->to && s->kept != NULL;
    ggt * keys, * values;
    keys_and_values(g, w, x, r->pos, &keys, &values);
    store(g, k, s->visible[s->n - 1], keys, r->to);
    store(g, v, s->visible[s->n - 1], values, r->to);
    if (narrows && s->n_kept == 0) {
        return NULL;
    }
    if (narrows) {
        x = g->abi->ggml_get_rows(g->ctx, x, r->kept);
        return layer_output(g, w, x, queries(g, w, x, r->kept_pos), r->kept_groups, r->n_kept_groups, k, v);
    }
    ggt * q = queries(g, w, x, r->pos);
    ggt * out = layer_output(g, w, x, q, r->groups, r->n_groups, k, v);
    if (r->tells && layer >= r->looks_from) {
        const struct group * group = &r->groups[0];
        ggt * sum = summed(g, shares(g, q, k, group->cells, group->mask), group->cells);
        r->attention = r->attention == NULL ? sum : g->abi->ggml_add(g->ctx, r->attention, sum);
    }
    return out;
}

static bool run_groups(struct run * r, struct error * err) {
    const struct stretch * s = r->s;
    r->n_groups = make_groups(r->groups, s->visible, s->n);
    r->n_kept_groups = s->n_kept > 0 ? make_groups(r->kept_groups, s->kept_visible, s->n_kept) : 0;
    return (r->n_groups > 0 && (s->n_kept == 0 || r->n_kept_groups > 0)) || fail(err, "out of memory");
}

static void run_inputs(struct graph * g, struct run * r) {
    const struct stretch * s = r->s;
    r->pos = input_ints(g, s->pos, s->n);
    r->to = input_longs(g, s->cells, s->n);
    if (s->n_kept > 0) {
        r->kept = input_ints(g, s->kept, s->n_kept);
        r->kept_pos = input_ints(g, s->kept_pos, s->n_kept);
    }
}

static bool run_stretch(struct graph * g, struct run * r, struct error * err) {
    const struct stretch * s = r->s;
    run_inputs(g, r);
    ggt * out = take(g, s->rows, s->n);
    for (int32_t layer = s->from; layer < s->to; layer++) {
        out = stretch_layer(g, r, layer, out);
    }
    if (out != NULL) {
        give(g, s->kept != NULL ? s->kept_rows : s->rows, s->kept != NULL ? s->n_kept : s->n, out);
    }
    return graph_run(g, err);
}

bool engine_stretch(struct engine * e, const struct stretch * s, struct error * err) {
    struct graph g;
    struct run * r = calloc(1, sizeof *r);
    if (r == NULL) {
        return fail(err, "out of memory");
    }
    r->s = s;
    bool ok = run_groups(r, err) && graph_begin(&g, e, err);
    if (ok) {
        ok = run_stretch(&g, r, err);
        graph_end(&g);
    }
    free_groups(r->groups);
    free_groups(r->kept_groups);
    free(r);
    return ok;
}

/* ---- one token after the other ---- */

struct voice {
    struct graph g;
    struct run r;
    struct stretch s;
    bool begun;
    int32_t token, pos, cell, limit;
    ggt * logits;
    float * row; /* of logits */
};

static int64_t known_tokens(const struct engine * e) { return e->model->output->ne[1]; }

static int32_t likeliest(const float * logits, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return (int32_t) best;
}

static ggt * logits_of(struct graph * g, ggt * x) { return linear(g, g->e->model->output, NULL, norm(g, x, g->e->model->output_norm)); }

static void build_voice(struct voice * v) {
    struct graph * g = &v->g;
    run_inputs(g, &v->r);
    ggt * x = g->abi->ggml_get_rows(g->ctx, g->e->model->embeddings, input_ints(g, &v->token, 1));
    for (int32_t layer = 0; layer < v->s.to; layer++) {
        x = stretch_layer(g, &v->r, layer, x);
    }
    v->logits = logits_of(g, x);
    want(g, v->logits);
    if (v->r.attention != NULL) {
        want(g, v->r.attention);
    }
}

bool voice_fits(const struct engine * e) { return e->model->n_layers <= MAX_NODES / VOICE_NODES && e->model->n_heads / e->model->n_heads_kv <= ROW_PAD; }

struct voice * voice_new(struct engine * e, const struct cached * cached, int32_t limit, int32_t looks_from, struct error * err) {
    const struct model * m = e->model;
    struct voice * v = calloc(1, sizeof *v);
    if (v == NULL) {
        fail(err, "out of memory");
        return NULL;
    }
    v->limit = limit;
    v->s = (struct stretch) {.to = m->n_layers, .n = 1, .cells = &v->cell, .pos = &v->pos, .visible = &v->limit, .cached = cached};
    v->r.s = &v->s;
    v->r.tells = true;
    v->r.looks_from = looks_from;
    v->row = malloc((size_t) known_tokens(e) * sizeof *v->row);
    v->begun = (v->row != NULL || fail(err, "out of memory")) && run_groups(&v->r, err) && graph_begin(&v->g, e, err);
    if (v->begun) {
        build_voice(v);
    }
    if (!v->begun || !graph_alloc(&v->g, err)) {
        voice_free(v);
        return NULL;
    }
    return v;
}

void voice_free(struct voice * v) {
    if (v == NULL) {
        return;
    }
    if (v->begun) {
        graph_end(&v->g);
    }
    free_groups(v->r.groups);
    free(v->row);
    free(v);
}

/* All rows hide what lies behind the cell: the heads of a group are rows too. */
static void hide_behind(struct group * group, int32_t cell) {
    const uint16_t hidden = f16_from_f32(-INFINITY);
    for (int64_t i = 0; i < group->rows; i++) {
        for (int64_t c = 0; c < group->cells; c++) {
            group->hidden[i * group->cells + c] = c > cell ? hidden : 0;
        }
    }
}

bool voice_say(struct voice * v, int32_t token, int32_t cell, int32_t pos, float * attention, int32_t * next, struct error * err) {
    struct engine * e = v->g.e;
    if (token < 0 || token >= e->model->embeddings->ne[1]) {
        return fail(err, "token %d: the model has %lld", token, (long long) e->model->embeddings->ne[1]);
    }
    v->token = token;
    v->pos = pos;
    v->g.longs[0][0] = cell;
    hide_behind(&v->r.groups[0], cell);
    if (!graph_compute(&v->g, err)) {
        return false;
    }
    if (v->r.attention != NULL) {
        fetch(&v->g, v->r.attention, attention, cell + 1);
    }
    fetch(&v->g, v->logits, v->row, known_tokens(e));
    *next = likeliest(v->row, known_tokens(e));
    return true;
}

bool engine_likeliest(struct engine * e, int32_t row, int32_t * token, struct error * err) {
    const int64_t n = known_tokens(e);
    struct graph g;
    float * logits = malloc((size_t) n * sizeof *logits);
    bool ok = logits != NULL || fail(err, "out of memory");
    if (ok && (ok = graph_begin(&g, e, err))) {
        ggt * out = logits_of(&g, take(&g, &row, 1));
        want(&g, out);
        if ((ok = graph_run(&g, err))) {
            fetch(&g, out, logits, n);
            *token = likeliest(logits, n);
        }
        graph_end(&g);
    }
    free(logits);
    return ok;
}
