/*
 * Attention of some tokens of a prompt over the cells of a cache, a tile of cells at a
 * time (FlashAttention, arXiv 2205.14135): a tile is read and unpacked once for all rows,
 * and each row takes of it what its token sees, without a mask.
 */
#ifndef SEMSHARE_ATTEND_H
#define SEMSHARE_ATTEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ATTEND_MOST_DIM = 128, ATTEND_MOST_SHARING = 64 };

/* One head of keys and values, halves, and the heads of queries that share it. */
struct attend_head {
    const uint8_t * k, * v; /* of the first cell */
    size_t cell_k, cell_v;  /* bytes from a cell to the next */
    int32_t dim;
    int32_t sharing;        /* heads of queries */
    const float * q;        /* of the first token's first head; heads lie dim apart */
    size_t token_q;         /* floats from a token to the next */
    float * out;            /* likewise */
    size_t token_out;
    float scale;
    const int32_t * visible; /* of each token, how many of the cells it sees, 1 and more; ascending */
};

/* What an instruction set offers. */
struct attend {
    const char * name;
    size_t scratch; /* bytes, at a multiple of 64, that each thread needs */
    /* For n tokens from first on. */
    void (*head)(const struct attend_head * h, int32_t first, int32_t n, void * scratch);
    /* How the first token shares out its attention: for each head of queries a row, cells
     * apart, of visible[0] numbers that add up to 1. v and out are not used. */
    void (*shares)(const struct attend_head * h, float * to, int64_t cells, void * scratch);
};

extern const struct attend attend_avx512, attend_avx2;

/* What does it on this machine, and for such heads; null where ggml's own is to be taken. */
const struct attend * attend_any(void);
const struct attend * attend_for(int32_t dim, int32_t sharing);

#endif
