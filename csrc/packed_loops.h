/* A loop over blocks for each packed type written by hand; the names are those of the file
 * that includes this. */
#ifndef SEMSHARE_PACKED_LOOPS_H
#define SEMSHARE_PACKED_LOOPS_H

#define HAND_WRITTEN(DO)       \
    DO(Q4_0, q4_0, 18)         \
    DO(Q4_1, q4_1, 20)         \
    DO(Q5_0, q5_0, 22)         \
    DO(Q5_1, q5_1, 24)         \
    DO(Q8_0, q8_0, 34)         \
    DO(IQ4_NL, iq4_nl, 18)

static void unpack_any(uint32_t type, const uint8_t * src, float * dst, int64_t blocks) {
#define UNPACK(TYPE, NAME, BYTES)                                \
    case SEMSHARE_TYPE_##TYPE:                                   \
        for (int64_t b = 0; b < blocks; b++) {                   \
            unpack_##NAME##_wide(src + b * BYTES, dst + b * 32); \
        }                                                        \
        return;
    switch (type) {
        HAND_WRITTEN(UNPACK)
    case SEMSHARE_TYPE_F16: unpack_f16_wide(src, dst, blocks); return;
    default: unpack(type, src, dst, blocks);
    }
#undef UNPACK
}

static void pack_any(uint32_t type, const float * src, uint8_t * dst, int64_t blocks) {
#define PACK(TYPE, NAME, BYTES)                                \
    case SEMSHARE_TYPE_##TYPE:                                 \
        for (int64_t b = 0; b < blocks; b++) {                 \
            pack_##NAME##_wide(src + b * 32, dst + b * BYTES); \
        }                                                      \
        return;
    switch (type) {
        HAND_WRITTEN(PACK)
    case SEMSHARE_TYPE_F16: pack_f16_wide(src, dst, blocks); return;
    default: pack(type, src, dst, blocks);
    }
#undef PACK
}

#endif
