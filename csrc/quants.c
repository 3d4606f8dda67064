/* Packs and unpacks rows, by a table of the types in blocks.h. */
#include "blocks.h"
#include "internal.h"

struct type_info {
    uint32_t type;
    int32_t elems, bytes;
    void (*unpack)(const uint8_t * b, float * y);
    void (*pack)(const float * x, uint8_t * b); /* null where it is no cache type */
};

static const struct type_info types[] = {
    {SEMSHARE_TYPE_F32, 1, 4, unpack_f32, pack_f32},
    {SEMSHARE_TYPE_F16, 1, 2, unpack_f16, pack_f16},
    {SEMSHARE_TYPE_BF16, 1, 2, unpack_bf16, pack_bf16},
    {SEMSHARE_TYPE_Q4_0, 32, 18, unpack_q4_0, pack_q4_0},
    {SEMSHARE_TYPE_Q4_1, 32, 20, unpack_q4_1, pack_q4_1},
    {SEMSHARE_TYPE_Q5_0, 32, 22, unpack_q5_0, pack_q5_0},
    {SEMSHARE_TYPE_Q5_1, 32, 24, unpack_q5_1, pack_q5_1},
    {SEMSHARE_TYPE_Q8_0, 32, 34, unpack_q8_0, pack_q8_0},
    {SEMSHARE_TYPE_IQ4_NL, 32, 18, unpack_iq4_nl, pack_iq4_nl},
    {SEMSHARE_TYPE_Q2_K, 256, 84, unpack_q2_k, NULL},
    {SEMSHARE_TYPE_Q3_K, 256, 110, unpack_q3_k, NULL},
    {SEMSHARE_TYPE_Q4_K, 256, 144, unpack_q4_k, NULL},
    {SEMSHARE_TYPE_Q5_K, 256, 176, unpack_q5_k, NULL},
    {SEMSHARE_TYPE_Q6_K, 256, 210, unpack_q6_k, NULL},
    {SEMSHARE_TYPE_IQ4_XS, 256, 136, unpack_iq4_xs, NULL},
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
    return t != NULL && t->pack != NULL;
}

void unpack_blocks(uint32_t type, const uint8_t * src, float * dst, int64_t blocks) {
    const struct type_info * t = type_find(type);
    for (; blocks > 0; blocks--, src += t->bytes, dst += t->elems) {
        t->unpack(src, dst);
    }
}

void pack_blocks(uint32_t type, const float * src, uint8_t * dst, int64_t blocks) {
    const struct type_info * t = type_find(type);
    for (; blocks > 0; blocks--, src += t->elems, dst += t->bytes) {
        t->pack(src, dst);
    }
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
    unpack_blocks(type, src, dst, n / t->elems);
    return SEMSHARE_OK;
}

int32_t semshare_quantize(uint32_t type, const float * src, int64_t n, uint8_t * dst, int64_t dst_size) {
    const struct type_info * t = type_find(type);
    const int32_t status = check_row(t, n, dst_size);
    if (status != SEMSHARE_OK || n == 0) {
        return status;
    }
    if (t->pack == NULL) {
        return SEMSHARE_ERR_TYPE;
    }
    if (src == NULL || dst == NULL) {
        return SEMSHARE_ERR_ARGUMENT;
    }
    pack_blocks(type, src, dst, n / t->elems);
    return SEMSHARE_OK;
}
