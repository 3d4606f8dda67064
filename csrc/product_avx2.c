/* Products of packed weights by AVX2. */
#if defined(__AVX2__) && defined(__FMA__)
#include "lanes_avx2.h"

#include "product_loops.h"

const struct product product_avx2 = {"AVX2", sizeof(struct panel), takes, pack, multiply_all};
#else
typedef int empty_file; /* ISO C wants something here */
#endif
