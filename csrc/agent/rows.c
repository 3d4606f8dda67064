#include "rows.h"

#include "half.h"
#include "internal.h"

#include <stdlib.h>
#include <string.h>

static bool is_plain(uint32_t type) { return type == SEMSHARE_TYPE_F32 || type == SEMSHARE_TYPE_F16 || type == SEMSHARE_TYPE_BF16; }

static bool layer_fits(const struct state_layout * l, const struct state_layer * y, int32_t width) {
    if (y->k_row != state_row_bytes(y->k_type, width)) {
        return false;
    }
    return l->v_trans ? y->v_width == width && is_plain(y->v_type) : y->v_row == state_row_bytes(y->v_type, width);
}

bool rows_init(struct rows * r, int32_t width, struct error * err) {
    const struct state * s = r->state;
    r->width = width;
    for (uint32_t i = 0; i < s->layout.n_layers; i++) {
        if (!layer_fits(&s->layout, &s->layout.layers[i], width)) {
            return fail(err, "layer %u of the state does not hold rows of %d elements", i, width);
        }
    }
    if ((s->layout.rot_k > 1 && width % (int32_t) s->layout.rot_k != 0) || (s->layout.rot_v > 1 && width % (int32_t) s->layout.rot_v != 0)) {
        return fail(err, "rows of %d elements are not whole Hadamard blocks of %u and %u", width, s->layout.rot_k, s->layout.rot_v);
    }
    const size_t all = (size_t) s->cells * (size_t) width;
    r->one = malloc((size_t) width * sizeof *r->one);
    r->two = malloc((size_t) width * sizeof *r->two);
    r->key = malloc((size_t) width * sizeof *r->key);
    r->column = malloc((size_t) s->cells * sizeof *r->column);
    r->k16 = malloc(all * sizeof(uint32_t));
    r->v16 = malloc(all * sizeof(uint32_t));
    return (r->one != NULL && r->two != NULL && r->key != NULL && r->column != NULL && r->k16 != NULL && r->v16 != NULL) || fail(err, "out of memory");
}

void rows_free(struct rows * r) {
    free(r->one);
    free(r->two);
    free(r->key);
    free(r->column);
    free(r->k16);
    free(r->v16);
    memset(r, 0, sizeof *r);
}

/* ---- writing ---- */

static const float * turned(struct rows * r, const float * x, uint32_t blocks) {
    if (blocks < 2) {
        return x;
    }
    memcpy(r->one, x, (size_t) r->width * sizeof *x);
    hadamard(r->one, r->width, (int32_t) blocks);
    return r->one;
}

static void put_keys(struct rows * r, int32_t layer, int32_t cell, const float * k) {
    const struct state_layer * y = &r->state->layout.layers[layer];
    semshare_quantize(y->k_type, turned(r, k, r->state->layout.rot_k), r->width, r->state->k[layer] + cell * y->k_row, y->k_row);
}

/* Where an element of transposed values lies. */
static uint8_t * element(const struct rows * r, int32_t layer, int32_t cell, int64_t i) {
    return r->state->v[layer] + (i * r->state->stride + cell) * r->state->layout.layers[layer].v_elem;
}

static void put_values(struct rows * r, int32_t layer, int32_t cell, const float * v) {
    const struct state_layer * y = &r->state->layout.layers[layer];
    v = turned(r, v, r->state->layout.rot_v);
    if (!r->state->layout.v_trans) {
        semshare_quantize(y->v_type, v, r->width, r->state->v[layer] + cell * y->v_row, y->v_row);
        return;
    }
    for (int64_t i = 0; i < r->width; i++) {
        semshare_quantize(y->v_type, &v[i], 1, element(r, layer, cell, i), y->v_elem);
    }
}

/* Keys or values of a layer in a device's memory. */
static struct semshare_rows on_device(const struct rows * r, int32_t layer, bool values) {
    const struct state_layer * y = &r->state->layout.layers[layer];
    return (struct semshare_rows) {values ? r->state->v[layer] : r->state->k[layer], values ? y->v_type : y->k_type, r->width};
}

static bool done(int32_t status, struct error * err) { return status == SEMSHARE_OK || fail(err, "rows on the device: %s", semshare_error(status)); }

bool rows_put(struct rows * r, int32_t layer, const int32_t * cells, int32_t n, const float * k, const float * v, struct error * err) {
    if (r->cuda != NULL) {
        const struct semshare_rows keys = on_device(r, layer, false), values = on_device(r, layer, true);
        return done(r->cuda->put_rows(&keys, cells, n, k, r->device), err) && done(r->cuda->put_rows(&values, cells, n, v, r->device), err);
    }
    for (int64_t i = 0; i < n; i++) {
        put_keys(r, layer, cells[i], k + i * r->width);
        put_values(r, layer, cells[i], v + i * r->width);
    }
    return true;
}

/* ---- reading ---- */

static void get_keys(struct rows * r, int32_t layer, int32_t cell, float * k) {
    const struct state_layer * y = &r->state->layout.layers[layer];
    semshare_dequantize(y->k_type, r->state->k[layer] + cell * y->k_row, y->k_row, k, r->width);
    hadamard(k, r->width, (int32_t) r->state->layout.rot_k);
}

static void get_values(struct rows * r, int32_t layer, int32_t cell, float * v) {
    const struct state_layer * y = &r->state->layout.layers[layer];
    if (!r->state->layout.v_trans) {
        semshare_dequantize(y->v_type, r->state->v[layer] + cell * y->v_row, y->v_row, v, r->width);
    }
    for (int64_t i = 0; r->state->layout.v_trans && i < r->width; i++) {
        semshare_dequantize(y->v_type, element(r, layer, cell, i), y->v_elem, &v[i], 1);
    }
    hadamard(v, r->width, (int32_t) r->state->layout.rot_v);
}

bool rows_get(struct rows * r, int32_t layer, const int32_t * cells, int32_t n, float * k, float * v, struct error * err) {
    if (r->cuda != NULL) {
        const struct semshare_rows keys = on_device(r, layer, false), values = on_device(r, layer, true);
        return (k == NULL || done(r->cuda->get_rows(&keys, cells, n, k, r->device), err)) && done(r->cuda->get_rows(&values, cells, n, v, r->device), err);
    }
    for (int64_t i = 0; i < n; i++) {
        if (k != NULL) {
            get_keys(r, layer, cells[i], k + i * r->width);
        }
        get_values(r, layer, cells[i], v + i * r->width);
    }
    return true;
}

/* ---- adding ---- */

/* Adds d to a row as it lies there. */
static void add_to_row(struct rows * r, uint32_t type, uint8_t * at, int64_t bytes, const float * d) {
    semshare_dequantize(type, at, bytes, r->two, r->width);
    for (int32_t i = 0; i < r->width; i++) {
        r->two[i] += d[i];
    }
    semshare_quantize(type, r->two, r->width, at, bytes);
}

static void add_keys(struct rows * r, int32_t layer, int32_t cell, const float * d) {
    const struct state_layer * y = &r->state->layout.layers[layer];
    add_to_row(r, y->k_type, r->state->k[layer] + cell * y->k_row, y->k_row, turned(r, d, r->state->layout.rot_k));
}

/* What a's cell i gets added to its values, turned as the cache turns them. */
static const float * value_of(const struct rows * r, const struct added * a, int32_t i) { return a->sums + (2 * (size_t) a->vectors[i] + 1) * (size_t) r->width; }

static void add_to_column(struct rows * r, int32_t layer, int64_t i, const struct added * a) {
    const struct state_layer * y = &r->state->layout.layers[layer];
    const int64_t bytes = r->state->cells * y->v_elem;
    uint8_t * at = element(r, layer, 0, i);
    semshare_dequantize(y->v_type, at, bytes, r->column, r->state->cells);
    for (int32_t c = 0; c < a->n; c++) {
        r->column[a->cells[c]] += value_of(r, a, c)[i];
    }
    semshare_quantize(y->v_type, r->column, r->state->cells, at, bytes);
}

static void add_values(struct rows * r, int32_t layer, const struct added * a) {
    const struct state_layer * y = &r->state->layout.layers[layer];
    for (int64_t i = 0; r->state->layout.v_trans && i < r->width; i++) {
        add_to_column(r, layer, i, a);
    }
    for (int32_t c = 0; !r->state->layout.v_trans && c < a->n; c++) {
        add_to_row(r, y->v_type, r->state->v[layer] + a->cells[c] * y->v_row, y->v_row, value_of(r, a, c));
    }
}

/* Vectors of keys and values stand side by side: those of values are the odd ones. */
static bool add_on_device(struct rows * r, int32_t layer, const struct added * a, struct error * err) {
    const struct semshare_rows keys = on_device(r, layer, false), values = on_device(r, layer, true);
    int32_t * which = malloc(((size_t) a->n + 1) * sizeof *which);
    bool ok = which != NULL || fail(err, "out of memory");
    for (int32_t odd = 0; ok && odd < 2; odd++) {
        for (int32_t i = 0; i < a->n; i++) {
            which[i] = 2 * a->vectors[i] + odd;
        }
        ok = done(r->cuda->add_rows(odd ? &values : &keys, a->cells, which, odd ? NULL : a->pos, a->n, a->sums, 2 * a->n_vectors, a->rope, r->device), err);
    }
    free(which);
    return ok;
}

bool rows_add(struct rows * r, int32_t layer, const struct added * a, struct error * err) {
    if (r->cuda != NULL) {
        return add_on_device(r, layer, a, err);
    }
    for (int32_t i = 0; i < a->n; i++) {
        memcpy(r->key, a->sums + 2 * (size_t) a->vectors[i] * (size_t) r->width, (size_t) r->width * sizeof *r->key);
        a->turn(a->of, a->cells[i], r->key);
        add_keys(r, layer, a->cells[i], r->key);
    }
    add_values(r, layer, a);
    return true;
}

/* ---- for the graph ---- */

/* Packed rows as f16, not turned any more. */
static void unpack(struct rows * r, uint32_t type, const uint8_t * from, int64_t row, uint32_t blocks, uint16_t * to) {
    for (uint32_t c = 0; c < r->state->cells; c++) {
        semshare_dequantize(type, from + c * row, row, r->one, r->width);
        hadamard(r->one, r->width, (int32_t) blocks);
        for (int32_t i = 0; i < r->width; i++) {
            to[(size_t) c * (size_t) r->width + (size_t) i] = f16_from_f32(r->one[i]);
        }
    }
}

/* Columns as rows, in squares that fit the nearest cache. */
static void straighten(const struct rows * r, int32_t layer, uint8_t * to) {
    enum { SQUARE = 32 };
    const int64_t elem = r->state->layout.layers[layer].v_elem, cells = r->state->cells;
    for (int64_t c0 = 0; c0 < cells; c0 += SQUARE) {
        for (int64_t i0 = 0; i0 < r->width; i0 += SQUARE) {
            for (int64_t c = c0; c < cells && c < c0 + SQUARE; c++) {
                for (int64_t i = i0; i < r->width && i < i0 + SQUARE; i++) {
                    memcpy(to + (c * r->width + i) * elem, element(r, layer, (int32_t) c, i), (size_t) elem);
                }
            }
        }
    }
}

bool rows_plain(const struct state * s) {
    for (uint32_t i = 0; i < s->layout.n_layers; i++) {
        if (!is_plain(s->layout.layers[i].k_type) || !is_plain(s->layout.layers[i].v_type)) {
            return false;
        }
    }
    return s->layout.rot_k < 2 && s->layout.rot_v < 2 && !s->layout.v_trans;
}

bool rows_in_graph(const struct rows * r) { return r->cache != NULL && rows_plain(r->state); }

struct cached rows_cached(struct rows * r, int32_t layer) {
    const struct state_layout * l = &r->state->layout;
    const struct state_layer * y = &l->layers[layer];
    struct cached out = {.k_type = (int32_t) y->k_type, .v_type = (int32_t) y->v_type, .k = r->state->k[layer], .v = r->state->v[layer], .cells = r->state->cells};
    if (!is_plain(y->k_type) || l->rot_k > 1) {
        unpack(r, y->k_type, out.k, y->k_row, l->rot_k, r->k16);
        out.k = (const uint8_t *) r->k16;
        out.k_type = SEMSHARE_TYPE_F16;
    } else if (r->cache != NULL) {
        out.k_tensor = r->cache->k[layer];
    }
    if (l->v_trans) {
        straighten(r, layer, (uint8_t *) r->v16);
        out.v = (const uint8_t *) r->v16;
    } else if (!is_plain(y->v_type) || l->rot_v > 1) {
        unpack(r, y->v_type, out.v, y->v_row, l->rot_v, r->v16);
        out.v = (const uint8_t *) r->v16;
        out.v_type = SEMSHARE_TYPE_F16;
    } else if (r->cache != NULL) {
        out.v_tensor = r->cache->v[layer];
    }
    out.first = r->cache != NULL ? r->cache->first : 0;
    return out;
}
