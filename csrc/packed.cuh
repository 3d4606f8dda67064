/* A block of any cache type, unpacked and packed by one thread. */
#ifndef SEMSHARE_PACKED_CUH
#define SEMSHARE_PACKED_CUH

#include "blocks.h"

/* Any cache type, chosen at run time: converting is bound by memory. */
static __device__ void unpack_block(uint32_t type, const uint8_t * b, float * y) {
    switch (type) {
    case SEMSHARE_TYPE_F32: unpack_f32(b, y); break;
    case SEMSHARE_TYPE_F16: unpack_f16(b, y); break;
    case SEMSHARE_TYPE_BF16: unpack_bf16(b, y); break;
    case SEMSHARE_TYPE_Q4_0: unpack_q4_0(b, y); break;
    case SEMSHARE_TYPE_Q4_1: unpack_q4_1(b, y); break;
    case SEMSHARE_TYPE_Q5_0: unpack_q5_0(b, y); break;
    case SEMSHARE_TYPE_Q5_1: unpack_q5_1(b, y); break;
    case SEMSHARE_TYPE_Q8_0: unpack_q8_0(b, y); break;
    case SEMSHARE_TYPE_IQ4_NL: unpack_iq4_nl(b, y); break;
    }
}

static __device__ void pack_block(uint32_t type, const float * x, uint8_t * b) {
    switch (type) {
    case SEMSHARE_TYPE_F32: pack_f32(x, b); break;
    case SEMSHARE_TYPE_F16: pack_f16(x, b); break;
    case SEMSHARE_TYPE_BF16: pack_bf16(x, b); break;
    case SEMSHARE_TYPE_Q4_0: pack_q4_0(x, b); break;
    case SEMSHARE_TYPE_Q4_1: pack_q4_1(x, b); break;
    case SEMSHARE_TYPE_Q5_0: pack_q5_0(x, b); break;
    case SEMSHARE_TYPE_Q5_1: pack_q5_1(x, b); break;
    case SEMSHARE_TYPE_Q8_0: pack_q8_0(x, b); break;
    case SEMSHARE_TYPE_IQ4_NL: pack_iq4_nl(x, b); break;
    }
}

#endif
