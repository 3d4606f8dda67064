/* Chooses the instruction set, once, by what the processor has. */
#include "attend.h"
#include "internal.h"
#include "product.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <stdatomic.h>
#include <string.h>

static const struct variant * const variants[] = {
#if defined(__x86_64__)
    &variant_avx512,
    &variant_avx2,
#elif defined(__aarch64__)
    &variant_neon,
#endif
    &variant_scalar,
};

enum { N_VARIANTS = sizeof variants / sizeof variants[0] };

static _Atomic(const struct variant *) chosen;

const struct variant * variant_current(void) {
    const struct variant * v = atomic_load_explicit(&chosen, memory_order_acquire);
    for (int i = 0; v == NULL; i++) { /* the scalar one is always usable */
        if (variants[i]->usable()) {
            v = variants[i];
            atomic_store_explicit(&chosen, v, memory_order_release);
        }
    }
    return v;
}

const char * semshare_cpu(void) { return variant_current()->name; }

int32_t semshare_use_cpu(const char * name) {
    for (int i = 0; name != NULL && i < N_VARIANTS; i++) {
        if (strcmp(variants[i]->name, name) == 0 && variants[i]->usable()) {
            atomic_store_explicit(&chosen, variants[i], memory_order_release);
            return SEMSHARE_OK;
        }
    }
    return SEMSHARE_ERR_ARGUMENT;
}

#if defined(__x86_64__)
static bool is_avx2(void) { return variant_current() != &variant_scalar && __builtin_cpu_supports("fma"); }

/* Compilers name it only of late. */
static bool has_avxvnni(void) {
    unsigned a = 0, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & 1 << 4) != 0;
}

const struct attend * attend_any(void) {
    if (variant_current() == &variant_avx512) {
        return &attend_avx512;
    }
    return is_avx2() ? &attend_avx2 : NULL;
}

const struct product * product_any(void) {
    if (variant_current() == &variant_avx512 && __builtin_cpu_supports("avx512vnni")) {
        return &product_avx512;
    }
    return !is_avx2() ? NULL : has_avxvnni() ? &product_avxvnni : &product_avx2;
}
#else
const struct attend * attend_any(void) { return NULL; }
const struct product * product_any(void) { return NULL; }
#endif

const struct attend * attend_for(int32_t dim, int32_t sharing) {
    return dim % 16 == 0 && dim <= ATTEND_MOST_DIM && sharing <= ATTEND_MOST_SHARING ? attend_any() : NULL;
}

const struct product * product_for(uint32_t type, int64_t rows, int64_t width, enum product_packing * packing) {
    const struct product * any = product_any();
    return any != NULL && any->takes(type, rows, width, packing) ? any : NULL;
}

int32_t semshare_version(void) { return SEMSHARE_VERSION; }

const char * semshare_error(int32_t status) {
    switch (status) {
    case SEMSHARE_OK: return "no error";
    case SEMSHARE_ERR_ARGUMENT: return "an argument is null or out of its range";
    case SEMSHARE_ERR_TYPE: return "unknown tensor type";
    case SEMSHARE_ERR_SIZE: return "sizes do not fit one another";
    case SEMSHARE_ERR_RANGE: return "a run leaves the target or its reference";
    case SEMSHARE_ERR_ROPE: return "keys must move, and there is no valid RoPE";
    case SEMSHARE_ERR_MEMORY: return "out of memory";
    case SEMSHARE_ERR_DEVICE: return "no usable device, or a call to it failed";
    default: return "unknown error";
    }
}
