/*
 * Rows of keys or values that lie in a device's memory: written, read and shifted there,
 * as the agent does it in the host's for a server that computes on the CPU. One block of
 * threads a row; a thread does one block of the type at a time.
 */
#include "device.cuh"
#include "packed.cuh"

extern "C" int32_t type_block(uint32_t type, int32_t * bytes);

enum { THREADS = 128 };

struct shape {
    uint8_t * at;
    int64_t row;
    uint32_t type;
    int32_t blocks, elems, bytes; /* of a row; of a block */
};

static __global__ void put(shape s, const int32_t * cells, const float * x) {
    uint8_t * to = s.at + cells[blockIdx.x] * s.row;
    const float * from = x + (int64_t) blockIdx.x * s.blocks * s.elems;
    for (int32_t b = threadIdx.x; b < s.blocks; b += blockDim.x) {
        pack_block(s.type, from + b * s.elems, to + (int64_t) b * s.bytes);
    }
}

static __global__ void get(shape s, const int32_t * cells, float * x) {
    const uint8_t * from = s.at + cells[blockIdx.x] * s.row;
    float * to = x + (int64_t) blockIdx.x * s.blocks * s.elems;
    for (int32_t b = threadIdx.x; b < s.blocks; b += blockDim.x) {
        unpack_block(s.type, from + (int64_t) b * s.bytes, to + b * s.elems);
    }
}

/* What the pairs of a head turn by, for each cell: cosines, then sines, dims in all. */
static __global__ void turns_of(float * turns, const int32_t * pos, const float * freqs, int32_t dims) {
    const int32_t pairs = dims / 2;
    for (int32_t i = threadIdx.x; i < pairs; i += blockDim.x) {
        double s, c;
        sincos((double) pos[blockIdx.x] * (double) freqs[i], &s, &c);
        turns[(int64_t) blockIdx.x * dims + i] = (float) c;
        turns[(int64_t) blockIdx.x * dims + pairs + i] = (float) s;
    }
}

/* Element i of a vector whose heads turn. */
static __device__ float turned(const float * v, int32_t i, const float * turns, int32_t head_dim, int32_t dims, bool neox) {
    const int32_t e = i % head_dim, pairs = dims / 2;
    if (turns == NULL || e >= dims) {
        return v[i];
    }
    const int32_t pair = neox ? e % pairs : e / 2;
    const bool second = neox ? e >= pairs : e % 2 == 1;
    const int32_t other = neox ? pairs : 1;
    const float c = turns[pair], s = turns[pairs + pair];
    return second ? v[i - other] * s + v[i] * c : v[i] * c - v[i + other] * s;
}

static __global__ void add(shape s, const int32_t * cells, const int32_t * which, const float * vectors, const float * turns, int32_t head_dim, int32_t dims, bool neox) {
    uint8_t * row = s.at + cells[blockIdx.x] * s.row;
    const float * v = vectors + (int64_t) which[blockIdx.x] * s.blocks * s.elems;
    const float * own = turns == NULL ? NULL : turns + (int64_t) blockIdx.x * dims;
    float x[32]; /* the largest block */
    for (int32_t b = threadIdx.x; b < s.blocks; b += blockDim.x) {
        unpack_block(s.type, row + (int64_t) b * s.bytes, x);
        for (int32_t i = 0; i < s.elems; i++) {
            x[i] += turned(v, b * s.elems + i, own, head_dim, dims, neox);
        }
        pack_block(s.type, x, row + (int64_t) b * s.bytes);
    }
}

/* ---- host ---- */

static bool shape_of(const struct semshare_rows * r, shape * s) {
    int32_t bytes = 0;
    const int32_t elems = r == NULL ? 0 : type_block(r->type, &bytes);
    if (elems == 0 || r->at == NULL || r->width <= 0 || r->width % elems != 0) {
        return false;
    }
    *s = shape {r->at, (int64_t) (r->width / elems) * bytes, r->type, r->width / elems, elems, bytes};
    return true;
}

static int32_t done(bool ok) { return ok && device_done() ? SEMSHARE_OK : SEMSHARE_ERR_DEVICE; }

extern "C" int32_t semshare_cuda_put_rows(const struct semshare_rows * rows, const int32_t * cells, int32_t n, const float * x, int32_t device) {
    shape s;
    if (n < 0 || !shape_of(rows, &s) || (n > 0 && (cells == NULL || x == NULL))) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    device_buffer d_cells, d_x;
    if (n == 0) {
        return SEMSHARE_OK;
    }
    if (!device_use(device) || !d_cells.upload(cells, (size_t) n * sizeof *cells) || !d_x.upload(x, (size_t) n * (size_t) rows->width * sizeof *x)) {
        return SEMSHARE_ERR_DEVICE;
    }
    put<<<(unsigned) n, THREADS>>>(s, (const int32_t *) d_cells.at, (const float *) d_x.at);
    return done(true);
}

extern "C" int32_t semshare_cuda_get_rows(const struct semshare_rows * rows, const int32_t * cells, int32_t n, float * x, int32_t device) {
    shape s;
    if (n < 0 || !shape_of(rows, &s) || (n > 0 && (cells == NULL || x == NULL))) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    device_buffer d_cells, d_x;
    const size_t size = (size_t) n * (size_t) rows->width * sizeof *x;
    if (n == 0) {
        return SEMSHARE_OK;
    }
    if (!device_use(device) || !d_cells.upload(cells, (size_t) n * sizeof *cells) || !d_x.alloc(size)) {
        return SEMSHARE_ERR_DEVICE;
    }
    get<<<(unsigned) n, THREADS>>>(s, (const int32_t *) d_cells.at, (float *) d_x.at);
    return done(d_x.download(x, size));
}

extern "C" int32_t semshare_cuda_add_rows(const struct semshare_rows * rows, const int32_t * cells, const int32_t * which, const int32_t * pos, int32_t n, const float * vectors, int32_t n_vectors, const struct semshare_rope * rope, int32_t device) {
    shape s;
    if (n < 0 || n_vectors < 0 || !shape_of(rows, &s) || (n > 0 && (cells == NULL || which == NULL || vectors == NULL))) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    for (int32_t i = 0; i < n; i++) {
        if (which[i] < 0 || which[i] >= n_vectors) {
            return SEMSHARE_ERR_RANGE;
        }
    }
    if (pos != NULL && (rope == NULL || rope->freqs == NULL || rope->head_dim <= 0 || rows->width % rope->head_dim != 0 || rope->dims < 2 || rope->dims % 2 != 0 || rope->dims > rope->head_dim)) {
        return SEMSHARE_ERR_ROPE;
    }
    if (n == 0) {
        return SEMSHARE_OK;
    }
    device_buffer d_cells, d_which, d_vectors, d_pos, d_freqs, d_turns;
    const size_t ints = (size_t) n * sizeof *cells;
    if (!device_use(device) || !d_cells.upload(cells, ints) || !d_which.upload(which, ints) || !d_vectors.upload(vectors, (size_t) n_vectors * (size_t) rows->width * sizeof *vectors)) {
        return SEMSHARE_ERR_DEVICE;
    }
    if (pos != NULL) {
        if (!d_pos.upload(pos, ints) || !d_freqs.upload(rope->freqs, (size_t) (rope->dims / 2) * sizeof *rope->freqs) || !d_turns.alloc((size_t) n * (size_t) rope->dims * sizeof(float))) {
            return SEMSHARE_ERR_DEVICE;
        }
        turns_of<<<(unsigned) n, THREADS>>>((float *) d_turns.at, (const int32_t *) d_pos.at, (const float *) d_freqs.at, rope->dims);
    }
    add<<<(unsigned) n, THREADS>>>(s, (const int32_t *) d_cells.at, (const int32_t *) d_which.at, (const float *) d_vectors.at, (const float *) d_turns.at, pos != NULL ? rope->head_dim : rows->width, pos != NULL ? rope->dims : 0, pos != NULL && rope->neox);
    return done(true);
}

/* ---- devices ---- */

extern "C" int32_t semshare_cuda_usable(const char ** why, int32_t device) {
    cudaFuncAttributes unused;
    if (why == NULL) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    if (device_use(device) && cudaFuncGetAttributes(&unused, put) == cudaSuccess) {
        return SEMSHARE_OK;
    }
    *why = cudaGetErrorString(cudaGetLastError());
    return SEMSHARE_ERR_DEVICE;
}

/* ---- memory ---- */

extern "C" int32_t semshare_cuda_device_of(const void * at) {
    cudaPointerAttributes a;
    if (cudaPointerGetAttributes(&a, at) != cudaSuccess) {
        return SEMSHARE_ERR_DEVICE;
    }
    return a.type == cudaMemoryTypeDevice ? a.device : SEMSHARE_ERR_DEVICE;
}

extern "C" int32_t semshare_cuda_memory(int64_t * unused, int32_t device) {
    size_t left, all;
    if (unused == NULL) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    if (!device_use(device) || cudaMemGetInfo(&left, &all) != cudaSuccess) {
        return SEMSHARE_ERR_DEVICE;
    }
    *unused = (int64_t) left;
    return SEMSHARE_OK;
}

extern "C" int32_t semshare_cuda_alloc(void ** at, int64_t size, int32_t device) {
    if (at == NULL || size <= 0) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    if (!device_use(device)) {
        return SEMSHARE_ERR_DEVICE;
    }
    if (cudaMalloc(at, (size_t) size) != cudaSuccess) {
        *at = NULL;
        return SEMSHARE_ERR_MEMORY;
    }
    return SEMSHARE_OK;
}

extern "C" int32_t semshare_cuda_free(void * at, int32_t device) { return device_use(device) && cudaFree(at) == cudaSuccess ? SEMSHARE_OK : SEMSHARE_ERR_DEVICE; }

static int32_t copy_as(void * to, const void * from, int64_t size, enum cudaMemcpyKind kind, int32_t device) {
    if (size < 0 || (size > 0 && (to == NULL || from == NULL))) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    /* A copy within the device may go on after cudaMemcpy returns. */
    return device_use(device) && cudaMemcpy(to, from, (size_t) size, kind) == cudaSuccess && device_done() ? SEMSHARE_OK : SEMSHARE_ERR_DEVICE;
}

extern "C" int32_t semshare_cuda_upload(void * to, const void * from, int64_t size, int32_t device) { return copy_as(to, from, size, cudaMemcpyHostToDevice, device); }

extern "C" int32_t semshare_cuda_download(void * to, const void * from, int64_t size, int32_t device) { return copy_as(to, from, size, cudaMemcpyDeviceToHost, device); }

extern "C" int32_t semshare_cuda_copy(void * to, const void * from, int64_t size, int32_t device) { return copy_as(to, from, size, cudaMemcpyDeviceToDevice, device); }
