/*
 * semshare_signatures on a CUDA device: 16 threads for each product, which add up in
 * the order of the CPU code, and 64 products for each block. Without positions the
 * bits are those of the CPU; with positions the device's sine may differ in the last
 * bit, and with it a sign where a product is 0 within rounding.
 */
#include "device.cuh"

enum { LANES = 16, WORD = 64 };

/* Turns the rows to their positions: block x is a row. */
static __global__ void place_rows(float * rows, int32_t dim, const int32_t * pos, const float * freqs) {
    float * row = rows + (int64_t) blockIdx.x * dim;
    for (int32_t i = threadIdx.x; i < dim / 2; i += blockDim.x) {
        double s, c;
        sincos((double) pos[blockIdx.x] * (double) freqs[i], &s, &c);
        const float x = row[2 * i], y = row[2 * i + 1];
        row[2 * i] = x * (float) c - y * (float) s;
        row[2 * i + 1] = x * (float) s + y * (float) c;
    }
}

/* Block x is a row, y a word of 64 planes; a half-warp works out one product. */
static __global__ void project_rows(const float * rows, int32_t dim, const float * planes, unsigned long long * out) {
    __shared__ unsigned long long word;
    if (threadIdx.x == 0) {
        word = 0;
    }
    __syncthreads();
    const int lane = threadIdx.x % LANES, bit = threadIdx.x / LANES;
    const float * row = rows + (int64_t) blockIdx.x * dim;
    const float * plane = planes + ((int64_t) blockIdx.y * WORD + bit) * dim;
    float sum = 0;
    for (int32_t i = lane; i < dim; i += LANES) {
        sum += row[i] * plane[i];
    }
    for (int w = LANES / 2; w > 0; w /= 2) {
        sum += __shfl_down_sync(0xffffffff, sum, (unsigned) w, LANES);
    }
    if (lane == 0 && sum > 0) {
        atomicOr(&word, 1ull << bit);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        out[(int64_t) blockIdx.x * gridDim.y + blockIdx.y] = word;
    }
}

extern "C" int32_t semshare_cuda_version(void) { return SEMSHARE_VERSION; }

extern "C" int32_t semshare_cuda_devices(void) {
    int n = 0;
    return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0;
}

extern "C" int32_t semshare_cuda_signatures(const float * rows, int64_t n_rows, int32_t dim, const int32_t * pos, const float * freqs, const float * planes, int32_t bits, uint64_t * out, int32_t device) {
    /* With no rows the CPU version only checks. */
    const int32_t status = semshare_signatures(rows, 0, dim, pos, freqs, planes, bits, out, 1);
    if (status != SEMSHARE_OK || n_rows == 0) {
        return status;
    }
    if (n_rows < 0 || n_rows > INT32_MAX || rows == NULL || out == NULL || bits / WORD > 65535) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    if (!device_use(device)) {
        return SEMSHARE_ERR_DEVICE;
    }
    device_buffer d_rows, d_planes, d_pos, d_freqs, d_out;
    const size_t row_bytes = (size_t) dim * sizeof(float), out_bytes = (size_t) n_rows * (size_t) (bits / 8);
    if (!d_rows.upload(rows, (size_t) n_rows * row_bytes) || !d_planes.upload(planes, (size_t) bits * row_bytes) || !d_out.alloc(out_bytes)) {
        return SEMSHARE_ERR_DEVICE;
    }
    if (pos != NULL) {
        if (!d_pos.upload(pos, (size_t) n_rows * sizeof *pos) || !d_freqs.upload(freqs, row_bytes / 2)) {
            return SEMSHARE_ERR_DEVICE;
        }
        place_rows<<<(unsigned) n_rows, 128>>>((float *) d_rows.at, dim, (const int32_t *) d_pos.at, (const float *) d_freqs.at);
    }
    const dim3 grid((unsigned) n_rows, (unsigned) (bits / WORD));
    project_rows<<<grid, LANES * WORD>>>((const float *) d_rows.at, dim, (const float *) d_planes.at, (unsigned long long *) d_out.at);
    return d_out.download(out, out_bytes) ? SEMSHARE_OK : SEMSHARE_ERR_DEVICE;
}
