/* A libsemshare_cuda.so whose device 0 is the host: memory and kernels are the processor's.
 * Tests say what fails there, and count what is done. */
#ifndef SEMSHARE_TESTS_CUDA_ON_HOST_H
#define SEMSHARE_TESTS_CUDA_ON_HOST_H

#include "semshare.h"

struct cuda_on_host {
    const char * unusable;   /* why the kernels do not run; null where they do */
    int32_t compose_status;  /* what composing returns; where it is not SEMSHARE_OK, nothing is done */
    int32_t uploads, copies; /* calls so far */
};

extern SEMSHARE_API struct cuda_on_host cuda_on_host;

#endif
