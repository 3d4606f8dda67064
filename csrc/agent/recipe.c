/* Reads recipes. The file is copied before it is checked, so that what was checked is
 * what is used. */
#include "recipe.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(sizeof(struct recipe_head) == 128, "the layout of a recipe");
_Static_assert(sizeof(struct recipe_ref) == 256, "the layout of a recipe");
_Static_assert(sizeof(struct state_types) == 8, "the layout of a recipe");
_Static_assert(sizeof(struct semshare_run) == 20, "the layout of a recipe");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "recipes are little-endian");

enum {
    MAX_TOKENS = 1 << 23,
    MAX_LAYERS = 512,
    MAX_HEAD = 1024,
};

/* ---- reading ---- */

static bool read_all(int fd, uint8_t * to, size_t n) {
    while (n > 0) {
        const ssize_t got = read(fd, to, n);
        if (got <= 0) {
            return false;
        }
        to += got;
        n -= (size_t) got;
    }
    return true;
}

bool recipe_is(const char * path) {
    uint32_t magic = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    const bool ok = read_all(fd, (uint8_t *) &magic, sizeof magic);
    close(fd);
    return ok && magic == RECIPE_MAGIC;
}

static uint8_t * slurp(const char * path, size_t * size) {
    uint8_t * bytes = NULL;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return NULL;
    }
    const int64_t n = state_file_bytes(fd);
    if (n > 0 && n <= RECIPE_MAX_BYTES) {
        *size = (size_t) n;
        bytes = malloc(*size);
    }
    if (bytes != NULL && !read_all(fd, bytes, *size)) {
        free(bytes);
        bytes = NULL;
    }
    close(fd);
    return bytes;
}

/* ---- checks ---- */

static bool check_head(const struct recipe_head * h, size_t size, struct error * err) {
    if (h->version != RECIPE_VERSION) {
        return fail(err, "recipe version %u: expected %d", h->version, RECIPE_VERSION);
    }
    if (h->size != size) {
        return fail(err, "recipe of %zu bytes says it has %llu", size, (unsigned long long) h->size);
    }
    if (h->n_tokens == 0 || h->n_tokens > MAX_TOKENS || h->n_cells == 0 || h->n_cells > h->n_tokens || h->n_runs > h->n_cells) {
        return fail(err, "%u tokens, %u cells, %u runs: expected one and more, no more cells than tokens, no more runs than cells", h->n_tokens, h->n_cells, h->n_runs);
    }
    if (h->n_refs == 0 || h->n_refs > RECIPE_MAX_REFS || h->n_layers == 0 || h->n_layers > MAX_LAYERS) {
        return fail(err, "%u references, %u layers: expected 1 to %d and 1 to %d", h->n_refs, h->n_layers, RECIPE_MAX_REFS, MAX_LAYERS);
    }
    if (h->head_dim == 0 || h->head_dim > MAX_HEAD || h->dims % 2 != 0 || h->dims > h->head_dim) {
        return fail(err, "heads of %u elements, %u of them turning: expected up to %d and an even number of those", h->head_dim, h->dims, MAX_HEAD);
    }
    if (!(h->share_first >= 0 && h->share_first <= 1) || !(h->share_last >= 0 && h->share_last <= h->share_first) || !(h->min_deviation >= 0)) {
        return fail(err, "shares %g to %g, least deviation %g: out of range", (double) h->share_first, (double) h->share_last, (double) h->min_deviation);
    }
    const float rope[] = {h->freq_base, h->freq_scale, h->ext_factor, h->attn_factor, h->beta_fast, h->beta_slow};
    for (size_t i = 0; i < sizeof rope / sizeof rope[0]; i++) {
        if (!(rope[i] >= 0) || isinf(rope[i])) {
            return fail(err, "RoPE setting %zu is %g: expected 0 and more", i, (double) rope[i]);
        }
    }
    if (!(h->retention > 0 && h->retention <= 1) || !(h->share_attended >= 0 && h->share_attended <= 1)) {
        return fail(err, "retention %g, share of attended cells %g: expected above 0 and from 0, up to 1", (double) h->retention, (double) h->share_attended);
    }
    const bool drafts = h->retention < 1 || h->share_attended > 0;
    if (h->n_following > MAX_TOKENS || h->n_drafted > RECIPE_MAX_DRAFTED || (h->n_following == 0 && (drafts || h->n_drafted > 0))) {
        return fail(err, "%u tokens follow, %u to be drafted: expected up to %d and %d, and one that follows where an answer is to tell", h->n_following, h->n_drafted, MAX_TOKENS, RECIPE_MAX_DRAFTED);
    }
    if (h->state_version < STATE_MIN_VERSION || h->state_version > STATE_MAX_VERSION || h->streams == 0 || h->streams > STATE_MAX_STREAMS) {
        return fail(err, "a state of version %u and %u streams: expected version %d to %d, 1 to %d streams", h->state_version, h->streams, STATE_MIN_VERSION, STATE_MAX_VERSION, STATE_MAX_STREAMS);
    }
    return h->orig_ctx <= INT32_MAX || fail(err, "original context of %u tokens", h->orig_ctx);
}

static bool check_names(const struct recipe * r, struct error * err) {
    for (uint32_t i = 0; i < r->head.n_refs; i++) {
        const char * name = r->refs[i].name;
        const size_t n = strnlen(name, sizeof r->refs[i].name);
        if (n == 0 || n == sizeof r->refs[i].name || name[0] == '.' || memchr(name, '/', n) != NULL) {
            return fail(err, "reference %u has no plain file name", i);
        }
    }
    return true;
}

static bool check_cells(const struct recipe * r, struct error * err) {
    const struct recipe_head * h = &r->head;
    for (uint32_t i = 0; i < h->n_tokens + h->n_following; i++) {
        if (r->tokens[i] < 0) {
            return fail(err, "token %u is %d", i, r->tokens[i]);
        }
    }
    for (uint32_t i = 0; i < h->n_cells; i++) {
        if (r->pos[i] < 0 || (uint32_t) r->pos[i] >= h->n_tokens || (i > 0 && r->pos[i] <= r->pos[i - 1])) {
            return fail(err, "cell %u at position %d: expected ascending ones below %u", i, r->pos[i], h->n_tokens);
        }
        if (recipe_depth(r, i) > h->n_layers) {
            return fail(err, "cell %u has depth %u of %u layers", i, recipe_depth(r, i), h->n_layers);
        }
        if (r->passage[i] > h->n_cells || (r->passage[i] != 0 && h->dims == 0)) {
            return fail(err, "cell %u is of passage %u: expected at most %u, and none where keys do not turn", i, r->passage[i], h->n_cells);
        }
        if (recipe_is_sample(r, i) && recipe_depth(r, i) != h->n_layers) {
            return fail(err, "cell %u is a sample and computed in %u of %u layers", i, recipe_depth(r, i), h->n_layers);
        }
    }
    if ((uint32_t) r->pos[h->n_cells - 1] != h->n_tokens - 1) {
        return fail(err, "the last cell is at position %d of %u tokens", r->pos[h->n_cells - 1], h->n_tokens);
    }
    return true;
}

/* Each cell comes from one run, or is computed in every layer. */
static bool check_coverage(const struct recipe * r, uint8_t * covered, struct error * err) {
    const struct recipe_head * h = &r->head;
    for (uint32_t i = 0; i < h->n_runs; i++) {
        const struct semshare_run * run = &r->runs[i];
        if (run->ref < 0 || (uint32_t) run->ref >= h->n_refs || run->src < 0 || run->dst < 0 || run->len <= 0 || (int64_t) run->dst + run->len > h->n_cells) {
            return fail(err, "run %u leaves the cells or the references", i);
        }
        for (int32_t c = run->dst; c < run->dst + run->len; c++) {
            if (covered[c]++ != 0) {
                return fail(err, "cell %d is in two runs", c);
            }
        }
    }
    for (uint32_t i = 0; i < h->n_cells; i++) {
        if (!covered[i] && recipe_depth(r, i) != h->n_layers) {
            return fail(err, "cell %u is in no run and not computed", i);
        }
        if (!covered[i] && recipe_is_sample(r, i)) {
            return fail(err, "cell %u is a sample and in no run", i);
        }
    }
    return true;
}

static bool check_contents(const struct recipe * r, struct error * err) {
    for (uint32_t i = 0; i < r->head.dims / 2; i++) {
        if (!isfinite(r->freqs[i])) {
            return fail(err, "frequency %u is not a number", i);
        }
    }
    if (!check_names(r, err) || !check_cells(r, err)) {
        return false;
    }
    uint8_t * covered = calloc(r->head.n_cells, 1);
    if (covered == NULL) {
        return fail(err, "out of memory");
    }
    const bool ok = check_coverage(r, covered, err);
    free(covered);
    return ok;
}

/* All counts are below 2^24 here, so that nothing can overflow. */
static size_t lay_out(struct recipe * r, const uint8_t * bytes) {
    const struct recipe_head * h = &r->head;
    size_t at = sizeof *h;
    r->refs = (const void *) (bytes + at);
    at += h->n_refs * sizeof *r->refs;
    r->types = (const void *) (bytes + at);
    at += h->n_layers * sizeof *r->types;
    r->tokens = (const void *) (bytes + at);
    at += (h->n_tokens + h->n_following) * sizeof *r->tokens;
    r->pos = (const void *) (bytes + at);
    at += h->n_cells * sizeof *r->pos;
    r->depth = (const void *) (bytes + at);
    at += (h->n_cells * sizeof *r->depth + 3) / 4 * 4;
    r->passage = (const void *) (bytes + at);
    at += (h->n_cells * sizeof *r->passage + 3) / 4 * 4;
    r->runs = (const void *) (bytes + at);
    at += h->n_runs * sizeof *r->runs;
    r->freqs = (const void *) (bytes + at);
    return at + h->dims / 2 * sizeof *r->freqs;
}

bool recipe_parse(struct recipe * r, const uint8_t * bytes, size_t size, struct error * err) {
    if (size < sizeof r->head) {
        return fail(err, "recipe of %zu bytes: expected %zu and more", size, sizeof r->head);
    }
    memcpy(&r->head, bytes, sizeof r->head);
    if (r->head.magic != RECIPE_MAGIC) {
        return fail(err, "no recipe");
    }
    if (!check_head(&r->head, size, err)) {
        return false;
    }
    const size_t hashed = offsetof(struct recipe_head, checksum) + sizeof r->head.checksum;
    if (xxhash64(bytes + hashed, size - hashed) != r->head.checksum) {
        return fail(err, "the recipe's checksum does not fit");
    }
    if (lay_out(r, bytes) != size) {
        return fail(err, "recipe of %zu bytes: what it announces takes %zu", size, lay_out(r, bytes));
    }
    return check_contents(r, err);
}

bool recipe_read(struct recipe * r, const char * path, struct error * err) {
    size_t size;
    memset(r, 0, sizeof *r);
    r->bytes = slurp(path, &size);
    if (r->bytes == NULL) {
        return fail(err, "cannot read the recipe, or it is longer than %d bytes", RECIPE_MAX_BYTES);
    }
    return recipe_parse(r, r->bytes, size, err);
}

void recipe_free(struct recipe * r) {
    free(r->bytes);
    memset(r, 0, sizeof *r);
}

bool recipe_computes(const struct recipe * r) {
    for (uint32_t i = 0; i < r->head.n_cells; i++) {
        if (recipe_depth(r, i) > 0) {
            return true;
        }
    }
    return r->head.share_first > 0 || recipe_drafts(r);
}
