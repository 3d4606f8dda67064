/*
 * semshare_compose on a CUDA device: the same plan, one block of threads a row. It is
 * compiled without fused multiply-adds, and so writes the bytes that the CPU writes.
 */
#include "blocks.h"
#include "device.cuh"
#include "packed.cuh"

#include <math.h>
#include <vector>

/* As internal.h has them; `side` keeps C's layout. */
struct side {
    uint32_t type;
    int32_t elems, bytes, width;
    bool trans;
    int64_t row, cells;
};
extern "C" int32_t compose_check(const struct semshare_job *, int32_t, const struct semshare_run *, int32_t, const struct semshare_rope *);
extern "C" struct side target_side(const struct semshare_job *, bool);
extern "C" struct side source_side(const struct semshare_job *, const struct semshare_source *, bool);

enum { THREADS = 128 };

/* Where a row of the target comes from; turn is an index into the tables, or -1. */
struct row_source {
    int32_t ref, src, dst, turn;
};

/* What the kernels need to know of one layer's keys. */
struct key_shape {
    int64_t row; /* bytes */
    int32_t elems, head_dim, dims, neox, rot;
};

/* ---- types ---- */

struct codec_f32 {
    typedef float T;
    static __device__ float load(float x) { return x; }
    static __device__ float store(float x) { return x; }
};
struct codec_f16 {
    typedef uint16_t T;
    static __device__ float load(uint16_t x) { return f32_from_f16(x); }
    static __device__ uint16_t store(float x) { return f16_from_f32(x); }
};
struct codec_bf16 {
    typedef uint16_t T;
    static __device__ float load(uint16_t x) { return f32_from_bf16(x); }
    static __device__ uint16_t store(float x) { return bf16_from_f32(x); }
};

#define DEFINE_PACKED(NAME, ELEMS, BYTES)                                                            \
    struct packed_##NAME {                                                                           \
        enum { elems = ELEMS, bytes = BYTES };                                                       \
        static __device__ void unpack(const uint8_t * b, float * y) { unpack_##NAME(b, y); }         \
        static __device__ void pack(const float * x, uint8_t * b) { pack_##NAME(x, b); }             \
    };

DEFINE_PACKED(f32, 1, 4)
DEFINE_PACKED(f16, 1, 2)
DEFINE_PACKED(bf16, 1, 2)
DEFINE_PACKED(q4_0, 32, 18)
DEFINE_PACKED(q4_1, 32, 20)
DEFINE_PACKED(q5_0, 32, 22)
DEFINE_PACKED(q5_1, 32, 24)
DEFINE_PACKED(q8_0, 32, 34)
DEFINE_PACKED(iq4_nl, 32, 18)

/* ---- kernels ---- */

template <class W>
static __device__ void copy_words(uint8_t * dst, const uint8_t * src, int64_t n) {
    for (int64_t i = threadIdx.x; i < n / (int64_t) sizeof(W); i += blockDim.x) {
        ((W *) dst)[i] = ((const W *) src)[i];
    }
}

/* In the widest words that both are aligned to and that divide n. */
static __device__ void copy_bytes(uint8_t * dst, const uint8_t * src, int64_t n) {
    const uint64_t all = (uint64_t) dst | (uint64_t) src | (uint64_t) n;
    if (all % sizeof(uint4) == 0) {
        copy_words<uint4>(dst, src, n);
    } else if (all % sizeof(uint16_t) == 0) {
        copy_words<uint16_t>(dst, src, n);
    } else {
        copy_words<uint8_t>(dst, src, n);
    }
}

/* Elements of pair p of the row: p / (dims/2) is the head. */
static __device__ void pair_elements(const key_shape & s, int32_t p, int32_t * a, int32_t * b, int32_t * i) {
    const int32_t half = s.dims / 2, head = p / half * s.head_dim;
    *i = p % half;
    *a = head + (s.neox ? *i : 2 * *i);
    *b = head + (s.neox ? *i + half : 2 * *i + 1);
}

/* Copies rows, keys of f32, f16 or bf16 turned in registers. Device rows are aligned. */
template <class C>
static __global__ void move_direct(uint8_t * keys, const uint8_t * const * sources, const row_source * rows, key_shape s, const float * tables) {
    typedef typename C::T T;
    const row_source r = rows[blockIdx.x];
    uint8_t * dst = keys + r.dst * s.row;
    const uint8_t * src = sources[r.ref] + r.src * s.row;
    if (r.turn < 0) {
        copy_bytes(dst, src, s.row);
        return;
    }
    T * y = (T *) dst;
    const T * x = (const T *) src;
    const float * cosines = tables + (int64_t) r.turn * s.dims, * sines = cosines + s.dims / 2;
    for (int32_t p = threadIdx.x; p < s.elems / s.head_dim * (s.dims / 2); p += blockDim.x) {
        int32_t a, b, i;
        pair_elements(s, p, &a, &b, &i);
        const float x0 = C::load(x[a]), x1 = C::load(x[b]);
        y[a] = C::store(x0 * cosines[i] - x1 * sines[i]);
        y[b] = C::store(x0 * sines[i] + x1 * cosines[i]);
    }
    for (int32_t e = threadIdx.x; e < s.elems; e += blockDim.x) {
        if (e % s.head_dim >= s.dims) {
            y[e] = x[e];
        }
    }
}

/* Multiplies blocks of s.rot elements by the orthonormal Walsh-Hadamard matrix. */
static __device__ void hadamard_row(float * x, const key_shape & s) {
    if (s.rot < 2) {
        return;
    }
    for (int32_t step = 1; step < s.rot; step *= 2) {
        for (int32_t k = threadIdx.x; k < s.elems / 2; k += blockDim.x) {
            const int32_t j = k / step * 2 * step + k % step;
            const float a = x[j], b = x[j + step];
            x[j] = a + b;
            x[j + step] = a - b;
        }
        __syncthreads();
    }
    const float norm = (float) (1 / sqrt((double) s.rot));
    for (int32_t k = threadIdx.x; k < s.elems; k += blockDim.x) {
        x[k] *= norm;
    }
    __syncthreads();
}

/* Whether one of the block's elements, element first onward, turns. Packing the others
 * anew could alter what never moved. */
static __device__ bool block_turns(const key_shape & s, int32_t first, int32_t elems) {
    return s.rot > 1 || first % s.head_dim < s.dims || first % s.head_dim + elems > s.head_dim;
}

/* Turns the row in x by pairs. */
static __device__ void turn_shared(float * x, const key_shape & s, const float * cosines) {
    const float * sines = cosines + s.dims / 2;
    for (int32_t p = threadIdx.x; p < s.elems / s.head_dim * (s.dims / 2); p += blockDim.x) {
        int32_t a, b, i;
        pair_elements(s, p, &a, &b, &i);
        const float x0 = x[a], x1 = x[b];
        x[a] = x0 * cosines[i] - x1 * sines[i];
        x[b] = x0 * sines[i] + x1 * cosines[i];
    }
    __syncthreads();
}

/* The general way: a row is unpacked into shared memory, turned, and packed again where
 * it turned. */
template <class P>
static __global__ void move_packed(uint8_t * keys, const uint8_t * const * sources, const row_source * rows, key_shape s, const float * tables) {
    extern __shared__ float x[];
    const row_source r = rows[blockIdx.x];
    uint8_t * dst = keys + r.dst * s.row;
    const uint8_t * src = sources[r.ref] + r.src * s.row;
    if (r.turn < 0) {
        copy_bytes(dst, src, s.row);
        return;
    }
    const int32_t blocks = s.elems / P::elems;
    for (int32_t b = threadIdx.x; b < blocks; b += blockDim.x) {
        P::unpack(src + (int64_t) b * P::bytes, x + b * P::elems);
    }
    __syncthreads();
    hadamard_row(x, s);
    turn_shared(x, s, tables + (int64_t) r.turn * s.dims);
    hadamard_row(x, s);
    for (int32_t b = threadIdx.x; b < blocks; b += blockDim.x) {
        const int64_t at = (int64_t) b * P::bytes;
        if (block_turns(s, b * P::elems, P::elems)) {
            P::pack(x + b * P::elems, dst + at);
            continue;
        }
        for (int32_t i = 0; i < P::bytes; i++) {
            dst[at + i] = src[at + i];
        }
    }
}

/* Where block b of a cell begins. */
static __device__ int64_t block_at(const side & s, int64_t cell, int64_t b) {
    return s.trans ? (b * s.cells + cell) * s.bytes : cell * s.row + b * s.bytes;
}

/* Cells of layers with retyped sources, froms[r] being how source r lies: unpacked, keys
 * turned, and packed as the target is. What lies and stays as the target does is copied. */
static __global__ void move_converted(uint8_t * target, side to, const uint8_t * const * sources, const side * froms, const row_source * rows, key_shape s, const float * tables) {
    extern __shared__ float x[];
    const row_source r = rows[blockIdx.x];
    const side from = froms[r.ref];
    const bool turned = tables != NULL && r.turn >= 0;
    if (from.type == to.type && !turned) {
        for (int64_t i = threadIdx.x; i < (int64_t) to.width / to.elems * to.bytes; i += blockDim.x) {
            const int64_t b = i / to.bytes, byte = i % to.bytes;
            target[block_at(to, r.dst, b) + byte] = sources[r.ref][block_at(from, r.src, b) + byte];
        }
        return;
    }
    for (int32_t b = threadIdx.x; b < to.width / from.elems; b += blockDim.x) {
        unpack_block(from.type, sources[r.ref] + block_at(from, r.src, b), x + b * from.elems);
    }
    __syncthreads();
    if (turned) {
        hadamard_row(x, s);
        turn_shared(x, s, tables + (int64_t) r.turn * s.dims);
        hadamard_row(x, s);
    }
    for (int32_t b = threadIdx.x; b < to.width / to.elems; b += blockDim.x) {
        if (from.type == to.type && !block_turns(s, b * to.elems, to.elems)) {
            for (int32_t i = 0; i < to.bytes; i++) {
                target[block_at(to, r.dst, b) + i] = sources[r.ref][block_at(from, r.src, b) + i];
            }
            continue;
        }
        pack_block(to.type, x + b * to.elems, target + block_at(to, r.dst, b));
    }
}

static __global__ void copy_rows(uint8_t * values, const uint8_t * const * sources, const row_source * rows, int64_t size) {
    const row_source r = rows[blockIdx.x];
    copy_bytes(values + r.dst * size, sources[r.ref] + r.src * size, size);
}

/* Transposed values: block x is a row of the plan, threads go over the columns. */
static __global__ void copy_columns(uint8_t * values, const uint8_t * const * sources, const int64_t * cells, const row_source * rows, int64_t dst_cells, int64_t width, int64_t elem) {
    const row_source r = rows[blockIdx.x];
    for (int64_t i = threadIdx.x; i < width * elem; i += blockDim.x) {
        const int64_t column = i / elem, byte = i % elem;
        values[(column * dst_cells + r.dst) * elem + byte] = sources[r.ref][(column * cells[r.ref] + r.src) * elem + byte];
    }
}

/* ---- host ---- */

typedef void (*key_kernel)(uint8_t *, const uint8_t * const *, const row_source *, key_shape, const float *);

static key_kernel choose_kernel(uint32_t type, int32_t rot, bool * shared) {
    *shared = true;
    switch (type) {
    case SEMSHARE_TYPE_F32: *shared = rot > 1; return rot > 1 ? move_packed<packed_f32> : move_direct<codec_f32>;
    case SEMSHARE_TYPE_F16: *shared = rot > 1; return rot > 1 ? move_packed<packed_f16> : move_direct<codec_f16>;
    case SEMSHARE_TYPE_BF16: *shared = rot > 1; return rot > 1 ? move_packed<packed_bf16> : move_direct<codec_bf16>;
    case SEMSHARE_TYPE_Q4_0: return move_packed<packed_q4_0>;
    case SEMSHARE_TYPE_Q4_1: return move_packed<packed_q4_1>;
    case SEMSHARE_TYPE_Q5_0: return move_packed<packed_q5_0>;
    case SEMSHARE_TYPE_Q5_1: return move_packed<packed_q5_1>;
    case SEMSHARE_TYPE_Q8_0: return move_packed<packed_q8_0>;
    case SEMSHARE_TYPE_IQ4_NL: return move_packed<packed_iq4_nl>;
    default: return NULL;
    }
}

/* Rows of the plan and the tables of its distinct deltas, worked out on the host as
 * the CPU code does it, and kept on the device for all layers. */
struct device_plan {
    bool resident; /* keys and values are in the device's memory already */
    std::vector<row_source> rows;
    std::vector<int32_t> deltas;
    std::vector<float> tables;
    device_buffer d_rows, d_tables;

    int32_t turn_of(int32_t delta, const struct semshare_rope * rope) {
        if (delta == 0) {
            return -1;
        }
        for (size_t i = 0; i < deltas.size(); i++) {
            if (deltas[i] == delta) {
                return (int32_t) i;
            }
        }
        deltas.push_back(delta);
        const int32_t n = rope->dims / 2;
        for (int32_t i = 0; i < 2 * n; i++) {
            const double angle = (double) delta * (double) rope->freqs[i % n];
            tables.push_back((float) (i < n ? cos(angle) : sin(angle)));
        }
        return (int32_t) deltas.size() - 1;
    }

    bool init(const struct semshare_run * runs, int32_t n, const struct semshare_rope * rope) {
        for (int32_t i = 0; i < n; i++) {
            const int32_t turn = turn_of(runs[i].delta, rope);
            for (int32_t k = 0; k < runs[i].len; k++) {
                rows.push_back({runs[i].ref, runs[i].src + k, runs[i].dst + k, turn});
            }
        }
        return d_rows.upload(rows.data(), rows.size() * sizeof rows[0]) && d_tables.upload(tables.data(), tables.size() * sizeof tables[0]);
    }
};

/* One half of a layer on the device. */
struct device_half {
    bool resident;
    device_buffer target, pointers, cells;
    std::vector<device_buffer> sources;

    bool put(device_buffer & to, const void * from, int64_t size) { return resident ? to.lend(from) : to.upload(from, (size_t) size); }

    bool init(const device_plan & plan, const struct semshare_job * j, bool values) {
        resident = plan.resident;
        std::vector<const uint8_t *> at;
        std::vector<int64_t> n;
        sources.resize((size_t) j->n_sources);
        for (int32_t r = 0; r < j->n_sources; r++) {
            const struct semshare_source * s = &j->sources[r];
            if (!put(sources[(size_t) r], values ? s->v : s->k, values ? s->v_size : s->k_size)) {
                return false;
            }
            at.push_back((const uint8_t *) sources[(size_t) r].at);
            n.push_back(s->cells);
        }
        return put(target, values ? j->v : j->k, values ? j->v_size : j->k_size)
            && pointers.upload(at.data(), at.size() * sizeof at[0]) && cells.upload(n.data(), n.size() * sizeof n[0]);
    }

    /* Waits for the kernel, and brings the half home where it came from there. */
    int32_t finish(const struct semshare_job * j, bool values) {
        const bool ok = resident ? device_done() : target.download(values ? j->v : j->k, (size_t) (values ? j->v_size : j->k_size));
        return ok ? SEMSHARE_OK : SEMSHARE_ERR_DEVICE;
    }
};

static bool any_retyped(const struct semshare_job * j) {
    for (int32_t r = 0; r < j->n_sources; r++) {
        if (j->sources[r].retyped) {
            return true;
        }
    }
    return false;
}

static int32_t allow_shared(const void * kernel, size_t bytes) {
    return bytes <= 48 * 1024 || cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int) bytes) == cudaSuccess
        ? SEMSHARE_OK : SEMSHARE_ERR_DEVICE;
}

/* One half of a layer that has retyped sources. */
static int32_t convert_half(const struct semshare_job * j, bool values, device_plan & plan, const struct semshare_rope * rope) {
    device_half half;
    device_buffer d_froms;
    std::vector<side> froms;
    const side to = target_side(j, values);
    for (int32_t r = 0; r < j->n_sources; r++) {
        side from = to;
        from.cells = j->sources[r].cells;
        froms.push_back(j->sources[r].retyped ? source_side(j, &j->sources[r], values) : from);
    }
    const size_t bytes = (size_t) to.width * sizeof(float);
    if (!half.init(plan, j, values) || !d_froms.upload(froms.data(), froms.size() * sizeof froms[0]) || allow_shared((const void *) move_converted, bytes) != SEMSHARE_OK) {
        return SEMSHARE_ERR_DEVICE;
    }
    const bool turns = !values && !plan.deltas.empty();
    const key_shape shape = turns ? key_shape {j->k_row, to.width, rope->head_dim, rope->dims, rope->neox, j->k_rot} : key_shape {};
    move_converted<<<(unsigned) plan.rows.size(), THREADS, bytes>>>((uint8_t *) half.target.at, to, (const uint8_t * const *) half.pointers.at,
        (const side *) d_froms.at, (const row_source *) plan.d_rows.at, shape, turns ? (const float *) plan.d_tables.at : NULL);
    return half.finish(j, values);
}

static int32_t compose_keys(const struct semshare_job * j, device_plan & plan, const struct semshare_rope * rope) {
    device_half half;
    if (!half.init(plan, j, false)) {
        return SEMSHARE_ERR_DEVICE;
    }
    uint8_t * keys = (uint8_t *) half.target.at;
    const uint8_t * const * sources = (const uint8_t * const *) half.pointers.at;
    const row_source * rows = (const row_source *) plan.d_rows.at;
    if (plan.deltas.empty()) {
        copy_rows<<<(unsigned) plan.rows.size(), THREADS>>>(keys, sources, rows, j->k_row);
    } else {
        bool shared;
        const key_kernel kernel = choose_kernel(j->k_type, j->k_rot, &shared);
        int64_t elems = j->k_row; /* of blocks of 32, or bytes to halve */
        switch (j->k_type) {
        case SEMSHARE_TYPE_F32: elems /= 4; break;
        case SEMSHARE_TYPE_F16: case SEMSHARE_TYPE_BF16: elems /= 2; break;
        case SEMSHARE_TYPE_Q4_0: case SEMSHARE_TYPE_IQ4_NL: elems = elems / 18 * 32; break;
        case SEMSHARE_TYPE_Q4_1: elems = elems / 20 * 32; break;
        case SEMSHARE_TYPE_Q5_0: elems = elems / 22 * 32; break;
        case SEMSHARE_TYPE_Q5_1: elems = elems / 24 * 32; break;
        case SEMSHARE_TYPE_Q8_0: elems = elems / 34 * 32; break;
        default: return SEMSHARE_ERR_TYPE;
        }
        const key_shape shape = {j->k_row, (int32_t) elems, rope->head_dim, rope->dims, rope->neox, j->k_rot};
        const size_t bytes = shared ? (size_t) elems * sizeof(float) : 0;
        if (allow_shared((const void *) kernel, bytes) != SEMSHARE_OK) {
            return SEMSHARE_ERR_DEVICE;
        }
        kernel<<<(unsigned) plan.rows.size(), THREADS, bytes>>>(keys, sources, rows, shape, (const float *) plan.d_tables.at);
    }
    return half.finish(j, false);
}

static int32_t compose_values(const struct semshare_job * j, device_plan & plan) {
    device_half half;
    if (!half.init(plan, j, true)) {
        return SEMSHARE_ERR_DEVICE;
    }
    uint8_t * values = (uint8_t *) half.target.at;
    const uint8_t * const * sources = (const uint8_t * const *) half.pointers.at;
    const row_source * rows = (const row_source *) plan.d_rows.at;
    const unsigned n = (unsigned) plan.rows.size();
    if (j->v_trans) {
        copy_columns<<<n, THREADS>>>(values, sources, (const int64_t *) half.cells.at, rows, j->dst_cells, j->v_width, j->v_elem);
    } else {
        copy_rows<<<n, THREADS>>>(values, sources, rows, j->v_row);
    }
    return half.finish(j, true);
}

static int32_t compose_layers(const struct semshare_job * jobs, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs, const struct semshare_rope * rope, bool resident) {
    device_plan plan;
    plan.resident = resident;
    if (!plan.init(runs, n_runs, rope)) {
        return SEMSHARE_ERR_DEVICE;
    }
    int32_t status = SEMSHARE_OK;
    for (int32_t i = 0; i < n_jobs && status == SEMSHARE_OK && !plan.rows.empty(); i++) {
        const struct semshare_job * j = &jobs[i];
        const bool convert = any_retyped(j);
        if (j->k_row > 0) {
            status = convert ? convert_half(j, false, plan, rope) : compose_keys(j, plan, rope);
        }
        if (status == SEMSHARE_OK && (j->v_trans ? j->v_width > 0 : j->v_row > 0)) {
            status = convert ? convert_half(j, true, plan, rope) : compose_values(j, plan);
        }
    }
    return status;
}

static int32_t compose_on(const struct semshare_job * jobs, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs, const struct semshare_rope * rope, bool resident, int32_t device) {
    const int32_t status = compose_check(jobs, n_jobs, runs, n_runs, rope);
    if (status != SEMSHARE_OK) {
        return status;
    }
    if (!device_use(device)) {
        return SEMSHARE_ERR_DEVICE;
    }
    try {
        return compose_layers(jobs, n_jobs, runs, n_runs, rope, resident);
    } catch (...) { /* of the vectors: no exception may reach C */
        return SEMSHARE_ERR_MEMORY;
    }
}

extern "C" int32_t semshare_cuda_compose(const struct semshare_job * jobs, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs, const struct semshare_rope * rope, int32_t device) {
    return compose_on(jobs, n_jobs, runs, n_runs, rope, false, device);
}

extern "C" int32_t semshare_cuda_compose_resident(const struct semshare_job * jobs, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs, const struct semshare_rope * rope, int32_t device) {
    return compose_on(jobs, n_jobs, runs, n_runs, rope, true, device);
}
