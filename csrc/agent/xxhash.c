/* xxHash64 (Yann Collet), seed 0, of a whole buffer. */
#include "recipe.h"

#include <string.h>

static const uint64_t P1 = 0x9E3779B185EBCA87u, P2 = 0xC2B2AE3D27D4EB4Fu, P3 = 0x165667B19E3779F9u, P4 = 0x85EBCA77C2B2AE63u, P5 = 0x27D4EB2F165667C5u;

static uint64_t rotl(uint64_t x, int r) { return x << r | x >> (64 - r); }

static uint64_t read64(const uint8_t * p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint32_t read32(const uint8_t * p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t mix(uint64_t acc, uint64_t lane) { return rotl(acc + lane * P2, 31) * P1; }

static uint64_t merge(uint64_t h, uint64_t acc) { return (h ^ mix(0, acc)) * P1 + P4; }

uint64_t xxhash64(const uint8_t * p, size_t n) {
    const uint8_t * end = p + n;
    uint64_t h = P5;
    if (n >= 32) {
        uint64_t a = P1 + P2, b = P2, c = 0, d = 0 - P1;
        for (; p + 32 <= end; p += 32) {
            a = mix(a, read64(p));
            b = mix(b, read64(p + 8));
            c = mix(c, read64(p + 16));
            d = mix(d, read64(p + 24));
        }
        h = rotl(a, 1) + rotl(b, 7) + rotl(c, 12) + rotl(d, 18);
        h = merge(merge(merge(merge(h, a), b), c), d);
    }
    h += n;
    for (; p + 8 <= end; p += 8) {
        h = rotl(h ^ mix(0, read64(p)), 27) * P1 + P4;
    }
    if (p + 4 <= end) {
        h = rotl(h ^ read32(p) * P1, 23) * P2 + P3;
        p += 4;
    }
    for (; p < end; p++) {
        h = rotl(h ^ *p * P5, 11) * P1;
    }
    h = (h ^ h >> 33) * P2;
    h = (h ^ h >> 29) * P3;
    return h ^ h >> 32;
}
