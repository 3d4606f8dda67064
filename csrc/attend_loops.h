/* Attention in floats, for any width of vectors: lanes_*.h says what they are. */
#ifndef SEMSHARE_ATTEND_LOOPS_H
#define SEMSHARE_ATTEND_LOOPS_H

#include "attend.h"

#include <math.h>
#include <string.h>

enum {
    CELLS = 64,     /* of a tile */
    ROWS = 6,       /* that share what is read of a tile */
    MOST_ROWS = 96, /* ATTEND_MOST_SHARING and more */
};

/* Of the heads of a few tokens, one row each: what is known of the cells so far. */
struct rows {
    int32_t n, dim;
    float q[MOST_ROWS][ATTEND_MOST_DIM]; /* scaled */
    float sum[MOST_ROWS][ATTEND_MOST_DIM];
    float most[MOST_ROWS], total[MOST_ROWS];
    float weight[MOST_ROWS][CELLS]; /* of the tile's cells */
    int32_t visible[MOST_ROWS];
};

/* CELLS cells: keys so that cells lie side by side, values as they were. */
struct tile {
    float k[ATTEND_MOST_DIM][CELLS];
    float v[CELLS][ATTEND_MOST_DIM];
};

/* Keys of cells from first on; those from end on are zero. */
static void unpack_keys(const struct attend_head * h, int32_t first, int32_t end, struct tile * to) {
    for (int32_t c = 0; c < CELLS; c += LANES) {
        for (int32_t d = 0; d < h->dim; d += LANES) {
            floats keys[LANES];
            for (int32_t i = 0; i < LANES; i++) {
                const int32_t cell = first + c + i;
                keys[i] = cell < end ? v_halves(h->k + (size_t) cell * h->cell_k + (size_t) d * sizeof(uint16_t)) : v_all(0);
            }
            v_turn(keys);
            for (int32_t i = 0; i < LANES; i++) {
                v_store(&to->k[d + i][c], keys[i]);
            }
        }
    }
}

/* Values likewise. */
static void unpack_values(const struct attend_head * h, int32_t first, int32_t end, struct tile * to) {
    for (int32_t c = 0; c < CELLS; c++) {
        for (int32_t d = 0; d < h->dim; d += LANES) {
            v_store(&to->v[c][d], first + c < end ? v_halves(h->v + (size_t) (first + c) * h->cell_v + (size_t) d * sizeof(uint16_t)) : v_all(0));
        }
    }
}

/* e to the x, for x up to 0: 2^n times a polynomial (Cephes' expf). */
static inline floats exponential(floats x) {
    x = v_larger(x, v_all(-87));
    const floats n = v_nearest(x * v_all(1.44269504088896341f));
    const floats r = v_fma(n, v_all(2.12194440e-4f), v_fma(n, v_all(-0.693359375f), x));
    floats p = v_all(1.9875691500e-4f);
    p = v_fma(p, r, v_all(1.3981999507e-3f));
    p = v_fma(p, r, v_all(8.3334519073e-3f));
    p = v_fma(p, r, v_all(4.1665795894e-2f));
    p = v_fma(p, r, v_all(1.6666665459e-1f));
    p = v_fma(p, r, v_all(5.0000001201e-1f));
    return v_scale(v_fma(p, r * r, r + v_all(1)), n);
}

/* How the rows' queries like the tile's keys; n is a constant. */
static inline __attribute__((always_inline)) void scores(struct rows * r, const struct tile * t, int32_t row, const int n) {
    for (int c = 0; c < CELLS; c += COLUMNS * LANES) {
        floats s[ROWS][COLUMNS];
        for (int i = 0; i < n; i++) {
            for (int w = 0; w < COLUMNS; w++) {
                s[i][w] = v_all(0);
            }
        }
        for (int32_t d = 0; d < r->dim; d++) {
            for (int i = 0; i < n; i++) {
                const floats q = v_all(r->q[row + i][d]);
                for (int w = 0; w < COLUMNS; w++) {
                    s[i][w] = v_fma(q, v_load(&t->k[d][c + w * LANES]), s[i][w]);
                }
            }
        }
        for (int i = 0; i < n; i++) {
            for (int w = 0; w < COLUMNS; w++) {
                v_store(&r->weight[row + i][c + w * LANES], s[i][w]);
            }
        }
    }
}

/* Scores become weights, e to the difference from the largest so far; what came before is
 * brought to the same measure. seen is how many of the tile's cells the row sees. */
static void weigh(struct rows * r, int32_t row, int32_t seen) {
    float * weight = r->weight[row];
    for (int32_t c = seen; c < CELLS; c++) {
        weight[c] = -INFINITY;
    }
    floats largest = v_all(r->most[row]), total = v_all(0);
    for (int c = 0; c < CELLS; c += LANES) {
        largest = v_larger(v_load(weight + c), largest);
    }
    const float most = v_largest(largest);
    for (int c = 0; c < CELLS; c += LANES) {
        const floats e = exponential(v_load(weight + c) - v_all(most));
        total += e;
        v_store(weight + c, e);
    }
    for (int32_t c = seen; c < CELLS; c++) {
        weight[c] = 0;
    }
    if (most > r->most[row]) {
        const float less = expf(r->most[row] - most); /* 0 at first */
        r->total[row] *= less;
        for (int32_t d = 0; d < r->dim; d += LANES) {
            v_store(&r->sum[row][d], v_load(&r->sum[row][d]) * v_all(less));
        }
        r->most[row] = most;
    }
    r->total[row] += v_sum(total);
}

/* Adds the tile's values by their weights, so many vectors of each row; n and wide are constants. */
static inline __attribute__((always_inline)) void add_values(struct rows * r, const struct tile * t, int32_t row, int32_t cells, int32_t from, const int n, const int wide) {
    floats sum[ROWS][COLUMNS];
    for (int i = 0; i < n; i++) {
        for (int w = 0; w < wide; w++) {
            sum[i][w] = v_load(&r->sum[row + i][from + w * LANES]);
        }
    }
    for (int32_t c = 0; c < cells; c++) {
        for (int i = 0; i < n; i++) {
            const floats weight = v_all(r->weight[row + i][c]);
            for (int w = 0; w < wide; w++) {
                sum[i][w] = v_fma(weight, v_load(&t->v[c][from + w * LANES]), sum[i][w]);
            }
        }
    }
    for (int i = 0; i < n; i++) {
        for (int w = 0; w < wide; w++) {
            v_store(&r->sum[row + i][from + w * LANES], sum[i][w]);
        }
    }
}

static inline __attribute__((always_inline)) void rows_times_tile(struct rows * r, const struct tile * t, int32_t row, int32_t first, const int n) {
    scores(r, t, row, n);
    int32_t cells = 0;
    for (int i = 0; i < n; i++) {
        const int32_t seen = r->visible[row + i] - first;
        weigh(r, row + i, seen);
        cells = seen > cells ? seen : cells;
    }
    cells = cells < CELLS ? cells : CELLS;
    int32_t d = 0;
    for (; d + COLUMNS * LANES <= r->dim; d += COLUMNS * LANES) {
        add_values(r, t, row, cells, d, n, COLUMNS);
    }
    for (; d < r->dim; d += LANES) {
        add_values(r, t, row, cells, d, n, 1);
    }
}

static void all_times_tile(struct rows * r, const struct tile * t, int32_t first) {
    int32_t row = 0;
    while (row < r->n && r->visible[row] <= first) { /* those before see none of it */
        row++;
    }
    for (; row + ROWS <= r->n; row += ROWS) {
        rows_times_tile(r, t, row, first, ROWS);
    }
    for (; row < r->n; row++) {
        rows_times_tile(r, t, row, first, 1);
    }
}

/* Rows of n tokens from first on. */
static void take(const struct attend_head * h, int32_t first, int32_t n, struct rows * r) {
    r->n = n * h->sharing;
    r->dim = h->dim;
    memset(r->sum, 0, (size_t) r->n * sizeof r->sum[0]);
    for (int32_t row = 0; row < r->n; row++) {
        const float * q = h->q + (size_t) (first + row / h->sharing) * h->token_q + (size_t) (row % h->sharing * h->dim);
        for (int32_t d = 0; d < h->dim; d++) {
            r->q[row][d] = q[d] * h->scale;
        }
        r->most[row] = -INFINITY;
        r->total[row] = 0;
        r->visible[row] = h->visible[first + row / h->sharing];
    }
}

static void give(const struct attend_head * h, int32_t first, const struct rows * r) {
    for (int32_t row = 0; row < r->n; row++) {
        float * out = h->out + (size_t) (first + row / h->sharing) * h->token_out + (size_t) (row % h->sharing * h->dim);
        for (int32_t d = 0; d < h->dim; d++) {
            out[d] = r->sum[row][d] / r->total[row];
        }
    }
}

/* A server's threads may have small stacks. */
struct scratch {
    struct rows rows;
    struct tile tile;
};

static void head(const struct attend_head * h, int32_t first, int32_t n, void * scratch) {
    struct rows * r = &((struct scratch *) scratch)->rows;
    struct tile * t = &((struct scratch *) scratch)->tile;
    const int32_t at_once = MOST_ROWS / h->sharing;
    for (int32_t at = first, end = first + n; at < end; at += at_once) {
        const int32_t some = end - at < at_once ? end - at : at_once, visible = h->visible[at + some - 1];
        take(h, at, some, r);
        for (int32_t cell = 0; cell < visible; cell += CELLS) {
            unpack_keys(h, cell, visible, t);
            unpack_values(h, cell, visible, t);
            all_times_tile(r, t, cell);
        }
        give(h, at, r);
    }
}

static void all_scores(struct rows * r, const struct tile * t) {
    int32_t row = 0;
    for (; row + ROWS <= r->n; row += ROWS) {
        scores(r, t, row, ROWS);
    }
    for (; row < r->n; row++) {
        scores(r, t, row, 1);
    }
}

/* Scores become shares. */
static void share_out(float * x, int32_t n) {
    float most = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        most = x[i] > most ? x[i] : most;
    }
    const int32_t whole = n - n % LANES;
    floats sum = v_all(0);
    for (int32_t i = 0; i < whole; i += LANES) {
        const floats e = exponential(v_load(x + i) - v_all(most));
        sum += e;
        v_store(x + i, e);
    }
    float total = v_sum(sum);
    for (int32_t i = whole; i < n; i++) {
        x[i] = expf(x[i] - most);
        total += x[i];
    }
    for (int32_t i = 0; i < n; i++) {
        x[i] /= total;
    }
}

static void shares(const struct attend_head * h, float * to, int64_t cells, void * scratch) {
    struct rows * r = &((struct scratch *) scratch)->rows;
    struct tile * t = &((struct scratch *) scratch)->tile;
    const int32_t visible = h->visible[0];
    take(h, 0, 1, r);
    for (int32_t cell = 0; cell < visible; cell += CELLS) {
        const int32_t n = visible - cell < CELLS ? visible - cell : CELLS;
        unpack_keys(h, cell, visible, t);
        all_scores(r, t);
        for (int32_t row = 0; row < r->n; row++) {
            memcpy(to + row * cells + cell, r->weight[row], (size_t) n * sizeof *to);
        }
    }
    for (int32_t row = 0; row < r->n; row++) {
        share_out(to + row * cells, visible);
    }
}

#endif
