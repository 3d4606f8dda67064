/* Attention by AVX-512, in floats. */
#if defined(__AVX512F__) && defined(__AVX512DQ__)
#include "attend.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

enum {
    LANES = 16,
    CELLS = 64,   /* of a tile */
    WIDE = CELLS / LANES,
    TOGETHER = 6, /* rows that share what is read of a tile */
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

static inline __m512 halves(const uint8_t * p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p)); }

/* The first n of 16. */
static inline __mmask16 first_lanes(int32_t n) { return (__mmask16) (n >= LANES ? 0xffffu : n <= 0 ? 0 : (1u << n) - 1); }

/* Turns 16 rows of 16 into columns. */
static inline void transpose(__m512 * r) {
    __m512 t[LANES];
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4) {
        r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
        r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
    }
    for (int i = 0; i < 4; i++) { /* quarter q of r[4 j + i] is column 4 q + i of rows 4 j to 4 j + 3 */
        t[i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0xdd);
        r[4 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

/* Keys of cells from first on; those from end on are zero. */
static void unpack_keys(const struct attend_head * h, int32_t first, int32_t end, struct tile * to) {
    for (int32_t c = 0; c < CELLS; c += LANES) {
        for (int32_t d = 0; d < h->dim; d += LANES) {
            __m512 keys[LANES];
            for (int32_t i = 0; i < LANES; i++) {
                const int32_t cell = first + c + i;
                keys[i] = cell < end ? halves(h->k + (size_t) cell * h->cell_k + (size_t) d * sizeof(uint16_t)) : _mm512_setzero_ps();
            }
            transpose(keys);
            for (int32_t i = 0; i < LANES; i++) {
                _mm512_storeu_ps(&to->k[d + i][c], keys[i]);
            }
        }
    }
}

/* Values likewise. */
static void unpack_values(const struct attend_head * h, int32_t first, int32_t end, struct tile * to) {
    for (int32_t c = 0; c < CELLS; c++) {
        for (int32_t d = 0; d < h->dim; d += LANES) {
            _mm512_storeu_ps(&to->v[c][d], first + c < end ? halves(h->v + (size_t) (first + c) * h->cell_v + (size_t) d * sizeof(uint16_t)) : _mm512_setzero_ps());
        }
    }
}

/* e to the x, for x up to 0: 2^n times a polynomial (Cephes' expf). */
static inline __m512 exponential(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-87));
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1)));
    return _mm512_scalef_ps(p, n);
}

/* How the rows' queries like the tile's keys; n is a constant. */
static inline __attribute__((always_inline)) void scores(struct rows * r, const struct tile * t, int32_t row, const int n) {
    __m512 s[TOGETHER][WIDE];
    for (int i = 0; i < n; i++) {
        for (int w = 0; w < WIDE; w++) {
            s[i][w] = _mm512_setzero_ps();
        }
    }
    for (int32_t d = 0; d < r->dim; d++) {
        for (int i = 0; i < n; i++) {
            const __m512 q = _mm512_set1_ps(r->q[row + i][d]);
            for (int w = 0; w < WIDE; w++) {
                s[i][w] = _mm512_fmadd_ps(q, _mm512_loadu_ps(&t->k[d][w * LANES]), s[i][w]);
            }
        }
    }
    for (int i = 0; i < n; i++) {
        for (int w = 0; w < WIDE; w++) {
            _mm512_storeu_ps(&r->weight[row + i][w * LANES], s[i][w]);
        }
    }
}

/* Scores become weights, e to the difference from the largest so far; what came before is
 * brought to the same measure. seen is how many of the tile's cells the row sees. */
static void weigh(struct rows * r, int32_t row, int32_t seen) {
    __m512 s[WIDE];
    float most = r->most[row];
    for (int w = 0; w < WIDE; w++) {
        s[w] = _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), first_lanes(seen - w * LANES), &r->weight[row][w * LANES]);
        most = fmaxf(most, _mm512_reduce_max_ps(s[w]));
    }
    __m512 total = _mm512_setzero_ps();
    for (int w = 0; w < WIDE; w++) {
        const __mmask16 sees = _mm512_cmp_ps_mask(s[w], _mm512_set1_ps(-INFINITY), _CMP_NEQ_UQ);
        s[w] = _mm512_maskz_mov_ps(sees, exponential(_mm512_sub_ps(s[w], _mm512_set1_ps(most))));
        total = _mm512_add_ps(total, s[w]);
        _mm512_storeu_ps(&r->weight[row][w * LANES], s[w]);
    }
    if (most > r->most[row]) {
        const float less = expf(r->most[row] - most); /* 0 at first */
        r->total[row] *= less;
        for (int32_t d = 0; d < r->dim; d += LANES) {
            _mm512_storeu_ps(&r->sum[row][d], _mm512_mul_ps(_mm512_loadu_ps(&r->sum[row][d]), _mm512_set1_ps(less)));
        }
        r->most[row] = most;
    }
    r->total[row] += _mm512_reduce_add_ps(total);
}

/* Adds the tile's values by their weights; four vectors of each row at a time. */
static inline __attribute__((always_inline)) void add_values(struct rows * r, const struct tile * t, int32_t row, int32_t cells, int32_t from, const int n, const int wide) {
    __m512 sum[TOGETHER][WIDE];
    for (int i = 0; i < n; i++) {
        for (int w = 0; w < wide; w++) {
            sum[i][w] = _mm512_loadu_ps(&r->sum[row + i][from + w * LANES]);
        }
    }
    for (int32_t c = 0; c < cells; c++) {
        for (int i = 0; i < n; i++) {
            const __m512 weight = _mm512_set1_ps(r->weight[row + i][c]);
            for (int w = 0; w < wide; w++) {
                sum[i][w] = _mm512_fmadd_ps(weight, _mm512_loadu_ps(&t->v[c][from + w * LANES]), sum[i][w]);
            }
        }
    }
    for (int i = 0; i < n; i++) {
        for (int w = 0; w < wide; w++) {
            _mm512_storeu_ps(&r->sum[row + i][from + w * LANES], sum[i][w]);
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
    for (; d + WIDE * LANES <= r->dim; d += WIDE * LANES) {
        add_values(r, t, row, cells, d, n, WIDE);
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
    for (; row + TOGETHER <= r->n; row += TOGETHER) {
        rows_times_tile(r, t, row, first, TOGETHER);
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
    for (; row + TOGETHER <= r->n; row += TOGETHER) {
        scores(r, t, row, TOGETHER);
    }
    for (; row < r->n; row++) {
        scores(r, t, row, 1);
    }
}

/* Scores become shares. */
static void share_out(float * x, int32_t n) {
    float most = -INFINITY, total = 0;
    for (int32_t i = 0; i < n; i++) {
        most = x[i] > most ? x[i] : most;
    }
    for (int32_t i = 0; i < n; i += LANES) {
        const __mmask16 mask = first_lanes(n - i);
        const __m512 e = exponential(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_set1_ps(most)));
        _mm512_mask_storeu_ps(x + i, mask, e);
        total += _mm512_mask_reduce_add_ps(mask, e);
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

const struct attend attend_avx512 = {"AVX-512", sizeof(struct scratch), head, shares};
#else
typedef int empty_file; /* ISO C wants something here */
#endif
