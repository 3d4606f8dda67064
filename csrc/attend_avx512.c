/* Attention by AVX-512. */
#if defined(__AVX512F__) && defined(__AVX512DQ__)
#include "lanes_avx512.h"

#include "attend_loops.h"

const struct attend attend_avx512 = {"AVX-512", sizeof(struct scratch), head, shares};
#else
typedef int empty_file; /* ISO C wants something here */
#endif
