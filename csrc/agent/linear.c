/*
 * On a CPU, ggml takes a prompt's tokens through packed weights at a price a token that
 * hardly falls with their number, and that a kernel of our own undercuts severalfold
 * (product.h). ggml calls it on its threads, by its custom operations: one packs the rows,
 * and may serve several products; one multiplies. All else stays with ggml: weights on a
 * device, of other types, repacked for another kernel of ggml's, or a machine without ours.
 */
#include "linear.h"

#include "product.h"

struct job {
    const struct engine * e;
    const struct product * product;
    enum product_packing packing;
    ggt * w, * x;
};

static void run_pack(ggt * packed, int ith, int nth, void * of) {
    const struct job * job = of;
    const int64_t width = job->x->ne[0];
    uint8_t * to = job->e->abi->ggml_get_data(packed);
    const uint8_t * from = job->e->abi->ggml_get_data(job->x);
    for (int64_t i = ith; i < job->x->ne[1]; i += nth) {
        job->product->pack(job->packing, (const float *) (const void *) (from + (size_t) i * job->x->nb[1]), width, to + (size_t) i * product_row_size(width));
    }
}

/* Threads share the rows of the weights. */
static void run_multiply(ggt * out, int ith, int nth, void * of) {
    const struct job * job = of;
    const struct product_weights w = {(uint32_t) job->w->type, job->e->abi->ggml_get_data(job->w), job->w->ne[1], job->w->ne[0]};
    const int64_t pieces = w.rows / PRODUCT_ROWS, first = pieces * ith / nth, end = pieces * (ith + 1) / nth;
    job->product->multiply(&w, job->e->abi->ggml_get_data(job->x), job->x->ne[1], first * PRODUCT_ROWS, end * PRODUCT_ROWS, job->e->abi->ggml_get_data(out), engine_scratch(job->e, ith));
}

/* The one that is asked for next is often of the same rows. */
static ggt * packed(struct graph * g, const struct product * product, enum product_packing packing, ggt * x) {
    if (g->packed_from != x || g->packing != (int32_t) packing) {
        g->packed_from = x;
        g->packing = (int32_t) packing;
        const struct job job = {g->e, product, packing, NULL, x};
        g->packed = graph_custom(g, GGML_TYPE_I8, (int64_t) product_row_size(x->ne[0]), x->ne[1], &x, 1, run_pack, &job, sizeof job);
    }
    return g->packed;
}

/* Null where ggml's own is to be taken. */
static const struct product * product_of(const struct engine * e, const ggt * w, enum product_packing * packing) {
    const bool as_in_file = w->ne[2] * w->ne[3] == 1 && e->abi->ggml_backend_buffer_is_host(w->buffer);
    return e->own_kernels && as_in_file ? product_for((uint32_t) w->type, w->ne[1], w->ne[0], packing) : NULL;
}

const char * linear_kernel(const struct engine * e) {
    enum product_packing packing;
    const struct product * product = product_of(e, e->model->layers[0].up, &packing);
    return product == NULL ? "ggml" : product->name;
}

static ggt * times(struct graph * g, ggt * w, ggt * x) {
    enum product_packing packing;
    const struct product * product = x->ne[2] * x->ne[3] == 1 ? product_of(g->e, w, &packing) : NULL;
    if (product == NULL) {
        return g->abi->ggml_mul_mat(g->ctx, w, x);
    }
    ggt * args[] = {w, packed(g, product, packing, x)};
    const struct job job = {g->e, product, packing, w, args[1]};
    return graph_custom(g, GGML_TYPE_F32, w->ne[1], x->ne[1], args, 2, run_multiply, &job, sizeof job);
}

ggt * linear(struct graph * g, ggt * w, ggt * bias, ggt * x) {
    ggt * y = times(g, w, x);
    return bias == NULL ? y : g->abi->ggml_add(g->ctx, y, bias);
}
