/* The CUDA library against the CPU's. Without a GPU it says that it skips. */
#include "case.h"

static uint8_t * copy_of(const uint8_t * b, int64_t n) {
    uint8_t * out = malloc((size_t) n + 1);
    memcpy(out, b, (size_t) n);
    return out;
}

static void check_compose(uint64_t seed, uint32_t type) {
    struct test_case c;
    case_init(&c, seed, type);
    case_clear(&c);
    CHECK(semshare_compose(c.jobs, LAYERS, c.runs, c.n_runs, &c.rope, 1) == SEMSHARE_OK, "CPU");
    uint8_t * k = copy_of(c.jobs[1].k, c.jobs[1].k_size), * v = copy_of(c.jobs[1].v, c.jobs[1].v_size);
    case_clear(&c);
    const int32_t status = semshare_cuda_compose(c.jobs, LAYERS, c.runs, c.n_runs, &c.rope, 0);
    CHECK(status == SEMSHARE_OK, "type %u: status %d", type, status);
    CHECK(memcmp(k, c.jobs[1].k, (size_t) c.jobs[1].k_size) == 0, "type %u: keys differ from the CPU's", type);
    CHECK(memcmp(v, c.jobs[1].v, (size_t) c.jobs[1].v_size) == 0, "type %u: values differ from the CPU's", type);
    free(k), free(v);
    case_free(&c);
}

enum { ROWS = 500, DIM = 96, BITS = 128 };

static void check_signatures(bool placed) {
    static float rows[ROWS * DIM], planes[BITS * DIM], freqs[DIM / 2];
    static int32_t positions[ROWS];
    static uint64_t cpu[ROWS * BITS / 64], cuda[ROWS * BITS / 64];
    uint64_t seed = 1;
    for (int i = 0; i < ROWS * DIM; i++) {
        rows[i] = random_float(&seed);
    }
    for (int i = 0; i < BITS * DIM; i++) {
        planes[i] = random_float(&seed);
    }
    for (int i = 0; i < DIM / 2; i++) {
        freqs[i] = 1.0f / (float) (1 + i);
    }
    for (int i = 0; i < ROWS; i++) {
        positions[i] = 7 * i;
    }
    const int32_t * pos = placed ? positions : NULL;
    CHECK(semshare_signatures(rows, ROWS, DIM, pos, freqs, planes, BITS, cpu, 1) == SEMSHARE_OK, "CPU");
    const int32_t status = semshare_cuda_signatures(rows, ROWS, DIM, pos, freqs, planes, BITS, cuda, 0);
    CHECK(status == SEMSHARE_OK, "status %d", status);
    int differ = 0;
    for (int i = 0; i < ROWS * BITS / 64; i++) {
        differ += __builtin_popcountll(cpu[i] ^ cuda[i]);
    }
    CHECK(differ <= (placed ? ROWS * BITS / 10000 : 0), "placed %d: %d of %d bits differ", placed, differ, ROWS * BITS);
}

int main(void) {
    CHECK(semshare_cuda_version() == SEMSHARE_VERSION, "version %d", semshare_cuda_version());
    if (semshare_cuda_devices() == 0) {
        uint64_t word;
        const float x[2] = {1, 1}, planes[128] = {0};
        CHECK(semshare_cuda_signatures(x, 1, 2, NULL, NULL, planes, 64, &word, 0) == SEMSHARE_ERR_DEVICE, "no device, and no error");
        printf("SKIPPED cuda: no CUDA device here; compiled only\n");
        return report("cuda");
    }
    for (uint64_t seed = 0; seed < 40; seed++) {
        for (int t = 0; t < N_CACHE_TYPES; t++) {
            check_compose(seed * 1000 + (uint64_t) t, cache_types[t]);
        }
    }
    check_signatures(false);
    check_signatures(true);
    return report("cuda");
}
