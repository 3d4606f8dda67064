#include "shift.h"

#include "internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_SAMPLES = 3 };

static size_t width(const struct shift * s) { return (size_t) s->rows->width; }

static void set_turns(struct shift * s) {
    const uint32_t pairs = s->recipe->head.dims / 2;
    for (uint32_t c = 0; c < s->recipe->head.n_cells; c++) {
        float * to = s->turns + (size_t) c * s->recipe->head.dims;
        for (uint32_t i = 0; s->recipe->passage[c] != 0 && i < pairs; i++, to += 2) {
            const double angle = (double) s->recipe->pos[c] * (double) s->recipe->freqs[i];
            to[0] = (float) cos(angle);
            to[1] = (float) sin(angle);
        }
    }
}

bool shift_init(struct shift * s, const struct recipe * recipe, struct rows * rows, struct error * err) {
    memset(s, 0, sizeof *s);
    s->recipe = recipe;
    s->rows = rows;
    for (uint32_t c = 0; c < recipe->head.n_cells; c++) {
        s->n_passages = recipe->passage[c] > s->n_passages ? recipe->passage[c] : s->n_passages;
    }
    if (s->n_passages == 0) {
        return true;
    }
    const size_t n = s->n_passages + 1;
    s->turns = malloc((size_t) recipe->head.n_cells * recipe->head.dims * sizeof *s->turns);
    s->sums = malloc(n * 2 * width(s) * sizeof *s->sums);
    s->squares = malloc(n * 2 * sizeof *s->squares);
    s->counts = malloc(n * sizeof *s->counts);
    s->row = malloc(2 * width(s) * sizeof *s->row);
    s->cells = malloc(recipe->head.n_cells * sizeof *s->cells);
    s->pos = malloc(recipe->head.n_cells * sizeof *s->pos);
    s->vectors = malloc(recipe->head.n_cells * sizeof *s->vectors);
    s->rope = (struct semshare_rope) {(recipe->head.flags & RECIPE_NEOX) != 0, (int32_t) recipe->head.head_dim, (int32_t) recipe->head.dims, 0, recipe->freqs};
    if (s->cells == NULL || s->pos == NULL || s->vectors == NULL || s->turns == NULL || s->sums == NULL || s->squares == NULL || s->counts == NULL || s->row == NULL) {
        return fail(err, "out of memory");
    }
    set_turns(s);
    return true;
}

void shift_free(struct shift * s) {
    free(s->turns);
    free(s->sums);
    free(s->squares);
    free(s->counts);
    free(s->row);
    free(s->cells);
    free(s->pos);
    free(s->vectors);
    free(s->old);
    memset(s, 0, sizeof *s);
}

void shift_begin(struct shift * s, int32_t layer) {
    s->layer = layer;
    if (s->n_passages == 0) {
        return;
    }
    const size_t n = s->n_passages + 1;
    memset(s->sums, 0, n * 2 * width(s) * sizeof *s->sums);
    memset(s->squares, 0, n * 2 * sizeof *s->squares);
    memset(s->counts, 0, n * sizeof *s->counts);
}

/* Turns a row of keys from position 0 to the cell's, or, with back, from there to 0. */
static void turn(const struct shift * s, int32_t cell, float * k, bool back) {
    const struct recipe_head * h = &s->recipe->head;
    const uint32_t pairs = h->dims / 2;
    const bool neox = (h->flags & RECIPE_NEOX) != 0;
    const uint32_t step = neox ? 1 : 2, other = neox ? pairs : 1;
    const float * turns = s->turns + (size_t) cell * h->dims;
    for (float * head = k; head < k + width(s); head += h->head_dim) {
        for (uint32_t i = 0; i < pairs; i++) {
            float * a = head + i * step, * b = a + other;
            const float c = turns[2 * i], d = back ? -turns[2 * i + 1] : turns[2 * i + 1], x = *a, y = *b;
            *a = x * c - y * d;
            *b = x * d + y * c;
        }
    }
}

static void subtract_from(const float * x, float * y, size_t n) {
    for (size_t i = 0; i < n; i++) {
        y[i] = x[i] - y[i];
    }
}

static double add_to(float * sum, const float * x, size_t n) {
    double square = 0;
    for (size_t i = 0; i < n; i++) {
        sum[i] += x[i];
        square += (double) x[i] * (double) x[i];
    }
    return square;
}

/* Adds what new keys and values of a cell, a sample, are off from dk and dv, the old ones. */
static void observe(struct shift * s, int32_t cell, const float * k, const float * v, float * dk, float * dv) {
    const uint32_t p = s->recipe->passage[cell];
    float * sums = s->sums + 2 * width(s) * p;
    subtract_from(k, dk, width(s));
    subtract_from(v, dv, width(s));
    turn(s, cell, dk, true);
    s->squares[2 * p] += add_to(sums, dk, width(s));
    s->squares[2 * p + 1] += add_to(sums + width(s), dv, width(s));
    s->counts[p]++;
}

bool shift_pick(struct shift * s, const int32_t * cells, int32_t n, int32_t * picked, int32_t * n_picked, struct error * err) {
    s->n_picked = 0;
    for (int32_t i = 0; s->n_passages > 0 && i < n; i++) {
        if (s->recipe->passage[cells[i]] != 0 && recipe_is_sample(s->recipe, (uint32_t) cells[i])) {
            picked[s->n_picked] = i;
            s->cells[s->n_picked++] = cells[i];
        }
    }
    *n_picked = s->n_picked;
    if (s->n_picked == 0) {
        return true;
    }
    const size_t all = (size_t) s->n_picked * width(s);
    free(s->old);
    s->old = malloc(2 * all * sizeof *s->old);
    return (s->old != NULL || fail(err, "out of memory")) && rows_get(s->rows, s->layer, s->cells, s->n_picked, s->old, s->old + all, err);
}

void shift_observe(struct shift * s, const float * k, const float * v) {
    if (s->n_picked == 0) {
        return;
    }
    float * values = s->old + (size_t) s->n_picked * width(s);
    for (size_t i = 0; i < (size_t) s->n_picked; i++) {
        const size_t at = i * width(s);
        observe(s, s->cells[i], k + at, v + at, s->old + at, values + at);
    }
}

/* Makes a sum of n rows their mean, shrunk by what of it is chance: by the variance of
 * the mean over its square (James and Stein, 1961). */
static void settle(float * sum, size_t n_row, double squares, uint32_t n) {
    double square = 0;
    for (size_t i = 0; i < n_row; i++) {
        sum[i] /= (float) n;
        square += (double) sum[i] * (double) sum[i];
    }
    const double chance = (squares - n * square) / (n - 1.0) / n;
    const float keep = square > chance ? (float) (1 - (chance > 0 ? chance : 0) / square) : 0;
    for (size_t i = 0; i < n_row; i++) {
        sum[i] *= keep;
    }
}

static void turn_there(const void * of, int32_t cell, float * k) { turn(of, cell, k, false); }

bool shift_apply(struct shift * s, const uint8_t * computed, struct error * err) {
    if (s->n_passages == 0) {
        return true;
    }
    for (uint32_t p = 1; p <= s->n_passages; p++) {
        float * sums = s->sums + 2 * width(s) * p;
        if (s->counts[p] >= LEAST_SAMPLES) {
            settle(sums, width(s), s->squares[2 * p], s->counts[p]);
            settle(sums + width(s), width(s), s->squares[2 * p + 1], s->counts[p]);
            hadamard(sums + width(s), s->rows->width, (int32_t) s->rows->state->layout.rot_v);
        }
    }
    int32_t n = 0;
    for (uint32_t c = 0; c < s->recipe->head.n_cells; c++) {
        const uint32_t p = s->recipe->passage[c];
        if (p != 0 && s->counts[p] >= LEAST_SAMPLES && !computed[c]) {
            s->cells[n] = (int32_t) c;
            s->pos[n] = s->recipe->pos[c];
            s->vectors[n++] = (int32_t) p;
        }
    }
    const struct added a = {s->cells, s->pos, s->vectors, n, (int32_t) s->n_passages + 1, s->sums, &s->rope, turn_there, s};
    return n == 0 || rows_add(s->rows, s->layer, &a, err);
}
