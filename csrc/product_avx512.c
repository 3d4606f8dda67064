/* Products of packed weights by AVX-512 VNNI, for servers since 2019. */
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#include "lanes_avx512.h"

#include "product_loops.h"

const struct product product_avx512 = {"AVX-512 VNNI", sizeof(struct panel), takes, pack, multiply_all};
#else
typedef int empty_file; /* ISO C wants something here */
#endif
