/*
 * semshare: kernels that compose KV caches and sign embeddings.
 *
 * Every function checks its arguments, returns SEMSHARE_OK or a negative code, and
 * never aborts, prints, or keeps a pointer after it returns. All memory belongs to
 * the caller. Functions may be called from several threads at once.
 *
 * Results do not depend on the instruction set nor on the number of threads: every
 * variant rounds as the scalar code does.
 */
#ifndef SEMSHARE_H
#define SEMSHARE_H

#include <stdint.h>

#if defined(__GNUC__)
#define SEMSHARE_API __attribute__((visibility("default")))
#else
#define SEMSHARE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised with every change that an old caller would not survive. */
#define SEMSHARE_VERSION 2

enum semshare_status {
    SEMSHARE_OK            = 0,
    SEMSHARE_ERR_ARGUMENT  = -1, /* a null pointer, or a number out of its range */
    SEMSHARE_ERR_TYPE      = -2, /* a tensor type that the function does not know */
    SEMSHARE_ERR_SIZE      = -3, /* sizes that do not fit one another */
    SEMSHARE_ERR_RANGE     = -4, /* a run leaves the target or its reference */
    SEMSHARE_ERR_ROPE      = -5, /* keys must move, and there is no valid RoPE */
    SEMSHARE_ERR_MEMORY    = -6, /* out of memory */
    SEMSHARE_ERR_DEVICE    = -7, /* no usable device, or a call to it failed */
};

/* Tensor types as ggml numbers them. */
enum semshare_type {
    SEMSHARE_TYPE_F32    = 0,
    SEMSHARE_TYPE_F16    = 1,
    SEMSHARE_TYPE_Q4_0   = 2,
    SEMSHARE_TYPE_Q4_1   = 3,
    SEMSHARE_TYPE_Q5_0   = 6,
    SEMSHARE_TYPE_Q5_1   = 7,
    SEMSHARE_TYPE_Q8_0   = 8,
    SEMSHARE_TYPE_Q2_K   = 10,
    SEMSHARE_TYPE_Q3_K   = 11,
    SEMSHARE_TYPE_Q4_K   = 12,
    SEMSHARE_TYPE_Q5_K   = 13,
    SEMSHARE_TYPE_Q6_K   = 14,
    SEMSHARE_TYPE_IQ4_NL = 20,
    SEMSHARE_TYPE_IQ4_XS = 23,
    SEMSHARE_TYPE_BF16   = 30,
};

/* len consecutive rows of a reference, src onward, that become the target's rows
 * dst onward, their keys turned by delta positions. */
struct semshare_run {
    int32_t ref;
    int32_t src;
    int32_t dst;
    int32_t len;
    int32_t delta;
};

/* How keys turn: pair i of a head by delta * freqs[i] radians. Pairs are (2i, 2i+1),
 * or with neox (i, i + dims/2). freqs holds dims/2 values. */
struct semshare_rope {
    int32_t neox;
    int32_t head_dim; /* elements of a head */
    int32_t dims;     /* of which this many turn, an even number */
    int32_t reserved;
    const float * freqs;
};

/* One reference's keys and values of one layer. Sizes are bytes. They lie as the job's
 * do, unless retyped is not 0: then keys have k_type and values v_type, in rows of as
 * many elements as the job's, or values in columns where v_trans is not 0. */
struct semshare_source {
    const uint8_t * k;
    const uint8_t * v;
    int64_t k_size;
    int64_t v_size;
    int64_t cells; /* cells of a column of transposed values */
    int32_t retyped;
    uint32_t k_type;
    uint32_t v_type;
    int32_t v_trans;
};

/* One layer. Rows of k_row and v_row bytes, one a cell; 0 leaves that half out. With
 * v_trans, values are v_width columns of dst_cells (in a source: cells) elements of
 * v_elem bytes, and v_row is 0. v_type matters only where a source is retyped. */
struct semshare_job {
    uint8_t * k;
    uint8_t * v;
    int64_t k_size;
    int64_t v_size;
    int64_t k_row;
    int64_t v_row;
    int64_t v_elem;
    int64_t v_width;
    int64_t dst_cells;
    const struct semshare_source * sources;
    int32_t n_sources;
    int32_t k_rot;  /* side of the Hadamard blocks the keys were turned by; 0 none */
    uint32_t k_type;
    int32_t v_trans;
    uint32_t v_type;
    int32_t reserved;
};

/* SEMSHARE_VERSION of the library. */
SEMSHARE_API int32_t semshare_version(void);

/* The instruction set in use: "avx512", "avx2", "neon" or "scalar". Static memory. */
SEMSHARE_API const char * semshare_cpu(void);

/* Limits what later calls use to the named instruction set, for tests and
 * benchmarks. SEMSHARE_ERR_ARGUMENT where the processor lacks it. */
SEMSHARE_API int32_t semshare_use_cpu(const char * name);

/* What a status means, in English. Static memory. */
SEMSHARE_API const char * semshare_error(int32_t status);

/* Gathers the rows of all runs into all layers, keys turned, rows of retyped sources
 * unpacked and packed anew, with up to n_threads threads. Rows that no run names keep what they hold. Targets must not overlap
 * sources, nor two runs fill one row. rope may be null where every delta is 0.
 * Except on SEMSHARE_ERR_MEMORY nothing was written where it fails. */
SEMSHARE_API int32_t semshare_compose(const struct semshare_job * jobs, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs, const struct semshare_rope * rope, int32_t n_threads);

/* Unpacks n values of any semshare_type from src_size bytes. */
SEMSHARE_API int32_t semshare_dequantize(uint32_t type, const uint8_t * src, int64_t src_size, float * dst, int64_t n);

/* Packs n values as a row of a cache type (all but the K-quants and IQ4_XS). */
SEMSHARE_API int32_t semshare_quantize(uint32_t type, const float * src, int64_t n, uint8_t * dst, int64_t dst_size);

/* Sign bits of the products of n_rows rows and bits planes, dim values each: bit b of
 * row r is bit b%64 of out[r*bits/64 + b/64]. bits is a multiple of 64. Where pos is
 * not null, pair (2i, 2i+1) of row r is first turned by pos[r] * freqs[i] radians. */
SEMSHARE_API int32_t semshare_signatures(const float * rows, int64_t n_rows, int32_t dim, const int32_t * pos, const float * freqs, const float * planes, int32_t bits, uint64_t * out, int32_t n_threads);

/* The same on a CUDA device (libsemshare_cuda.so), host memory in and out. They
 * return SEMSHARE_ERR_DEVICE where there is no device. */
SEMSHARE_API int32_t semshare_cuda_version(void);
SEMSHARE_API int32_t semshare_cuda_devices(void);
SEMSHARE_API int32_t semshare_cuda_compose(const struct semshare_job * jobs, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs, const struct semshare_rope * rope, int32_t device);
/* semshare_compose where all keys and values, of jobs and sources, lie in the device's
 * memory: k and v are addresses there, aligned to an element. */
SEMSHARE_API int32_t semshare_cuda_compose_resident(const struct semshare_job * jobs, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs, const struct semshare_rope * rope, int32_t device);
SEMSHARE_API int32_t semshare_cuda_signatures(const float * rows, int64_t n_rows, int32_t dim, const int32_t * pos, const float * freqs, const float * planes, int32_t bits, uint64_t * out, int32_t device);

/* Rows of width elements of a cache type in a device's memory, one a cell; at is where
 * cell 0 lies, aligned to an element. What is named beside it lies in the host's memory. */
struct semshare_rows {
    uint8_t * at;
    uint32_t type;
    int32_t width;
};

/* Packs row i of x, n rows of width values, as cell cells[i]; unpacks it. Every call waits
 * until the device has done it. */
SEMSHARE_API int32_t semshare_cuda_put_rows(const struct semshare_rows * rows, const int32_t * cells, int32_t n, const float * x, int32_t device);
SEMSHARE_API int32_t semshare_cuda_get_rows(const struct semshare_rows * rows, const int32_t * cells, int32_t n, float * x, int32_t device);

/* Adds vector which[i] of n_vectors to cell cells[i]; where pos is not null, its heads
 * first turn by pos[i] positions. */
SEMSHARE_API int32_t semshare_cuda_add_rows(const struct semshare_rows * rows, const int32_t * cells, const int32_t * which, const int32_t * pos, int32_t n, const float * vectors, int32_t n_vectors, const struct semshare_rope * rope, int32_t device);

/* The device in whose memory an address lies; below 0 where it is none. */
SEMSHARE_API int32_t semshare_cuda_device_of(const void * at);

/* Whether the library's kernels run on a device: SEMSHARE_ERR_DEVICE, and *why the CUDA
 * runtime's words for it, where they were not compiled for such a one, or the driver is too
 * old. Static memory. */
SEMSHARE_API int32_t semshare_cuda_usable(const char ** why, int32_t device);

/* Bytes of the device's memory that nobody has. */
SEMSHARE_API int32_t semshare_cuda_memory(int64_t * unused, int32_t device);

/* Memory of the device, freed with semshare_cuda_free; copies into it, out of it, and from
 * one place in it to another. */
SEMSHARE_API int32_t semshare_cuda_alloc(void ** at, int64_t size, int32_t device);
SEMSHARE_API int32_t semshare_cuda_free(void * at, int32_t device);
SEMSHARE_API int32_t semshare_cuda_upload(void * to, const void * from, int64_t size, int32_t device);
SEMSHARE_API int32_t semshare_cuda_download(void * to, const void * from, int64_t size, int32_t device);
SEMSHARE_API int32_t semshare_cuda_copy(void * to, const void * from, int64_t size, int32_t device);

#ifdef __cplusplus
}
#endif

#endif
