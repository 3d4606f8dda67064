/* Device memory that frees itself; what the .cu files share. */
#ifndef SEMSHARE_DEVICE_CUH
#define SEMSHARE_DEVICE_CUH

#include "semshare.h"

#include <cuda_runtime.h>
#include <stddef.h>

struct device_buffer {
    void * at = NULL;
    bool lent = false;

    device_buffer() = default;
    device_buffer(device_buffer && other) : at(other.at), lent(other.lent) { other.at = NULL; }
    device_buffer(const device_buffer &) = delete;
    device_buffer & operator=(const device_buffer &) = delete;
    ~device_buffer() {
        if (at != NULL && !lent) {
            cudaFreeAsync(at, 0);
        }
    }

    /* From the device's pool, which device_use has keep what it once got. */
    bool alloc(size_t size) { return cudaMallocAsync(&at, size > 0 ? size : 1, 0) == cudaSuccess; }

    /* What lies on the device already, and stays the caller's. */
    bool lend(const void * there) {
        at = (void *) there;
        lent = true;
        return true;
    }

    bool upload(const void * host, size_t size) {
        return alloc(size) && (size == 0 || cudaMemcpy(at, host, size, cudaMemcpyHostToDevice) == cudaSuccess);
    }

    /* Waits for the kernels before it, and reports their faults too. */
    bool download(void * host, size_t size) {
        return cudaGetLastError() == cudaSuccess && cudaMemcpy(host, at, size, cudaMemcpyDeviceToHost) == cudaSuccess;
    }
};

/* Whether the kernels before it have run, and without a fault. */
static inline bool device_done(void) { return cudaGetLastError() == cudaSuccess && cudaStreamSynchronize(0) == cudaSuccess; }

/* Selects a device, and has it keep small memory between calls: getting it anew would cost
 * more than the kernels. Forgets what failed before, such as memory that there was not. */
static inline bool device_use(int32_t device) {
    cudaMemPool_t pool;
    uint64_t keep = 64 << 20;
    cudaGetLastError();
    return cudaSetDevice(device) == cudaSuccess && cudaDeviceGetDefaultMemPool(&pool, device) == cudaSuccess
        && cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep) == cudaSuccess;
}

#endif
