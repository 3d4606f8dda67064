/* Device memory that frees itself; what the .cu files share. */
#ifndef SEMSHARE_DEVICE_CUH
#define SEMSHARE_DEVICE_CUH

#include "semshare.h"

#include <cuda_runtime.h>
#include <stddef.h>

struct device_buffer {
    void * at = NULL;

    device_buffer() = default;
    device_buffer(device_buffer && other) : at(other.at) { other.at = NULL; }
    device_buffer(const device_buffer &) = delete;
    device_buffer & operator=(const device_buffer &) = delete;
    ~device_buffer() { cudaFree(at); }

    bool alloc(size_t size) { return cudaMalloc(&at, size > 0 ? size : 1) == cudaSuccess; }

    bool upload(const void * host, size_t size) {
        return alloc(size) && (size == 0 || cudaMemcpy(at, host, size, cudaMemcpyHostToDevice) == cudaSuccess);
    }

    /* Waits for the kernels before it, and reports their faults too. */
    bool download(void * host, size_t size) {
        return cudaGetLastError() == cudaSuccess && cudaMemcpy(host, at, size, cudaMemcpyDeviceToHost) == cudaSuccess;
    }
};

#endif
