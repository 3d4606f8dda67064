#include "engine.h"

#include "attend.h"
#include "internal.h"
#include "layer.h"
#include "product.h"

#include <stdlib.h>
#include <string.h>

/* What an engine computes on, kept from one to the next: on a GPU, getting it takes longer
 * than a recipe. It belongs to no model. */
static struct {
    ggml_backend_dev_t devices[ENGINE_MAX_BACKENDS];
    ggml_backend_t backends[ENGINE_MAX_BACKENDS];
    int32_t n;
    ggml_backend_sched_t sched;
    void (*set_threads)(ggml_backend_t, int);
} kept;

void engine_forget(const struct abi * abi) {
    if (kept.sched != NULL) {
        abi->ggml_backend_sched_free(kept.sched);
    }
    for (int32_t i = 0; i < kept.n; i++) {
        abi->ggml_backend_free(kept.backends[i]);
    }
    memset(&kept, 0, sizeof kept);
}

static bool add_device(ggml_backend_dev_t * devices, int32_t * n, ggml_backend_dev_t dev) {
    for (int32_t i = 0; i < *n; i++) {
        if (devices[i] == dev) {
            return true;
        }
    }
    if (*n == ENGINE_MAX_BACKENDS - 1) {
        return false;
    }
    devices[(*n)++] = dev;
    return true;
}

/* The device that holds a weight; null for the CPU. */
static ggml_backend_dev_t device_of(const struct abi * abi, const ggt * t) {
    ggml_backend_dev_t dev = abi->ggml_backend_buft_get_device(abi->ggml_backend_buffer_get_type(t->buffer));
    return dev == NULL || abi->ggml_backend_dev_type(dev) == GGML_DEVICE_CPU ? NULL : dev;
}

/* The scheduler wants the CPU last. */
static bool open_devices(struct engine * e, const ggml_backend_dev_t * devices, int32_t n, struct error * err) {
    const struct abi * abi = e->abi;
    for (; kept.n < n; kept.n++) {
        kept.devices[kept.n] = devices[kept.n];
        kept.backends[kept.n] = abi->ggml_backend_dev_init(devices[kept.n], NULL);
        if (kept.backends[kept.n] == NULL) {
            return fail(err, "device %s cannot be used", abi->ggml_backend_dev_name(devices[kept.n]));
        }
    }
    ggml_backend_t cpu = abi->ggml_backend_init_by_type(GGML_DEVICE_CPU, NULL);
    if (cpu == NULL) {
        return fail(err, "the server has no CPU backend");
    }
    kept.backends[kept.n++] = cpu;
    *(void **) &kept.set_threads = abi->ggml_backend_reg_get_proc_address(abi->ggml_backend_dev_backend_reg(abi->ggml_backend_get_device(cpu)), "ggml_backend_set_n_threads");
    kept.sched = abi->ggml_backend_sched_new(kept.backends, NULL, kept.n, GRAPH_MAX_NODES, false, true);
    return kept.sched != NULL || fail(err, "out of memory");
}

/* Adds the devices that hold any of n weights, some of which may be null. */
static bool add_devices(const struct engine * e, ggml_backend_dev_t * devices, int32_t * n_devices, ggt * const * weights, size_t n, struct error * err) {
    for (size_t i = 0; i < n; i++) {
        ggml_backend_dev_t dev = weights[i] == NULL ? NULL : device_of(e->abi, weights[i]);
        if (dev != NULL && !add_device(devices, n_devices, dev)) {
            return fail(err, "the model lies on more than %d devices", ENGINE_MAX_BACKENDS - 1);
        }
    }
    return true;
}

/* Those of the layers come first, in order. The embeddings lie in host memory (model.c). */
static bool find_devices(const struct engine * e, ggml_backend_dev_t * devices, int32_t * n, struct error * err) {
    const struct model * m = e->model;
    for (int32_t i = 0; i < m->n_layers; i++) {
        if (!add_devices(e, devices, n, (ggt * const *) &m->layers[i], sizeof m->layers[i] / sizeof(ggt *), err)) {
            return false;
        }
    }
    ggt * const outside[] = {m->output_norm, m->output, m->rope_factors};
    return add_devices(e, devices, n, outside, sizeof outside / sizeof *outside, err);
}

static bool take_devices(struct engine * e, int32_t n_threads, struct error * err) {
    ggml_backend_dev_t devices[ENGINE_MAX_BACKENDS];
    int32_t n = 0;
    if (!find_devices(e, devices, &n, err)) {
        return false;
    }
    if (kept.n != n + 1 || memcmp(kept.devices, devices, (size_t) n * sizeof *devices) != 0) {
        engine_forget(e->abi);
        if (!open_devices(e, devices, n, err)) {
            engine_forget(e->abi);
            return false;
        }
    }
    e->sched = kept.sched;
    e->on_cpu = n == 0;
    e->n_threads = n_threads > 0 ? n_threads : 1;
    if (kept.set_threads != NULL) {
        kept.set_threads(kept.backends[kept.n - 1], e->n_threads);
    }
    return true;
}

/* Ours need to know how many threads will call them. */
static bool choose_kernels(struct engine * e, struct error * err) {
    const char * set = getenv("SEMSHARE_AGENT_KERNELS");
    const bool any = set == NULL || *set == 0, ggml = !any && strcmp(set, "ggml") == 0;
    if (!any && !ggml && semshare_use_cpu(set) != SEMSHARE_OK) {
        return fail(err, "SEMSHARE_AGENT_KERNELS is %s: expected ggml or, where the processor has them, avx2 or avx512", set);
    }
    const struct attend * attend = attend_any();
    const struct product * product = product_any();
    const size_t a = attend != NULL ? attend->scratch : 0, b = product != NULL ? product->scratch : 0;
    e->scratch_size = ((a > b ? a : b) + 63) / 64 * 64;
    e->own_kernels = e->on_cpu && e->scratch_size > 0 && kept.set_threads != NULL && e->abi->ggml_custom_4d != NULL && !ggml;
    return !e->own_kernels || (e->scratch = aligned_alloc(64, e->scratch_size * (size_t) e->n_threads)) != NULL || fail(err, "out of memory");
}

bool engine_init(struct engine * e, const struct abi * abi, const struct model * model, const struct rope * rope, int32_t n_threads, struct error * err) {
    memset(e, 0, sizeof *e);
    e->abi = abi;
    e->model = model;
    e->rope = *rope;
    if (!take_devices(e, n_threads, err)) {
        return false;
    }
    e->arena_size = abi->ggml_tensor_overhead() * GRAPH_MAX_NODES + abi->ggml_graph_overhead_custom(GRAPH_MAX_NODES, false);
    e->arena = malloc(e->arena_size);
    e->jobs = malloc(GRAPH_MAX_NODES * GRAPH_JOB);
    return ((e->arena != NULL && e->jobs != NULL) || fail(err, "out of memory")) && choose_kernels(e, err);
}

static void release(struct engine * e) {
    if (e->buffer != NULL) {
        e->abi->ggml_backend_buffer_free(e->buffer);
    }
    if (e->holder != NULL) {
        e->abi->ggml_free(e->holder);
    }
    e->buffer = NULL;
    e->holder = NULL;
    e->capacity = 0;
}

/* On the first device, where the model begins. */
bool engine_hold(struct engine * e, int64_t n, struct error * err) {
    if (n <= e->capacity) {
        return true;
    }
    release(e);
    e->holder = e->abi->ggml_init((struct ggml_init_params) {2 * e->abi->ggml_tensor_overhead(), NULL, true});
    if (e->holder != NULL) {
        e->x = e->abi->ggml_new_tensor_2d(e->holder, GGML_TYPE_F32, e->model->n_embd, n);
        e->buffer = e->abi->ggml_backend_alloc_ctx_tensors(e->holder, kept.backends[0]);
    }
    e->capacity = e->buffer == NULL ? 0 : n;
    return e->buffer != NULL || fail(err, "no memory for %lld tokens on their way through the layers", (long long) n);
}

void engine_free(struct engine * e) {
    release(e);
    layer_free_grouping(e);
    if (e->failed) {
        engine_forget(e->abi);
    }
    free(e->arena);
    free(e->jobs);
    free(e->scratch);
    memset(e, 0, sizeof *e);
}
