/* Chooses the kernel for attention by what the processor has. */
#include "attend.h"

#if defined(__x86_64__)
extern const struct attend attend_avx512;

const struct attend * attend_any(void) { return attend_avx512.usable() ? &attend_avx512 : NULL; }
#else
const struct attend * attend_any(void) { return NULL; }
#endif

const struct attend * attend_for(int32_t dim, int32_t sharing) { return dim % 16 == 0 && dim <= ATTEND_MOST_DIM && sharing <= ATTEND_MOST_SHARING ? attend_any() : NULL; }
