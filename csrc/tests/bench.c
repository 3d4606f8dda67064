/* How fast composing is beside memcpy of the same bytes on the same threads, for each
 * instruction set and type. Keys are moved, values copied, in runs as plans have them;
 * the medians of several rounds are compared. */
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

/* As work for threads: one layer's keys or values. */
static void copy_half(void * arg, int64_t i) {
    const struct semshare_job * j = (const struct semshare_job *) arg + i / 2;
    if (i % 2 == 0) {
        memcpy(j->k, j->sources->k, (size_t) j->k_size);
    } else {
        memcpy(j->v, j->sources->v, (size_t) j->v_size);
    }
}

static void bench(const char * cpu, uint32_t type, const char * name, bool neox, int32_t threads) {
    static float freqs[HEAD_DIM / 2];
    static struct semshare_job jobs[BENCH_LAYERS];
    static struct semshare_source sources[BENCH_LAYERS];
    static struct semshare_run runs[CELLS / RUN + 1];
    int32_t bytes, n_runs = 0;
    const int32_t elems = type_block(type, &bytes);
    const int64_t row = HEADS * HEAD_DIM / elems * bytes;
    for (int i = 0; i < HEAD_DIM / 2; i++) {
        freqs[i] = 1.0f / (float) (1 + i);
    }
    for (int at = 0; at + RUN <= CELLS; at += RUN) {
        runs[n_runs++] = (struct semshare_run) {0, CELLS - at - RUN, at, RUN, at % 7 + 1};
    }
    for (int l = 0; l < BENCH_LAYERS; l++) {
        uint8_t * k = calloc((size_t) (row * CELLS), 1), * v = calloc((size_t) (row * CELLS), 1);
        sources[l] = (struct semshare_source) {k, v, row * CELLS, row * CELLS, CELLS};
        jobs[l] = (struct semshare_job) {.k = malloc((size_t) (row * CELLS)), .v = malloc((size_t) (row * CELLS)), .k_size = row * CELLS, .v_size = row * CELLS,
                                         .k_row = row, .v_row = row, .sources = &sources[l], .n_sources = 1, .k_type = type};
        memset(k, 0x11, (size_t) (row * CELLS));
        memset(v, 0x22, (size_t) (row * CELLS));
    }
    const struct semshare_rope rope = {neox, HEAD_DIM, HEAD_DIM, 0, freqs};
    double copying[ROUNDS], composing[ROUNDS];
    semshare_use_cpu(cpu);
    for (int r = -2; r < ROUNDS; r++) {
        const double start = now();
        parallel_for(2 * BENCH_LAYERS, threads, copy_half, jobs);
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
    printf("%-7s %-5s %-4s %d threads: %6.2f GB/s, memcpy %6.2f GB/s, ratio %.2f\n", cpu, name, neox ? "neox" : "norm", threads, size / compose / 1e9, size / copy / 1e9, copy / compose);
    for (int l = 0; l < BENCH_LAYERS; l++) {
        free((void *) (uintptr_t) sources[l].k), free((void *) (uintptr_t) sources[l].v), free(jobs[l].k), free(jobs[l].v);
    }
}

int main(void) {
    for (int c = 0; c < N_CPUS; c++) {
        if (semshare_use_cpu(cpus[c]) != SEMSHARE_OK) {
            continue;
        }
        for (int32_t threads = 1; threads <= 2; threads++) {
            bench(cpus[c], SEMSHARE_TYPE_F16, "f16", false, threads);
            bench(cpus[c], SEMSHARE_TYPE_F16, "f16", true, threads);
        }
        bench(cpus[c], SEMSHARE_TYPE_BF16, "bf16", true, 1);
        bench(cpus[c], SEMSHARE_TYPE_F32, "f32", true, 1);
        bench(cpus[c], SEMSHARE_TYPE_Q8_0, "q8_0", true, 1);
        bench(cpus[c], SEMSHARE_TYPE_Q4_0, "q4_0", true, 1);
    }
    return failures;
}
