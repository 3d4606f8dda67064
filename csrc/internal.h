/* What the files of libsemshare share; no part of the interface. */
#ifndef SEMSHARE_INTERNAL_H
#define SEMSHARE_INTERNAL_H

#include "semshare.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    /* Partial sums of a product of two vectors: as many as the widest vector unit has
     * lanes, so that every machine adds up in one order. */
    SEMSHARE_LANES = 16,
    SEMSHARE_MAX_THREADS = 64,
};

/* Cosines and sines of one delta. */
struct turn {
    const float * cos; /* dims/2 */
    const float * sin; /* dims/2 */
    const float * cos2; /* dims, each twice */
    const float * sin2; /* dims, -sin then sin of each pair */
};

/* A row of keys, as the kernels see it. */
struct shape {
    int32_t heads;
    int32_t head_dim;
    int32_t dims;
};

/* Copies one row from src to dst with its heads turned. */
typedef void (*rotate_fn)(uint8_t * dst, const uint8_t * src, const struct shape * shape, const struct turn * turn);

/* Sets bit b of out where plane b times row is more than 0, for b in 0..63. */
typedef void (*project_fn)(const float * row, const float * planes, int32_t dim, uint64_t * out);

/* Turns a row of embeddings; base and small hold cosines then sines of dim/2 pairs. */
typedef void (*place_fn)(float * dst, const float * src, int32_t dim, const double * base, const double * small);

/* hadamard() for n from 2 up. */
typedef void (*hadamard_fn)(float * x, int32_t elems, int32_t n);

/* Unpacks blocks of any type; packs blocks of a cache type. */
typedef void (*unpack_fn)(uint32_t type, const uint8_t * src, float * dst, int64_t blocks);
typedef void (*pack_fn)(uint32_t type, const float * src, uint8_t * dst, int64_t blocks);

/* What one instruction set offers. The vector files include variants.h for what the
 * compiler vectorises by itself, and write the rest by hand. */
struct variant {
    const char * name;
    bool (*usable)(void);
    rotate_fn rotate_f32[2]; /* NORM, NEOX */
    rotate_fn rotate_f16[2];
    rotate_fn rotate_bf16[2];
    project_fn project;
    place_fn place;
    hadamard_fn hadamard;
    unpack_fn unpack;
    pack_fn pack;
};

extern const struct variant variant_scalar;
extern const struct variant variant_avx2;
extern const struct variant variant_avx512;
extern const struct variant variant_neon;

const struct variant * variant_current(void);

/* How the keys or the values of a layer lie: rows of row bytes or, where trans, columns
 * of cells elements. */
struct side {
    uint32_t type;
    int32_t elems, bytes; /* of a block */
    int32_t width;        /* elements of a cell */
    bool trans;
    int64_t row;
    int64_t cells;
};

/* Whether a job has keys and values: it may have either alone. */
static inline bool has_keys(const struct semshare_job * j) { return j->k_row > 0; }
static inline bool has_values(const struct semshare_job * j) { return j->v_trans ? j->v_width > 0 : j->v_row > 0; }

/* compose_check.c: the sides of a job that compose_check took, and of a retyped source of it. */
struct side target_side(const struct semshare_job * j, bool values);
struct side source_side(const struct semshare_job * j, const struct semshare_source * s, bool values);

/* compose_check.c: what semshare_compose refuses, for the CUDA code too. */
int32_t compose_check(const struct semshare_job * jobs, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs, const struct semshare_rope * rope);

/* compose.c: multiplies blocks of n of the elems elements by the orthonormal
 * Walsh-Hadamard matrix, which is its own inverse (llama.cpp: ggml_gen_hadamard). */
void hadamard(float * x, int32_t elems, int32_t n);

/* quants.c: elements and bytes of a block; 0 for an unknown type. */
int32_t type_block(uint32_t type, int32_t * bytes);
bool type_is_cache(uint32_t type);

/* threads.c: calls work(arg, i) for i in 0..n-1, from up to n_threads threads. */
void parallel_for(int64_t n, int32_t n_threads, void (*work)(void * arg, int64_t i), void * arg);

#endif
