/*
 * Products of packed weights with packed rows, for any width of vectors: lanes_*.h says
 * what they are.
 */
#ifndef SEMSHARE_PRODUCT_LOOPS_H
#define SEMSHARE_PRODUCT_LOOPS_H

#include "product.h"

#include "internal.h"
#include "levels_avx2.h"

enum {
    BLOCK = PRODUCT_BLOCK,
    TILES = PRODUCT_ROWS / LANES, /* vectors of rows of weights, an element each */
    DEPTH = 16, /* blocks of a panel, which stays in the nearest cache */
    ROWS = 6,   /* packed ones that share what is read of a panel */
    SUPER = 8,  /* blocks of a superblock */
    HALVES = 2, /* of a block, where weights have a scale for 16 elements */
};

/* PRODUCT_ROWS rows of weights, DEPTH blocks of each, unpacked: in every vector a piece of
 * LANES rows, of elements four that follow one another. A weight is code * scale + least. */
struct panel {
    ints codes[DEPTH][BLOCK / 4][TILES];
    ints shift[DEPTH][HALVES][TILES]; /* - CODE_ZERO * sum of the codes: packed rows have it added */
    floats scale[DEPTH][HALVES][TILES];
    floats least[DEPTH][TILES];
};

/* Codes of x * inverse; returns their sum. What is no number becomes a code all the same. */
static float code_block(const float * x, float inverse, uint8_t * to) {
    int32_t sum = 0;
    for (int i = 0; i < BLOCK; i++) {
        float v = rintf(x[i] * inverse);
        v = v < 127 ? v : 127;
        v = v > -127 ? v : -127;
        const int32_t code = (int32_t) v;
        to[i] = (uint8_t) (code + CODE_ZERO);
        sum += code;
    }
    return (float) sum;
}

static inline float rounded(float x) { return f32_from_f16(f16_from_f32(x)); }

/* A block by itself (ggml: quantize_row_q8_0 and _q8_1): what it keeps besides the codes
 * are halves. */
static void pack_blocks(const float * x, int64_t blocks, uint8_t * codes, float * scales, float * sums) {
    for (int64_t b = 0; b < blocks; b++, x += BLOCK, codes += BLOCK) {
        const float most = float_from_bits(magnitude(x)), d = most / 127;
        sums[b] = rounded(d * code_block(x, most > 0 ? 127 / most : 0, codes));
        scales[b] = rounded(d);
    }
}

/* The first of the elements that are farthest from zero. */
static float farthest(const float * x) {
    uint32_t most = 0;
    for (int b = 0; b < SUPER; b++) {
        const uint32_t of_block = magnitude(x + b * BLOCK);
        most = of_block > most ? of_block : most;
    }
    for (int i = 0; i < SUPER * BLOCK; i++) {
        if ((float_bits(x[i]) & 0x7fffffff) == most) {
            return x[i];
        }
    }
    return 0;
}

/* Eight blocks with one scale (ggml: quantize_row_q8_K), which is negative where what is
 * farthest from zero is positive. */
static void pack_superblocks(const float * x, int64_t blocks, uint8_t * codes, float * scales, float * sums) {
    for (int64_t first = 0; first < blocks; first += SUPER) {
        const float most = farthest(x + first * BLOCK), inverse = most != 0 ? -127 / most : 0;
        for (int64_t b = first; b < first + SUPER; b++) {
            scales[b] = most != 0 ? 1 / inverse : 0;
            sums[b] = scales[b] * code_block(x + b * BLOCK, inverse, codes + b * BLOCK);
        }
    }
}

static void pack(enum product_packing packing, const float * x, int64_t width, uint8_t * row) {
    const int64_t blocks = width / BLOCK;
    float * scales = (float *) (row + width);
    (packing == PRODUCT_Q8_K ? pack_superblocks : pack_blocks)(x, blocks, row, scales, scales + blocks);
}

/* What a row of weights has in a block: 32 codes, and for its halves how to read them. */
struct piece {
    __m256i codes;
    float scale[HALVES], least;
};

static inline struct piece even(__m256i codes, float scale, float least) { return (struct piece) {codes, {scale, scale}, least}; }

/* Of a block of a type, the piece with that index: of types whose blocks are longer than
 * BLOCK there are SUPER. */
static inline struct piece piece_q4_0(const uint8_t * b, int i) {
    (void) i;
    return even(less(nibbles(b + 2), 8), half_at(b), 0);
}

static inline struct piece piece_q4_1(const uint8_t * b, int i) {
    (void) i;
    return even(nibbles(b + 4), half_at(b), half_at(b + 2));
}

static inline struct piece piece_q5_0(const uint8_t * b, int i) {
    (void) i;
    return even(less(fives(b + 2), 16), half_at(b), 0);
}

static inline struct piece piece_q5_1(const uint8_t * b, int i) {
    (void) i;
    return even(fives(b + 4), half_at(b), half_at(b + 2));
}

static inline struct piece piece_q8_0(const uint8_t * b, int i) {
    (void) i;
    return even(_mm256_loadu_si256((const __m256i *) (b + 2)), half_at(b), 0);
}

static inline __m256i nibbles_of_k(const uint8_t * q, int i) {
    const __m256i v = _mm256_loadu_si256((const __m256i *) (q + 32 * (i / 2)));
    return _mm256_and_si256(i % 2 == 0 ? v : _mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
}

static inline struct piece even_of_k(const uint8_t * b, int i, __m256i codes) {
    float scale, min;
    scale_min_k4(b + 4, i, &scale, &min);
    return even(codes, half_at(b) * scale, -half_at(b + 2) * min);
}

static inline struct piece piece_q4_k(const uint8_t * b, int i) { return even_of_k(b, i, nibbles_of_k(b + 16, i)); }

static inline struct piece piece_q5_k(const uint8_t * b, int i) {
    const __m256i bit = _mm256_set1_epi8((char) (1 << i)), set = _mm256_and_si256(_mm256_loadu_si256((const __m256i *) (b + 16)), bit);
    return even_of_k(b, i, _mm256_or_si256(nibbles_of_k(b + 48, i), _mm256_and_si256(_mm256_cmpeq_epi8(set, bit), _mm256_set1_epi8(16))));
}

static inline struct piece piece_q6_k(const uint8_t * b, int i) {
    const __m256i low = _mm256_loadu_si256((const __m256i *) (b + 64 * (i / 4) + 32 * (i % 2))), high = _mm256_loadu_si256((const __m256i *) (b + 128 + 32 * (i / 4)));
    const __m256i four = _mm256_and_si256(_mm256_srli_epi16(low, i % 4 < 2 ? 0 : 4), _mm256_set1_epi8(15));
    const __m256i two = _mm256_and_si256(_mm256_srli_epi16(high, 2 * (i % 4)), _mm256_set1_epi8(3));
    const float d = half_at(b + 208);
    const int8_t * scales = (const int8_t *) (b + 192) + 2 * i;
    return (struct piece) {less(_mm256_or_si256(four, _mm256_slli_epi16(two, 4)), 32), {d * (float) scales[0], d * (float) scales[1]}, 0};
}

static inline ints shift_of(const ints * codes, int n) {
    ints sum = i_all(0);
    for (int i = 0; CODE_ZERO != 0 && i < n; i++) {
        sum = i_dot4(sum, i_all((int32_t) (CODE_ZERO * 0x01010101u)), codes[i * TILES]);
    }
    return i_minus(sum);
}

/* Where the rows of the panel that comes after this one go on. */
static inline const uint8_t * next_panel(const struct product_weights * w, int64_t row, int64_t block, size_t row_bytes, size_t block_bytes) {
    const int64_t next = block + DEPTH;
    return next < w->width / BLOCK ? w->data + (size_t) row * row_bytes + (size_t) next * block_bytes : w->data + (size_t) (row + PRODUCT_ROWS) * row_bytes;
}

/* So many rows at once are more than the processor foresees: each step fetches what the
 * same step of the next panel wants, which makes few rows' products three times as fast. */
#define DEFINE_FILL(NAME, HALVED, ELEMS, BYTES)                                                                          \
    static void fill_##NAME(const struct product_weights * w, int64_t row, int64_t block, int64_t n, struct panel * p) { \
        const size_t row_bytes = (size_t) (w->width / ELEMS * BYTES), block_bytes = BYTES * BLOCK / ELEMS;               \
        const uint8_t * next = next_panel(w, row, block, row_bytes, block_bytes);                                        \
        for (int64_t b = 0; b < n; b++) {                                                                                \
            for (int t = 0; t < TILES; t++) {                                                                            \
                __m256i codes[LANES];                                                                                    \
                float scale[HALVES][LANES], least[LANES];                                                                \
                for (int i = 0; i < LANES; i++) {                                                                        \
                    const size_t of_row = (size_t) (t * LANES + i) * row_bytes;                                          \
                    __builtin_prefetch(next + of_row + (size_t) b * block_bytes);                                        \
                    const uint8_t * of_block = w->data + (size_t) row * row_bytes + of_row + (block + b) * BLOCK / ELEMS * BYTES; \
                    const struct piece piece = piece_##NAME(of_block, (int) ((block + b) % (ELEMS / BLOCK)));            \
                    codes[i] = piece.codes;                                                                              \
                    scale[0][i] = piece.scale[0];                                                                        \
                    scale[1][i] = piece.scale[1];                                                                        \
                    least[i] = piece.least;                                                                              \
                }                                                                                                        \
                i_turn(codes, &p->codes[b][0][t], TILES);                                                                \
                p->scale[b][0][t] = v_load(scale[0]);                                                                    \
                p->scale[b][1][t] = v_load(scale[1]);                                                                    \
                p->least[b][t] = v_load(least);                                                                          \
                p->shift[b][0][t] = shift_of(&p->codes[b][0][t], HALVED ? 4 : 8);                                        \
                p->shift[b][1][t] = HALVED ? shift_of(&p->codes[b][4][t], 4) : i_all(0);                                 \
            }                                                                                                            \
        }                                                                                                                \
    }

DEFINE_FILL(q4_0, false, 32, 18)
DEFINE_FILL(q4_1, false, 32, 20)
DEFINE_FILL(q5_0, false, 32, 22)
DEFINE_FILL(q5_1, false, 32, 24)
DEFINE_FILL(q8_0, false, 32, 34)
DEFINE_FILL(q4_k, false, 256, 144)
DEFINE_FILL(q5_k, false, 256, 176)
DEFINE_FILL(q6_k, true, 256, 210)

/* Packed rows from some block on. */
struct packed {
    const uint8_t * codes[ROWS];
    const float * scales[ROWS], * sums[ROWS];
};

/* What a block, or with halved each of its halves, adds to the totals of n packed rows and
 * COLUMNS vectors of rows of weights from t on; n and halved are constants. */
static inline __attribute__((always_inline)) void add_block(const struct panel * p, int64_t b, int t, const struct packed * rows, floats total[ROWS][COLUMNS], const int n, const bool halved) {
    const int steps = halved ? BLOCK / 8 : BLOCK / 4;
    for (int h = 0; h < (halved ? HALVES : 1); h++) {
        ints sum[ROWS][COLUMNS];
        for (int i = 0; i < n; i++) {
            for (int c = 0; c < COLUMNS; c++) {
                sum[i][c] = CODE_ZERO != 0 ? p->shift[b][h][t + c] : i_all(0);
            }
        }
        for (int s = h * steps; s < (h + 1) * steps; s++) {
            for (int i = 0; i < n; i++) {
                int32_t four;
                memcpy(&four, rows->codes[i] + b * BLOCK + s * 4, sizeof four);
                for (int c = 0; c < COLUMNS; c++) {
                    sum[i][c] = i_dot4(sum[i][c], i_all(four), p->codes[b][s][t + c]);
                }
            }
        }
        for (int i = 0; i < n; i++) {
            for (int c = 0; c < COLUMNS; c++) {
                total[i][c] = v_fma(i_floats(sum[i][c]) * v_all(rows->scales[i][b]), p->scale[b][h][t + c], total[i][c]);
            }
        }
    }
}

/* A panel times n packed rows, n a constant: added to out, or the first of it. */
static inline __attribute__((always_inline)) void multiply(const struct panel * p, int64_t blocks, const struct packed * rows, float * const * out, bool first, const int n, const bool halved, const bool has_least) {
    for (int t = 0; t < TILES; t += COLUMNS) {
        floats total[ROWS][COLUMNS];
        for (int i = 0; i < n; i++) {
            for (int c = 0; c < COLUMNS; c++) {
                total[i][c] = first ? v_all(0) : v_load(out[i] + (t + c) * LANES);
            }
        }
        for (int64_t b = 0; b < blocks; b++) {
            add_block(p, b, t, rows, total, n, halved);
            for (int i = 0; has_least && i < n; i++) {
                for (int c = 0; c < COLUMNS; c++) {
                    total[i][c] = v_fma(v_all(rows->sums[i][b]), p->least[b][t + c], total[i][c]);
                }
            }
        }
        for (int i = 0; i < n; i++) {
            for (int c = 0; c < COLUMNS; c++) {
                v_store(out[i] + (t + c) * LANES, total[i][c]);
            }
        }
    }
}

#define DEFINE_MULTIPLY(NAME, HALVED, HAS_LEAST)                                                                                             \
    static void multiply_##NAME(const struct panel * p, int64_t blocks, const struct packed * rows, float * const * out, bool first, int64_t n) { \
        switch (n) {                                                                                                                         \
        case 1: multiply(p, blocks, rows, out, first, 1, HALVED, HAS_LEAST); break;                                                          \
        case 2: multiply(p, blocks, rows, out, first, 2, HALVED, HAS_LEAST); break;                                                          \
        case 3: multiply(p, blocks, rows, out, first, 3, HALVED, HAS_LEAST); break;                                                          \
        case 4: multiply(p, blocks, rows, out, first, 4, HALVED, HAS_LEAST); break;                                                          \
        case 5: multiply(p, blocks, rows, out, first, 5, HALVED, HAS_LEAST); break;                                                          \
        default: multiply(p, blocks, rows, out, first, ROWS, HALVED, HAS_LEAST); break;                                                      \
        }                                                                                                                                    \
    }

DEFINE_MULTIPLY(even, false, false)
DEFINE_MULTIPLY(least, false, true)
DEFINE_MULTIPLY(halved, true, false)

/* What to do with a type of weights. */
struct kernel {
    uint32_t type;
    enum product_packing packing;
    void (*fill)(const struct product_weights * w, int64_t row, int64_t block, int64_t n, struct panel * p);
    void (*multiply)(const struct panel * p, int64_t blocks, const struct packed * rows, float * const * out, bool first, int64_t n);
};

static const struct kernel kernels[] = {
    {SEMSHARE_TYPE_Q4_0, PRODUCT_Q8_0, fill_q4_0, multiply_even},
    {SEMSHARE_TYPE_Q4_1, PRODUCT_Q8_1, fill_q4_1, multiply_least},
    {SEMSHARE_TYPE_Q5_0, PRODUCT_Q8_0, fill_q5_0, multiply_even},
    {SEMSHARE_TYPE_Q5_1, PRODUCT_Q8_1, fill_q5_1, multiply_least},
    {SEMSHARE_TYPE_Q8_0, PRODUCT_Q8_0, fill_q8_0, multiply_even},
    {SEMSHARE_TYPE_Q4_K, PRODUCT_Q8_K, fill_q4_k, multiply_least},
    {SEMSHARE_TYPE_Q5_K, PRODUCT_Q8_K, fill_q5_k, multiply_least},
    {SEMSHARE_TYPE_Q6_K, PRODUCT_Q8_K, fill_q6_k, multiply_halved},
};

static const struct kernel * kernel_of(uint32_t type) {
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        if (kernels[i].type == type) {
            return &kernels[i];
        }
    }
    return NULL;
}

static bool takes(uint32_t type, int64_t rows, int64_t width, enum product_packing * packing) {
    const struct kernel * k = kernel_of(type);
    int32_t bytes;
    if (k == NULL || rows % PRODUCT_ROWS != 0 || width % type_block(type, &bytes) != 0) {
        return false;
    }
    *packing = k->packing;
    return true;
}

/* Rows of weights from row on, PRODUCT_ROWS of them, blocks from block on: with all packed rows. */
static void panel_times_rows(const struct kernel * k, const struct panel * p, const struct product_weights * w, const uint8_t * rows, int64_t n, int64_t row, int64_t block, int64_t blocks, float * out) {
    const size_t size = product_row_size(w->width);
    for (int64_t i = 0; i < n; i += ROWS) {
        struct packed some;
        float * to[ROWS];
        const int64_t together = n - i < ROWS ? n - i : ROWS;
        for (int64_t j = 0; j < together; j++) {
            const uint8_t * packed = rows + (size_t) (i + j) * size;
            some.codes[j] = packed + block * BLOCK;
            some.scales[j] = (const float *) (packed + w->width) + block;
            some.sums[j] = some.scales[j] + w->width / BLOCK;
            to[j] = out + (i + j) * w->rows + row;
        }
        k->multiply(p, blocks, &some, to, block == 0, together);
    }
}

static void multiply_all(const struct product_weights * w, const uint8_t * rows, int64_t n, int64_t first, int64_t end, float * out, void * scratch) {
    const struct kernel * k = kernel_of(w->type);
    const int64_t all = w->width / BLOCK;
    struct panel * p = scratch;
    for (int64_t row = first; row < end; row += PRODUCT_ROWS) {
        for (int64_t block = 0; block < all; block += DEPTH) {
            const int64_t blocks = all - block < DEPTH ? all - block : DEPTH;
            k->fill(w, row, block, blocks, p);
            panel_times_rows(k, p, w, rows, n, row, block, blocks, out);
        }
    }
}

#endif
