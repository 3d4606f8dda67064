/* Products of packed weights by AVX-VNNI, for desktops since 2021; by AVX2 where the compiler
 * does not know it. */
#if defined(__AVX2__) && defined(__FMA__)
#include "lanes_avx2.h"

#include "product_loops.h"

#ifdef __AVXVNNI__
#define NAME "AVX-VNNI"
#else
#define NAME "AVX2"
#endif

const struct product product_avxvnni = {NAME, sizeof(struct panel), takes, pack, multiply_all};
#else
typedef int empty_file; /* ISO C wants something here */
#endif
