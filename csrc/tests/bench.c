/* How fast composing is beside memcpy of the target's bytes on the same threads, for each
 * instruction set and type. Keys are moved, values copied (or both converted, from a
 * source of another type), in runs as plans have them; the medians of several rounds are
 * compared. Packed caches of servers are Hadamard-turned, so theirs are. */
#include "check.h"

#include <time.h>

enum { BENCH_LAYERS = 24, CELLS = 2500, HEADS = 4, HEAD_DIM = 64, RUN = 40, ROUNDS = 15, BYTES_MAX = 4 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

static int compare_doubles(const void * a, const void * b) {
    const double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

static double median(double * x, int n) {
    qsort(x, (size_t) n, sizeof *x, compare_doubles);
    return x[n / 2];
}

/* One layer's keys and values, to be copied plainly. */
struct copy {
    uint8_t * to[2], * from[2];
    int64_t size;
};

/* As work for threads: one layer's keys or values. */
static void copy_half(void * arg, int64_t i) {
    const struct copy * c = (const struct copy *) arg + i / 2;
    memcpy(c->to[i % 2], c->from[i % 2], (size_t) c->size);
}

/* CELLS rows of the type. */
static uint8_t * random_source(uint32_t type, int64_t row) {
    uint64_t seed = type;
    float x[HEADS * HEAD_DIM];
    uint8_t * out = malloc((size_t) (row * CELLS));
    for (int64_t r = 0; r < CELLS; r++) {
        for (int i = 0; i < HEADS * HEAD_DIM; i++) {
            x[i] = random_float(&seed);
        }
        semshare_quantize(type, x, HEADS * HEAD_DIM, out + r * row, row);
    }
    return out;
}

static void bench(const char * cpu, uint32_t type, uint32_t from, const char * name, int32_t rot, bool neox, int32_t threads) {
    static float freqs[HEAD_DIM / 2];
    static struct semshare_job jobs[BENCH_LAYERS];
    static struct semshare_source sources[BENCH_LAYERS];
    static struct copy copies[BENCH_LAYERS];
    static struct semshare_run runs[CELLS / RUN + 1];
    int32_t bytes, n_runs = 0;
    const int32_t elems = type_block(type, &bytes);
    const int64_t row = HEADS * HEAD_DIM / elems * bytes;
    int32_t from_bytes;
    const int32_t from_elems = type_block(from, &from_bytes);
    const int64_t from_row = HEADS * HEAD_DIM / from_elems * from_bytes;
    for (int i = 0; i < HEAD_DIM / 2; i++) {
        freqs[i] = 1.0f / (float) (1 + i);
    }
    for (int at = 0; at + RUN <= CELLS; at += RUN) {
        runs[n_runs++] = (struct semshare_run) {0, CELLS - at - RUN, at, RUN, at % 7 + 1};
    }
    for (int l = 0; l < BENCH_LAYERS; l++) {
        uint8_t * k = random_source(from, from_row), * v = random_source(from, from_row);
        sources[l] = (struct semshare_source) {.k = k, .v = v, .k_size = from_row * CELLS, .v_size = from_row * CELLS, .cells = CELLS,
                                               .retyped = from != type, .k_type = from, .v_type = from};
        jobs[l] = (struct semshare_job) {.k = malloc((size_t) (row * CELLS)), .v = malloc((size_t) (row * CELLS)), .k_size = row * CELLS, .v_size = row * CELLS,
                                         .k_row = row, .v_row = row, .sources = &sources[l], .n_sources = 1, .k_type = type, .v_type = type, .k_rot = rot};
        copies[l] = (struct copy) {{jobs[l].k, jobs[l].v}, {calloc((size_t) (row * CELLS), 1), calloc((size_t) (row * CELLS), 1)}, row * CELLS};
        memset(copies[l].from[0], 0x11, (size_t) (row * CELLS));
        memset(copies[l].from[1], 0x22, (size_t) (row * CELLS));
    }
    const struct semshare_rope rope = {neox, HEAD_DIM, HEAD_DIM, 0, freqs};
    double copying[ROUNDS], composing[ROUNDS];
    semshare_use_cpu(cpu);
    for (int r = -2; r < ROUNDS; r++) {
        const double start = now();
        parallel_for(2 * BENCH_LAYERS, threads, copy_half, copies);
        const double middle = now();
        const int32_t status = semshare_compose(jobs, BENCH_LAYERS, runs, n_runs, &rope, threads);
        const double end = now();
        CHECK(status == SEMSHARE_OK, "status %d", status);
        if (r >= 0) {
            copying[r] = middle - start;
            composing[r] = end - middle;
        }
    }
    const double copy = median(copying, ROUNDS), compose = median(composing, ROUNDS), size = 2.0 * BENCH_LAYERS * CELLS * (double) row;
    printf("%-7s %-12s %-4s %-4s %d threads: %6.2f GB/s, memcpy %6.2f GB/s, ratio %.2f\n", cpu, name, rot > 0 ? "had." : "", neox ? "neox" : "norm", threads, size / compose / 1e9, size / copy / 1e9, copy / compose);
    for (int l = 0; l < BENCH_LAYERS; l++) {
        free((void *) (uintptr_t) sources[l].k), free((void *) (uintptr_t) sources[l].v), free(jobs[l].k), free(jobs[l].v), free(copies[l].from[0]), free(copies[l].from[1]);
    }
}

static const struct {
    uint32_t type;
    const char * name;
} packed[] = {
    {SEMSHARE_TYPE_Q8_0, "q8_0"}, {SEMSHARE_TYPE_Q4_0, "q4_0"}, {SEMSHARE_TYPE_Q4_1, "q4_1"},
    {SEMSHARE_TYPE_Q5_0, "q5_0"}, {SEMSHARE_TYPE_Q5_1, "q5_1"}, {SEMSHARE_TYPE_IQ4_NL, "iq4_nl"},
};

int main(void) {
    for (int c = 0; c < N_CPUS; c++) {
        if (semshare_use_cpu(cpus[c]) != SEMSHARE_OK) {
            continue;
        }
        for (int32_t threads = 1; threads <= 2; threads++) {
            bench(cpus[c], SEMSHARE_TYPE_F16, SEMSHARE_TYPE_F16, "f16", 0, false, threads);
            bench(cpus[c], SEMSHARE_TYPE_F16, SEMSHARE_TYPE_F16, "f16", 0, true, threads);
            bench(cpus[c], SEMSHARE_TYPE_F16, SEMSHARE_TYPE_Q8_0, "q8_0 to f16", 0, false, threads);
            bench(cpus[c], SEMSHARE_TYPE_F16, SEMSHARE_TYPE_Q8_0, "q8_0 to f16", 0, true, threads);
        }
        bench(cpus[c], SEMSHARE_TYPE_Q8_0, SEMSHARE_TYPE_F16, "f16 to q8_0", 0, true, 1);
        bench(cpus[c], SEMSHARE_TYPE_BF16, SEMSHARE_TYPE_BF16, "bf16", 0, true, 1);
        bench(cpus[c], SEMSHARE_TYPE_F32, SEMSHARE_TYPE_F32, "f32", 0, true, 1);
        for (size_t t = 0; t < sizeof packed / sizeof packed[0]; t++) {
            bench(cpus[c], packed[t].type, packed[t].type, packed[t].name, 0, true, 1);
            bench(cpus[c], packed[t].type, packed[t].type, packed[t].name, HEAD_DIM, true, 1);
        }
    }
    return failures;
}
