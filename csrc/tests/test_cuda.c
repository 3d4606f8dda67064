/* The CUDA library against the CPU's. Without a GPU it says that it skips. */
#include "case.h"

#include <math.h>
#include <time.h>

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

static void * device_copy(const void * host, int64_t n) {
    void * at = NULL;
    CHECK(semshare_cuda_alloc(&at, n > 0 ? n : 1, 0) == SEMSHARE_OK, "alloc of %lld", (long long) n);
    CHECK(semshare_cuda_upload(at, host, n, 0) == SEMSHARE_OK, "upload of %lld", (long long) n);
    return at;
}

static void check_home(const void * device, const uint8_t * want, int64_t n, const char * what) {
    uint8_t * got = malloc((size_t) n + 1);
    CHECK(semshare_cuda_download(got, device, n, 0) == SEMSHARE_OK, "download");
    CHECK(memcmp(got, want, (size_t) n) == 0, "%s differ from the CPU's", what);
    free(got);
}

/* All of keys and values on the device. */
static void check_resident(uint64_t seed, uint32_t type) {
    struct test_case c;
    struct semshare_job jobs[LAYERS];
    struct semshare_source sources[LAYERS][MAX_REFS];
    case_init(&c, seed, type);
    case_clear(&c);
    for (int i = 0; i < LAYERS; i++) {
        jobs[i] = c.jobs[i];
        jobs[i].k = device_copy(c.jobs[i].k, c.jobs[i].k_size);
        jobs[i].v = device_copy(c.jobs[i].v, c.jobs[i].v_size);
        jobs[i].sources = sources[i];
        for (int r = 0; r < jobs[i].n_sources; r++) {
            sources[i][r] = c.sources[i][r];
            sources[i][r].k = device_copy(c.sources[i][r].k, c.sources[i][r].k_size);
            sources[i][r].v = device_copy(c.sources[i][r].v, c.sources[i][r].v_size);
        }
    }
    CHECK(semshare_cuda_copy(jobs[0].v, sources[0][0].v, 1, 0) == SEMSHARE_OK && semshare_cuda_copy(NULL, jobs[0].k, 1, 0) == SEMSHARE_ERR_ARGUMENT, "copies");
    check_home(jobs[0].v, c.sources[0][0].v, 1, "bytes copied");
    CHECK(semshare_cuda_upload(jobs[0].v, c.jobs[0].v, c.jobs[0].v_size, 0) == SEMSHARE_OK, "upload");
    CHECK(semshare_cuda_device_of(jobs[0].k) == 0 && semshare_cuda_device_of(c.jobs[0].k) < 0, "whose memory it is");
    CHECK(semshare_compose(c.jobs, LAYERS, c.runs, c.n_runs, &c.rope, 1) == SEMSHARE_OK, "CPU");
    const int32_t status = semshare_cuda_compose_resident(jobs, LAYERS, c.runs, c.n_runs, &c.rope, 0);
    CHECK(status == SEMSHARE_OK, "type %u: status %d", type, status);
    for (int i = 0; i < LAYERS; i++) {
        check_home(jobs[i].k, c.jobs[i].k, c.jobs[i].k_size, "keys composed in place");
        check_home(jobs[i].v, c.jobs[i].v, c.jobs[i].v_size, "values composed in place");
        semshare_cuda_free(jobs[i].k, 0), semshare_cuda_free(jobs[i].v, 0);
        for (int r = 0; r < jobs[i].n_sources; r++) {
            semshare_cuda_free((void *) (uintptr_t) sources[i][r].k, 0), semshare_cuda_free((void *) (uintptr_t) sources[i][r].v, 0);
        }
    }
    case_free(&c);
}

enum { CELLS = 60, WIDTH = 192, HEAD = 64, SOME = 17 };

/* What a pair's first or second element becomes. */
static float turn_element(const float * v, int i, int pos, const struct semshare_rope * rope) {
    const int e = i % HEAD, pairs = rope->dims / 2;
    if (e >= rope->dims) {
        return v[i];
    }
    const int pair = rope->neox ? e % pairs : e / 2, other = rope->neox ? pairs : 1;
    const bool second = rope->neox ? e >= pairs : e % 2 == 1;
    const double angle = (double) pos * (double) rope->freqs[pair];
    const float co = (float) cos(angle), si = (float) sin(angle);
    return second ? v[i - other] * si + v[i] * co : v[i] * co - v[i + other] * si;
}

/* Rows put, shifted and got again. */
static void check_rows(uint32_t type, bool neox) {
    static float x[SOME * WIDTH], got[SOME * WIDTH], want[SOME * WIDTH], vectors[3 * WIDTH], freqs[HEAD / 2];
    uint64_t seed = type + 1;
    int32_t cells[SOME], which[SOME], pos[SOME];
    const int64_t row = type_row(type, WIDTH);
    for (int i = 0; i < SOME * WIDTH; i++) {
        x[i] = random_float(&seed);
    }
    for (int i = 0; i < 3 * WIDTH; i++) {
        vectors[i] = random_float(&seed);
    }
    for (int i = 0; i < HEAD / 2; i++) {
        freqs[i] = 1.0f / (float) (1 + i);
    }
    for (int i = 0; i < SOME; i++) {
        cells[i] = (i * 7 + 3) % CELLS;
        which[i] = i % 3;
        pos[i] = 101 * i;
    }
    const struct semshare_rope rope = {neox, HEAD, HEAD - 8, 0, freqs};
    uint8_t * host = calloc(CELLS, (size_t) row);
    uint8_t * packed = malloc((size_t) row);
    const struct semshare_rows rows = {device_copy(host, CELLS * row), type, WIDTH};
    CHECK(semshare_cuda_put_rows(&rows, cells, SOME, x, 0) == SEMSHARE_OK && semshare_cuda_get_rows(&rows, cells, SOME, got, 0) == SEMSHARE_OK, "put, get");
    for (int i = 0; i < SOME; i++) {
        semshare_quantize(type, x + i * WIDTH, WIDTH, packed, row);
        semshare_dequantize(type, packed, row, want + i * WIDTH, WIDTH);
    }
    CHECK(memcmp(got, want, sizeof got) == 0, "type %u: rows put differ from the CPU's", type);
    for (int turn = 0; turn < 2; turn++) {
        CHECK(semshare_cuda_add_rows(&rows, cells, which, turn ? pos : NULL, SOME, vectors, 3, &rope, 0) == SEMSHARE_OK && semshare_cuda_get_rows(&rows, cells, SOME, got, 0) == SEMSHARE_OK, "add, get");
        double off = 0, all = 0;
        for (int i = 0; i < SOME; i++) {
            float * w = want + i * WIDTH;
            for (int e = 0; e < WIDTH; e++) {
                const float * v = vectors + which[i] * WIDTH;
                w[e] += turn ? turn_element(v, e, pos[i], &rope) : v[e];
            }
            semshare_quantize(type, w, WIDTH, packed, row);
            semshare_dequantize(type, packed, row, w, WIDTH);
        }
        for (int i = 0; i < SOME * WIDTH; i++) {
            off += (double) (got[i] - want[i]) * (double) (got[i] - want[i]);
            all += (double) want[i] * (double) want[i];
        }
        /* The device's sine may differ in the last bit, and a packed number by one step. */
        CHECK(off <= 1e-6 * all, "type %u, turned %d: shifted rows are off by %g of %g", type, turn, off, all);
    }
    which[3] = 3;
    CHECK(semshare_cuda_add_rows(&rows, cells, which, NULL, SOME, vectors, 3, NULL, 0) == SEMSHARE_ERR_RANGE, "a vector that is not there");
    semshare_cuda_free(rows.at, 0);
    free(host), free(packed);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

/* How fast f16 rows of a model of 32 layers, 8 KV heads of 128 elements, are composed. */
static void time_compose(bool resident) {
    enum { LAYERS_TIMED = 32, TOKENS = 5000, ROW = 2048, RUN = 50, TIMES = 5 };
    const int64_t half = (int64_t) TOKENS * ROW, all = 2 * half * LAYERS_TIMED;
    static struct semshare_run runs[TOKENS / RUN];
    struct semshare_job jobs[LAYERS_TIMED];
    struct semshare_source sources[LAYERS_TIMED];
    float freqs[64];
    uint8_t * from = malloc((size_t) all), * to = calloc(1, (size_t) all);
    uint64_t seed = 1;
    for (int64_t i = 0; i < all; i += 2) {
        const uint16_t x = (uint16_t) (0x3000 + (next_random(&seed) & 0x8fff)); /* no infinities */
        memcpy(from + i, &x, sizeof x);
    }
    for (int i = 0; i < 64; i++) {
        freqs[i] = 1.0f / (float) (1 + i);
    }
    for (int i = 0; i < TOKENS / RUN; i++) {
        runs[i] = (struct semshare_run) {.src = i * RUN, .dst = (TOKENS / RUN - 1 - i) * RUN, .len = RUN, .delta = (TOKENS / RUN - 1 - 2 * i) * RUN};
    }
    uint8_t * source = resident ? device_copy(from, all) : from, * target = resident ? device_copy(to, all) : to;
    for (int i = 0; i < LAYERS_TIMED; i++) {
        sources[i] = (struct semshare_source) {.k = source + 2 * i * half, .v = source + (2 * i + 1) * half, .k_size = half, .v_size = half, .cells = TOKENS};
        jobs[i] = (struct semshare_job) {.k = target + 2 * i * half, .v = target + (2 * i + 1) * half, .k_size = half, .v_size = half, .k_row = ROW, .v_row = ROW, .dst_cells = TOKENS, .sources = &sources[i], .n_sources = 1, .k_type = SEMSHARE_TYPE_F16, .v_type = SEMSHARE_TYPE_F16};
    }
    const struct semshare_rope rope = {1, 128, 128, 0, freqs};
    double best = 1e9;
    for (int i = 0; i < TIMES; i++) {
        const double start = now();
        const int32_t status = resident ? semshare_cuda_compose_resident(jobs, LAYERS_TIMED, runs, TOKENS / RUN, &rope, 0) : semshare_cuda_compose(jobs, LAYERS_TIMED, runs, TOKENS / RUN, &rope, 0);
        CHECK(status == SEMSHARE_OK, "status %d", status);
        best = now() - start < best ? now() - start : best;
    }
    printf("cuda: %d tokens of %d layers (%lld MiB) composed %s: %.2f ms, %.0f GB/s read and written\n", TOKENS, LAYERS_TIMED, (long long) (all >> 20), resident ? "in the device's memory" : "from the host and back", best * 1e3, 2 * (double) all / best / 1e9);
    if (resident) {
        semshare_cuda_free(source, 0), semshare_cuda_free(target, 0);
    }
    free(from), free(to);
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

/* More rows than a device has memory for: the call after it must not find that. */
static void check_failure_is_forgotten(void) {
    static float row[DIM], planes[BITS * DIM];
    uint64_t out;
    CHECK(semshare_cuda_signatures(row, INT32_MAX, DIM, NULL, NULL, planes, BITS, &out, 0) == SEMSHARE_ERR_DEVICE, "no device has so much memory");
    check_signatures(false);
}

/* Of a device that is not there it says why. */
static void check_usable(void) {
    const char * why = NULL;
    if (semshare_cuda_devices() > 0) {
        CHECK(semshare_cuda_usable(&why, 0) == SEMSHARE_OK, "device 0 cannot be used: %s", why);
    }
    CHECK(semshare_cuda_usable(&why, semshare_cuda_devices()) == SEMSHARE_ERR_DEVICE && why != NULL && strcmp(why, "no error") != 0, "no such device, and why is %s", why == NULL ? "missing" : why);
}

int main(void) {
    check_usable();
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
            check_resident(seed * 1000 + (uint64_t) t, cache_types[t]);
        }
    }
    for (int t = 0; t < N_CACHE_TYPES; t++) {
        check_rows(cache_types[t], false);
        check_rows(cache_types[t], true);
    }
    check_signatures(false);
    check_signatures(true);
    check_failure_is_forgotten();
    time_compose(false);
    time_compose(true);
    return report("cuda");
}
