/* Chooses the kernel for attention by what the processor has. */
#include "attend.h"

#if defined(__x86_64__)
extern const struct attend attend_avx512;

const struct attend * attend_for(int32_t dim) {
    return attend_avx512.usable() && dim % 16 == 0 && dim <= ATTEND_MOST_DIM ? &attend_avx512 : NULL;
}
#else
const struct attend * attend_for(int32_t dim) {
    (void) dim;
    return NULL;
}
#endif
