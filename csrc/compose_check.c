/* What semshare_compose refuses: every size and bound of a job, before a byte is touched. */
#include "internal.h"

#include <limits.h>
#include <math.h>

struct side target_side(const struct semshare_job * j, bool values) {
    struct side s = {.type = values ? j->v_type : j->k_type, .trans = values && j->v_trans, .row = values ? j->v_row : j->k_row, .cells = j->dst_cells};
    s.elems = type_block(s.type, &s.bytes);
    s.width = (int32_t) (s.trans ? j->v_width : s.row / s.bytes * s.elems);
    return s;
}

struct side source_side(const struct semshare_job * j, const struct semshare_source * source, bool values) {
    struct side s = {.type = values ? source->v_type : source->k_type, .trans = values && source->v_trans, .width = target_side(j, values).width, .cells = source->cells};
    s.elems = type_block(s.type, &s.bytes);
    s.row = s.trans ? 0 : s.width / s.elems * s.bytes;
    return s;
}

static int32_t check_rope(const struct semshare_rope * rope) {
    if (rope == NULL) {
        return SEMSHARE_OK;
    }
    if (rope->head_dim <= 0 || rope->dims < 0 || rope->dims > rope->head_dim || rope->dims % 2 != 0) {
        return SEMSHARE_ERR_ROPE;
    }
    if (rope->dims > 0 && rope->freqs == NULL) {
        return SEMSHARE_ERR_ROPE;
    }
    for (int32_t i = 0; i < rope->dims / 2; i++) {
        if (!isfinite(rope->freqs[i])) {
            return SEMSHARE_ERR_ROPE;
        }
    }
    return SEMSHARE_OK;
}

static int32_t check_runs(const struct semshare_run * runs, int32_t n, const struct semshare_rope * rope, bool * moves) {
    *moves = false;
    for (int32_t i = 0; i < n; i++) {
        const struct semshare_run * r = &runs[i];
        if (r->ref < 0 || r->src < 0 || r->dst < 0 || r->len <= 0 || r->src > INT32_MAX - r->len || r->dst > INT32_MAX - r->len) {
            return SEMSHARE_ERR_RANGE;
        }
        if (r->delta != 0 && rope == NULL) {
            return SEMSHARE_ERR_ROPE;
        }
        *moves = *moves || r->delta != 0;
    }
    return SEMSHARE_OK;
}

static int32_t check_keys(const struct semshare_job * j, const struct semshare_rope * rope, bool moves) {
    if (j->k_row < 0 || j->k_size < 0 || (j->k_row > 0 && j->k_size > 0 && j->k == NULL)) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    if (j->k_row == 0 || !moves) {
        return SEMSHARE_OK;
    }
    int32_t bytes;
    const int32_t elems = type_block(j->k_type, &bytes);
    if (elems == 0 || !type_is_cache(j->k_type)) {
        return SEMSHARE_ERR_TYPE;
    }
    if (j->k_row % bytes != 0 || j->k_row / bytes > INT32_MAX / elems || j->k_row / bytes * elems % rope->head_dim != 0) {
        return SEMSHARE_ERR_SIZE;
    }
    if (j->k_rot < 0 || (j->k_rot & (j->k_rot - 1)) != 0 || (j->k_rot > 0 && rope->head_dim % j->k_rot != 0)) {
        return SEMSHARE_ERR_SIZE;
    }
    return SEMSHARE_OK;
}

/* Whether columns of cells elements of elem bytes, v_width of them, fit size bytes. */
static bool columns_fit(const struct semshare_job * j, int64_t elem, int64_t cells, int64_t size) {
    return cells >= 0 && cells <= INT32_MAX && cells <= size / (j->v_width * elem);
}

static int32_t check_values(const struct semshare_job * j) {
    if (j->v_row < 0 || j->v_size < 0 || (j->v_size > 0 && j->v == NULL)) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    if (!j->v_trans || j->v_width == 0) {
        return j->v_trans && j->v_row != 0 ? SEMSHARE_ERR_SIZE : SEMSHARE_OK;
    }
    if (j->v_row != 0 || j->v_width < 0 || j->v_width > INT32_MAX || (j->v_elem != 1 && j->v_elem != 2 && j->v_elem != 4)) {
        return SEMSHARE_ERR_SIZE;
    }
    if (!columns_fit(j, j->v_elem, j->dst_cells, j->v_size)) {
        return SEMSHARE_ERR_SIZE;
    }
    for (int32_t r = 0; r < j->n_sources; r++) {
        if (!j->sources[r].retyped && !columns_fit(j, j->v_elem, j->sources[r].cells, j->sources[r].v_size)) {
            return SEMSHARE_ERR_SIZE;
        }
    }
    return SEMSHARE_OK;
}

/* Whether cells of width elements can have the type. */
static int32_t check_type(uint32_t type, bool trans, int64_t width) {
    int32_t bytes;
    const int32_t elems = type_block(type, &bytes);
    if (elems == 0 || !type_is_cache(type)) {
        return SEMSHARE_ERR_TYPE;
    }
    return width > INT32_MAX || width % elems != 0 || (trans && elems != 1) ? SEMSHARE_ERR_SIZE : SEMSHARE_OK;
}

/* Whether one half of a retyped source can become that half of the job. */
static int32_t check_retyped(const struct semshare_job * j, const struct semshare_source * s, bool values) {
    const bool trans = values && j->v_trans;
    const uint32_t type = values ? j->v_type : j->k_type;
    const int64_t row = values ? j->v_row : j->k_row;
    int32_t bytes;
    const int32_t elems = type_block(type, &bytes);
    int32_t status = check_type(type, trans, 0);
    if (status != SEMSHARE_OK) {
        return status;
    }
    if (trans ? j->v_elem != bytes : row % bytes != 0) {
        return SEMSHARE_ERR_SIZE;
    }
    status = check_type(type, trans, trans ? j->v_width : row / bytes * elems);
    if (status != SEMSHARE_OK) {
        return status;
    }
    const struct side target = target_side(j, values);
    status = check_type(values ? s->v_type : s->k_type, values && s->v_trans, target.width);
    if (status != SEMSHARE_OK || !values || !s->v_trans) {
        return status;
    }
    const struct side source = source_side(j, s, values);
    return s->cells < 0 || s->cells > INT32_MAX || s->cells > s->v_size / ((int64_t) source.width * source.bytes) ? SEMSHARE_ERR_SIZE : SEMSHARE_OK;
}

static int32_t check_sources(const struct semshare_job * j) {
    for (int32_t r = 0; r < j->n_sources; r++) {
        const struct semshare_source * s = &j->sources[r];
        if (s->k_size < 0 || s->v_size < 0 || (s->k_size > 0 && s->k == NULL) || (s->v_size > 0 && s->v == NULL)) {
            return SEMSHARE_ERR_ARGUMENT;
        }
        int32_t status = SEMSHARE_OK;
        if (s->retyped && has_keys(j)) {
            status = check_retyped(j, s, false);
        }
        if (status == SEMSHARE_OK && s->retyped && has_values(j)) {
            status = check_retyped(j, s, true);
        }
        if (status != SEMSHARE_OK) {
            return status;
        }
    }
    return SEMSHARE_OK;
}

static int64_t rows_in(int64_t size, int64_t row) { return row == 0 ? INT64_MAX : size / row; }

/* How many cells a source has for both halves of the job. */
static int64_t source_rows(const struct semshare_job * j, const struct semshare_source * s) {
    int64_t key_row = j->k_row, value_row = j->v_row;
    bool columns = j->v_trans && has_values(j);
    if (s->retyped && has_keys(j)) {
        key_row = source_side(j, s, false).row;
    }
    if (s->retyped && has_values(j)) {
        value_row = source_side(j, s, true).row;
        columns = s->v_trans != 0;
    }
    const int64_t keys = rows_in(s->k_size, key_row), values = columns ? s->cells : rows_in(s->v_size, value_row);
    return keys < values ? keys : values;
}

/* Whether every run stays within the job's target and sources. */
static int32_t check_bounds(const struct semshare_job * j, const struct semshare_run * runs, int32_t n) {
    const int64_t key_rows = rows_in(j->k_size, j->k_row);
    const int64_t value_rows = j->v_trans && has_values(j) ? j->dst_cells : rows_in(j->v_size, j->v_row);
    for (int32_t i = 0; i < n; i++) {
        const struct semshare_run * r = &runs[i];
        if (r->ref >= j->n_sources) {
            return SEMSHARE_ERR_RANGE;
        }
        const int64_t to = (int64_t) r->dst + r->len, from = (int64_t) r->src + r->len;
        if (to > key_rows || to > value_rows || from > source_rows(j, &j->sources[r->ref])) {
            return SEMSHARE_ERR_RANGE;
        }
    }
    return SEMSHARE_OK;
}

static int32_t check_job(const struct semshare_job * j, const struct semshare_run * runs, int32_t n_runs, const struct semshare_rope * rope, bool moves) {
    if (j->n_sources < 0 || (j->n_sources > 0 && j->sources == NULL)) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    int32_t status = check_keys(j, rope, moves);
    if (status == SEMSHARE_OK) {
        status = check_values(j);
    }
    if (status == SEMSHARE_OK) {
        status = check_sources(j);
    }
    return status == SEMSHARE_OK ? check_bounds(j, runs, n_runs) : status;
}

int32_t compose_check(const struct semshare_job * jobs, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs, const struct semshare_rope * rope) {
    if (n_jobs < 0 || n_runs < 0 || (n_jobs > 0 && jobs == NULL) || (n_runs > 0 && runs == NULL)) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    bool moves;
    int32_t status = check_rope(rope);
    if (status == SEMSHARE_OK) {
        status = check_runs(runs, n_runs, rope, &moves);
    }
    for (int32_t i = 0; i < n_jobs && status == SEMSHARE_OK; i++) {
        status = check_job(&jobs[i], runs, n_runs, rope, moves);
    }
    return status;
}
