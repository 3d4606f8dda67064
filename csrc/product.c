/* Chooses the kernel for products by what the processor has. */
#include "product.h"

#if defined(__x86_64__)
extern const struct product product_avx512;

const struct product * product_any(void) { return product_avx512.usable() ? &product_avx512 : NULL; }
#else
const struct product * product_any(void) { return NULL; }
#endif

const struct product * product_for(uint32_t type, int64_t rows, int64_t width, enum product_packing * packing) {
    const struct product * any = product_any();
    return any != NULL && any->takes(type, rows, width, packing) ? any : NULL;
}
