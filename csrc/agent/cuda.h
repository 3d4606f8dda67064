/* libsemshare_cuda.so, which lies beside the agent where the server computes on NVIDIA's
 * devices: found when it is first needed. */
#ifndef AGENT_CUDA_H
#define AGENT_CUDA_H

#include "error.h"
#include "semshare.h"

/* X(name, parameters); all return a status. */
#define AGENT_CUDA(X)                                                                                                                                     \
    X(compose_resident, (const struct semshare_job *, int32_t, const struct semshare_run *, int32_t, const struct semshare_rope *, int32_t))               \
    X(put_rows, (const struct semshare_rows *, const int32_t *, int32_t, const float *, int32_t))                                                          \
    X(get_rows, (const struct semshare_rows *, const int32_t *, int32_t, float *, int32_t))                                                                \
    X(add_rows, (const struct semshare_rows *, const int32_t *, const int32_t *, const int32_t *, int32_t, const float *, int32_t, const struct semshare_rope *, int32_t)) \
    X(device_of, (const void *))                                                                                                                           \
    X(usable, (const char **, int32_t))                                                                                                                    \
    X(memory, (int64_t *, int32_t))                                                                                                                        \
    X(alloc, (void **, int64_t, int32_t))                                                                                                                  \
    X(free, (void *, int32_t))                                                                                                                             \
    X(upload, (void *, const void *, int64_t, int32_t))                                                                                                    \
    X(copy, (void *, const void *, int64_t, int32_t))

struct cuda {
#define X(name, args) int32_t(*name) args;
    AGENT_CUDA(X)
#undef X
};

/* The library's functions, where an address lies in a device's memory and the library's
 * kernels run there: *device is which. Else null, saying why. Callers hold the agent's lock. */
const struct cuda * cuda_for(const void * at, int32_t * device, struct error * err);

#endif
