/* Attention by AVX2. */
#if defined(__AVX2__) && defined(__FMA__)
#include "lanes_avx2.h"

#include "attend_loops.h"

const struct attend attend_avx2 = {"AVX2", sizeof(struct scratch), head, shares};
#else
typedef int empty_file; /* ISO C wants something here */
#endif
