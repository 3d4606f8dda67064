/* Sizes of the types, and packing and unpacking as the interface offers it. */
#include "internal.h"

struct type_info {
    uint32_t type;
    int32_t elems, bytes;
    bool cache; /* whether keys and values can have it */
};

static const struct type_info types[] = {
    {SEMSHARE_TYPE_F32, 1, 4, true},
    {SEMSHARE_TYPE_F16, 1, 2, true},
    {SEMSHARE_TYPE_BF16, 1, 2, true},
    {SEMSHARE_TYPE_Q4_0, 32, 18, true},
    {SEMSHARE_TYPE_Q4_1, 32, 20, true},
    {SEMSHARE_TYPE_Q5_0, 32, 22, true},
    {SEMSHARE_TYPE_Q5_1, 32, 24, true},
    {SEMSHARE_TYPE_Q8_0, 32, 34, true},
    {SEMSHARE_TYPE_IQ4_NL, 32, 18, true},
    {SEMSHARE_TYPE_Q2_K, 256, 84, false},
    {SEMSHARE_TYPE_Q3_K, 256, 110, false},
    {SEMSHARE_TYPE_Q4_K, 256, 144, false},
    {SEMSHARE_TYPE_Q5_K, 256, 176, false},
    {SEMSHARE_TYPE_Q6_K, 256, 210, false},
    {SEMSHARE_TYPE_IQ4_XS, 256, 136, false},
};

static const struct type_info * type_find(uint32_t type) {
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (types[i].type == type) {
            return &types[i];
        }
    }
    return NULL;
}

int32_t type_block(uint32_t type, int32_t * bytes) {
    const struct type_info * t = type_find(type);
    *bytes = t == NULL ? 0 : t->bytes;
    return t == NULL ? 0 : t->elems;
}

bool type_is_cache(uint32_t type) {
    const struct type_info * t = type_find(type);
    return t != NULL && t->cache;
}

/* Whether n values of the type take size bytes. */
static int32_t check_row(const struct type_info * t, int64_t n, int64_t size) {
    if (t == NULL) {
        return SEMSHARE_ERR_TYPE;
    }
    return n >= 0 && n % t->elems == 0 && size >= 0 && size % t->bytes == 0 && n / t->elems == size / t->bytes
        ? SEMSHARE_OK : SEMSHARE_ERR_SIZE;
}

int32_t semshare_dequantize(uint32_t type, const uint8_t * src, int64_t src_size, float * dst, int64_t n) {
    const struct type_info * t = type_find(type);
    const int32_t status = check_row(t, n, src_size);
    if (status != SEMSHARE_OK || n == 0) {
        return status;
    }
    if (src == NULL || dst == NULL) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    variant_current()->unpack(type, src, dst, n / t->elems);
    return SEMSHARE_OK;
}

int32_t semshare_quantize(uint32_t type, const float * src, int64_t n, uint8_t * dst, int64_t dst_size) {
    const struct type_info * t = type_find(type);
    const int32_t status = check_row(t, n, dst_size);
    if (status != SEMSHARE_OK || n == 0) {
        return status;
    }
    if (!t->cache) {
        return SEMSHARE_ERR_TYPE;
    }
    if (src == NULL || dst == NULL) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    variant_current()->pack(type, src, dst, n / t->elems);
    return SEMSHARE_OK;
}
