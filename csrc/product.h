/*
 * Products of a model's packed weights with rows of floats, for many rows at a time: what
 * computing few tokens in a prompt's middle mostly takes. The arithmetic is ggml's (rows
 * are packed to 8 bits as it packs them for the type of the weights, products of blocks
 * are whole numbers, their sums floats), but each weight is unpacked once for all rows,
 * not once for each.
 */
#ifndef SEMSHARE_PRODUCT_H
#define SEMSHARE_PRODUCT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PRODUCT_ROWS = 32, /* of weights, taken together: their number is a multiple of it */
    PRODUCT_BLOCK = 32, /* elements of a packed row that share a scale */
};

/* A matrix of weights: rows of width elements, as they lie in a model file. */
struct product_weights {
    uint32_t type; /* SEMSHARE_TYPE_... */
    const uint8_t * data;
    int64_t rows, width;
};

/* How ggml packs rows for a type of weights: in blocks with a scale, with a sum besides, or
 * with one scale for eight blocks. */
enum product_packing { PRODUCT_Q8_0, PRODUCT_Q8_1, PRODUCT_Q8_K };

/* What an instruction set offers. */
struct product {
    const char * name;
    size_t scratch; /* bytes, at a multiple of 64, that each thread needs to multiply */
    /* Whether it does, and for which packing. */
    bool (*takes)(uint32_t type, int64_t rows, int64_t width, enum product_packing * packing);
    /* Packs a row of width floats into product_row_size(width) bytes. */
    void (*pack)(enum product_packing packing, const float * x, int64_t width, uint8_t * row);
    /* out[i * w->rows + r] = row r of w times packed row i, for n rows, one after another,
     * and r from first on up to end, both multiples of PRODUCT_ROWS. */
    void (*multiply)(const struct product_weights * w, const uint8_t * rows, int64_t n, int64_t first, int64_t end, float * out, void * scratch);
};

extern const struct product product_avx512, product_avxvnni, product_avx2;

/* What there is on this machine, and for such weights; null where ggml's own is to be taken. */
const struct product * product_any(void);
const struct product * product_for(uint32_t type, int64_t rows, int64_t width, enum product_packing * packing);

/* Codes, then a scale and a sum for each block. */
static inline size_t product_row_size(int64_t width) { return (size_t) (width + width / PRODUCT_BLOCK * 8); }

#endif
