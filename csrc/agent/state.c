#include "state.h"

#include "internal.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define STATE_MAGIC 0x67677371u /* "ggsq" */

enum {
    MAX_SEQS = 256,
    MAX_ROW = 1 << 24,
    PACKED_WORDS = 4, /* -1, 1, count; number of media */
    CELL_BYTES = 12,  /* position, one sequence */
};

/* ---- reading ---- */

struct cursor {
    uint8_t * at, * end;
    bool bad;
};

/* The next n bytes; null, and bad from then on, where the file ends before. */
static uint8_t * take(struct cursor * c, uint64_t n) {
    if (c->bad || n > (uint64_t) (c->end - c->at)) {
        c->bad = true;
        return NULL;
    }
    uint8_t * p = c->at;
    c->at += n;
    return p;
}

static uint32_t take32(struct cursor * c) {
    uint32_t v = 0;
    const uint8_t * p = take(c, sizeof v);
    if (p != NULL) {
        memcpy(&v, p, sizeof v);
    }
    return v;
}

static uint64_t take64(struct cursor * c) {
    uint64_t v = 0;
    const uint8_t * p = take(c, sizeof v);
    if (p != NULL) {
        memcpy(&v, p, sizeof v);
    }
    return v;
}

static void parse_tokens(struct state * s, struct cursor * c) {
    const uint32_t words = take32(c);
    const uint8_t * p = take(c, (uint64_t) words * 4);
    int32_t first = 0;
    if (p != NULL && words > 0) {
        memcpy(&first, p, sizeof first);
    }
    s->layout.packed = first == -1;
}

static void parse_cells(struct state * s, struct cursor * c) {
    int64_t before = -1;
    s->in_order = true;
    for (uint32_t i = 0; i < s->cells && !c->bad; i++) {
        const int64_t pos = (int32_t) take32(c);
        s->in_order = s->in_order && pos > before;
        before = pos;
        const uint32_t seqs = take32(c);
        c->bad = c->bad || seqs == 0 || seqs > MAX_SEQS;
        take(c, (uint64_t) seqs * 4);
    }
}

static void parse_type(struct cursor * c, uint32_t * type) {
    int32_t bytes;
    *type = take32(c);
    c->bad = c->bad || !type_is_cache(*type) || type_block(*type, &bytes) == 0;
}

/* Rows of a layer; returns where they lie. */
static uint8_t * parse_rows(const struct state * s, struct cursor * c, uint32_t * type, int64_t * row) {
    parse_type(c, type);
    const uint64_t n = take64(c);
    if (c->bad || n == 0 || n > MAX_ROW) {
        c->bad = true;
        return NULL;
    }
    *row = (int64_t) n;
    return take(c, n * s->cells);
}

static uint8_t * parse_columns(const struct state * s, struct cursor * c, struct state_layer * l) {
    int32_t bytes = 0;
    parse_type(c, &l->v_type);
    l->v_elem = take32(c);
    l->v_width = take32(c);
    if (c->bad || type_block(l->v_type, &bytes) != 1 || l->v_elem != bytes || l->v_width == 0 || l->v_width > MAX_ROW) {
        c->bad = true;
        return NULL;
    }
    return take(c, (uint64_t) (l->v_elem * l->v_width) * s->cells);
}

static void parse_data(struct state * s, struct cursor * c) {
    struct state_layout * l = &s->layout;
    const uint32_t trans = take32(c);
    l->v_trans = trans == 1;
    l->n_layers = take32(c);
    if (l->version >= 4) {
        l->rot_k = take32(c);
        l->rot_v = take32(c);
    }
    if (c->bad || trans > 1 || l->n_layers == 0 || l->n_layers > STATE_MAX_LAYERS || (l->rot_k & (l->rot_k - 1)) != 0 || (l->rot_v & (l->rot_v - 1)) != 0) {
        c->bad = true;
        return;
    }
    for (uint32_t i = 0; i < l->n_layers && !c->bad; i++) {
        s->k[i] = parse_rows(s, c, &l->layers[i].k_type, &l->layers[i].k_row);
    }
    for (uint32_t i = 0; i < l->n_layers && !c->bad; i++) {
        s->v[i] = l->v_trans ? parse_columns(s, c, &l->layers[i]) : parse_rows(s, c, &l->layers[i].v_type, &l->layers[i].v_row);
    }
}

bool state_parse(struct state * s, struct error * err) {
    struct cursor c = {s->data, s->data + s->size, false};
    if (take32(&c) != STATE_MAGIC) {
        return fail(err, "not a saved state");
    }
    s->layout.version = take32(&c);
    if (s->layout.version < STATE_MIN_VERSION || s->layout.version > STATE_MAX_VERSION) {
        return fail(err, "state of version %u: expected %d to %d", s->layout.version, STATE_MIN_VERSION, STATE_MAX_VERSION);
    }
    parse_tokens(s, &c);
    s->layout.streams = take32(&c);
    if (s->layout.streams == 0 || s->layout.streams > STATE_MAX_STREAMS) {
        return fail(err, "state of %u streams: expected 1 to %d", s->layout.streams, STATE_MAX_STREAMS);
    }
    for (uint32_t i = 0; i < s->layout.streams && !c.bad; i++) {
        const uint32_t cells = take32(&c);
        if (cells == 0) {
            continue;
        }
        c.bad = c.bad || s->cells != 0;
        s->cells = cells;
        s->stride = cells;
        parse_cells(s, &c);
        parse_data(s, &c);
    }
    if (c.bad || s->cells == 0 || c.at != c.end) {
        return fail(err, "not one plain sequence in the saved state");
    }
    return true;
}

int64_t state_file_bytes(int fd) {
    const off_t size = lseek(fd, 0, SEEK_END);
    return lseek(fd, 0, SEEK_SET) == 0 ? size : -1;
}

bool state_open(struct state * s, int dir, const char * name, uint64_t size, struct error * err) {
    memset(s, 0, sizeof *s);
    const int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return fail(err, "reference %s cannot be opened", name);
    }
    const bool fits = size > 0 && state_file_bytes(fd) == (int64_t) size;
    void * data = fits ? mmap(NULL, (size_t) size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    if (data == MAP_FAILED) {
        return fail(err, "reference %s is no file of %llu bytes, or cannot be mapped", name, (unsigned long long) size);
    }
    s->data = data;
    s->size = (size_t) size;
    struct error why;
    if (!state_parse(s, &why)) {
        return fail(err, "reference %.120s: %.120s", name, why.text);
    }
    return true;
}

void state_close(struct state * s) {
    if (s->data != NULL) {
        munmap(s->data, s->size);
    }
    s->data = NULL;
}

/* ---- layouts ---- */

int64_t state_row_bytes(uint32_t type, int64_t width) {
    int32_t bytes = 0;
    const int32_t elems = type_block(type, &bytes);
    return elems == 0 || width % elems != 0 ? -1 : width / elems * bytes;
}

int64_t state_row_elems(uint32_t type, int64_t row) {
    int32_t bytes = 0;
    const int32_t elems = type_block(type, &bytes);
    return elems == 0 || row % bytes != 0 ? 0 : row / bytes * elems;
}

int64_t state_key_bytes(const struct state * s, uint32_t layer) { return s->cells * s->layout.layers[layer].k_row; }

int64_t state_value_bytes(const struct state * s, uint32_t layer) {
    const struct state_layer * y = &s->layout.layers[layer];
    return s->cells * y->v_row + s->stride * y->v_elem * y->v_width;
}

static int64_t key_elems(const struct state_layer * y) { return state_row_elems(y->k_type, y->k_row); }

static int64_t value_elems(const struct state_layer * y) { return y->v_width > 0 ? y->v_width : state_row_elems(y->v_type, y->v_row); }

static bool retype_layer(struct state_layer * y, const struct state_layer * from, bool v_trans, const struct state_types * to) {
    int32_t bytes = 0;
    const int64_t k = key_elems(from), v = value_elems(from);
    if (!type_is_cache(to->k) || !type_is_cache(to->v) || k == 0 || v == 0 || (v_trans && type_block(to->v, &bytes) != 1)) {
        return false;
    }
    *y = (struct state_layer) {.k_type = to->k, .v_type = to->v, .k_row = state_row_bytes(to->k, k)};
    if (v_trans) {
        y->v_elem = bytes;
        y->v_width = v;
        return y->k_row > 0;
    }
    y->v_row = state_row_bytes(to->v, v);
    return y->k_row > 0 && y->v_row > 0;
}

bool state_retype(struct state_layout * l, const struct state_layout * from, bool v_trans, const struct state_types * types, struct error * err) {
    *l = *from;
    l->v_trans = v_trans;
    for (uint32_t i = 0; i < from->n_layers; i++) {
        if (!retype_layer(&l->layers[i], &from->layers[i], v_trans, &types[i])) {
            return fail(err, "layer %u of the references cannot become keys of type %u and values of type %u", i, types[i].k, types[i].v);
        }
    }
    return true;
}

bool state_layout_takes(const struct state_layout * l, const struct state_layout * from) {
    if (l->rot_k != from->rot_k || l->rot_v != from->rot_v || l->n_layers != from->n_layers) {
        return false;
    }
    for (uint32_t i = 0; i < l->n_layers; i++) {
        if (key_elems(&l->layers[i]) != key_elems(&from->layers[i]) || value_elems(&l->layers[i]) != value_elems(&from->layers[i])) {
            return false;
        }
    }
    return true;
}

bool state_layer_equal(const struct state_layout * l, const struct state_layout * m, uint32_t layer) {
    const struct state_layer * a = &l->layers[layer], * b = &m->layers[layer];
    return l->v_trans == m->v_trans && a->k_type == b->k_type && a->v_type == b->v_type && a->k_row == b->k_row && a->v_row == b->v_row && a->v_elem == b->v_elem && a->v_width == b->v_width;
}

/* ---- writing ---- */

uint32_t state_words(const struct state_layout * l, uint32_t tokens) { return tokens + (l->packed ? PACKED_WORDS : 0); }

size_t state_bytes(const struct state_layout * l, uint32_t tokens, uint32_t cells) {
    size_t n = STATE_TOKENS + (size_t) state_words(l, tokens) * 4;
    n += 4 + (size_t) l->streams * 4 + (size_t) cells * CELL_BYTES;
    n += l->version >= 4 ? 16 : 8;
    for (uint32_t i = 0; i < l->n_layers; i++) {
        const struct state_layer * y = &l->layers[i];
        n += 24; /* both kinds of values have a header of 12 bytes */
        n += (size_t) cells * (size_t) (y->k_row + y->v_row + y->v_elem * y->v_width);
    }
    return n;
}

static uint8_t * put32(uint8_t * p, uint32_t v) {
    memcpy(p, &v, sizeof v);
    return p + sizeof v;
}

static uint8_t * put64(uint8_t * p, uint64_t v) {
    memcpy(p, &v, sizeof v);
    return p + sizeof v;
}

static uint8_t * put_tokens(uint8_t * p, bool packed, const int32_t * tokens, uint32_t n) {
    p = put32(p, packed ? n + PACKED_WORDS : n);
    if (packed) {
        p = put32(put32(put32(p, (uint32_t) -1), 1), n);
    }
    memcpy(p, tokens, (size_t) n * 4);
    p += (size_t) n * 4;
    return packed ? put32(p, 0) : p;
}

static uint8_t * put_layers(struct state * s, uint8_t * p) {
    const struct state_layout * l = &s->layout;
    for (uint32_t i = 0; i < l->n_layers; i++) {
        p = put64(put32(p, l->layers[i].k_type), (uint64_t) l->layers[i].k_row);
        s->k[i] = p;
        p += (size_t) s->cells * (size_t) l->layers[i].k_row;
    }
    for (uint32_t i = 0; i < l->n_layers; i++) {
        const struct state_layer * y = &l->layers[i];
        p = put32(p, y->v_type);
        p = l->v_trans ? put32(put32(p, (uint32_t) y->v_elem), (uint32_t) y->v_width) : put64(p, (uint64_t) y->v_row);
        s->v[i] = p;
        p += (size_t) s->cells * (size_t) (y->v_row + y->v_elem * y->v_width);
    }
    return p;
}

/* Cells are of sequence 0: the server puts its own in its place. */
static uint8_t * put_stream(struct state * s, uint8_t * p, const int32_t * pos) {
    const struct state_layout * l = &s->layout;
    p = put32(p, s->cells);
    for (uint32_t i = 0; i < s->cells; i++) {
        p = put32(put32(put32(p, (uint32_t) pos[i]), 1), 0);
    }
    p = put32(put32(p, l->v_trans), l->n_layers);
    if (l->version >= 4) {
        p = put32(put32(p, l->rot_k), l->rot_v);
    }
    return put_layers(s, p);
}

void state_write(struct state * s, const struct state_layout * l, uint32_t stream, const int32_t * tokens, uint32_t n_tokens, const int32_t * pos, uint32_t n_cells) {
    s->layout = *l;
    s->cells = n_cells;
    s->stride = n_cells;
    uint8_t * p = put32(put32(s->data, STATE_MAGIC), l->version);
    p = put_tokens(p, l->packed, tokens, n_tokens);
    p = put32(p, l->streams);
    for (uint32_t i = 0; i < l->streams; i++) {
        p = i == stream ? put_stream(s, p, pos) : put32(p, 0);
    }
}
