#include "cuda_on_host.h"

#include "agent/state.h"

#include <stdlib.h>
#include <string.h>

struct cuda_on_host cuda_on_host;

int32_t semshare_cuda_version(void) { return SEMSHARE_VERSION; }

int32_t semshare_cuda_usable(const char ** why, int32_t device) {
    (void) device;
    *why = cuda_on_host.unusable;
    return *why == NULL ? SEMSHARE_OK : SEMSHARE_ERR_DEVICE;
}

int32_t semshare_cuda_device_of(const void * at) { return at == NULL ? SEMSHARE_ERR_DEVICE : 0; }

int32_t semshare_cuda_memory(int64_t * unused, int32_t device) {
    (void) device;
    *unused = 1 << 20;
    return SEMSHARE_OK;
}

int32_t semshare_cuda_alloc(void ** at, int64_t size, int32_t device) {
    (void) device;
    *at = malloc((size_t) size);
    return *at == NULL ? SEMSHARE_ERR_MEMORY : SEMSHARE_OK;
}

int32_t semshare_cuda_free(void * at, int32_t device) {
    (void) device;
    free(at);
    return SEMSHARE_OK;
}

int32_t semshare_cuda_upload(void * to, const void * from, int64_t size, int32_t device) {
    (void) device;
    memcpy(to, from, (size_t) size);
    cuda_on_host.uploads++;
    return SEMSHARE_OK;
}

int32_t semshare_cuda_copy(void * to, const void * from, int64_t size, int32_t device) {
    (void) device;
    memcpy(to, from, (size_t) size);
    cuda_on_host.copies++;
    return SEMSHARE_OK;
}

int32_t semshare_cuda_compose_resident(const struct semshare_job * jobs, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs, const struct semshare_rope * rope, int32_t device) {
    (void) device;
    return cuda_on_host.compose_status != SEMSHARE_OK ? cuda_on_host.compose_status : semshare_compose(jobs, n_jobs, runs, n_runs, rope, 1);
}

int32_t semshare_cuda_get_rows(const struct semshare_rows * rows, const int32_t * cells, int32_t n, float * x, int32_t device) {
    (void) device;
    const int64_t row = state_row_bytes(rows->type, rows->width);
    for (int32_t i = 0; i < n; i++) {
        semshare_dequantize(rows->type, rows->at + cells[i] * row, row, x + i * rows->width, rows->width);
    }
    return SEMSHARE_OK;
}

int32_t semshare_cuda_put_rows(const struct semshare_rows * rows, const int32_t * cells, int32_t n, const float * x, int32_t device) {
    (void) device;
    const int64_t row = state_row_bytes(rows->type, rows->width);
    for (int32_t i = 0; i < n; i++) {
        semshare_quantize(rows->type, x + i * rows->width, rows->width, rows->at + cells[i] * row, row);
    }
    return SEMSHARE_OK;
}

/* Of shifted passages, which no test on it has. */
int32_t semshare_cuda_add_rows(const struct semshare_rows * rows, const int32_t * cells, const int32_t * which, const int32_t * pos, int32_t n, const float * vectors, int32_t n_vectors, const struct semshare_rope * rope, int32_t device) {
    (void) rows, (void) cells, (void) which, (void) pos, (void) n, (void) vectors, (void) n_vectors, (void) rope, (void) device;
    return SEMSHARE_ERR_DEVICE;
}
