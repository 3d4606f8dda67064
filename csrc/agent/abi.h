/*
 * What the agent uses of llama.cpp's and ggml's public C interface, declared here
 * because the library is not known when the agent is built: it finds the functions
 * with dlsym in the server that loaded it. Prototypes as of llama.h, ggml.h,
 * ggml-backend.h; they have been the same since September 2025.
 */
#ifndef AGENT_ABI_H
#define AGENT_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct llama_context;
struct llama_model;
struct llama_vocab;
struct ggml_context;
struct ggml_cgraph;

/* The head of a tensor; what follows differs between versions and is not read. */
struct ggml_tensor {
    int32_t type;
    void * buffer;
    int64_t ne[4];
    size_t nb[4];
};

struct ggml_init_params {
    size_t mem_size;
    void * mem_buffer;
    bool no_alloc;
};

typedef void * llama_memory_t;
typedef void * ggml_backend_t;
typedef void * ggml_backend_buffer_type_t;
typedef void * ggml_backend_dev_t;
typedef void * ggml_backend_reg_t;
typedef void * ggml_backend_sched_t;
typedef struct ggml_context ggctx;
typedef struct ggml_tensor ggt;

enum {
    GGML_TYPE_F32 = 0,
    GGML_TYPE_F16 = 1,
    GGML_TYPE_I8 = 24,
    GGML_TYPE_I32 = 26,
    GGML_TYPE_I64 = 27,
    GGML_DEVICE_CPU = 0,
    GGML_ROPE_NORM = 0,
    GGML_ROPE_NEOX = 2,
    GGML_PREC_F32 = 10,
    GGML_N_TASKS_MAX = -1,
};

/* X(return type, name, parameters) */
#define AGENT_ABI(X)                                                                                             \
    X(const struct llama_model *, llama_get_model, (const struct llama_context *))                               \
    X(const struct llama_vocab *, llama_model_get_vocab, (const struct llama_model *))                           \
    X(int32_t, llama_model_meta_val_str, (const struct llama_model *, const char *, char *, size_t))             \
    X(int32_t, llama_model_n_layer, (const struct llama_model *))                                                \
    X(int32_t, llama_model_n_embd, (const struct llama_model *))                                                 \
    X(int32_t, llama_model_n_head, (const struct llama_model *))                                                 \
    X(int32_t, llama_model_n_head_kv, (const struct llama_model *))                                              \
    X(int32_t, llama_n_threads_batch, (struct llama_context *))                                                  \
    X(uint32_t, llama_n_ubatch, (const struct llama_context *))                                                  \
    X(llama_memory_t, llama_get_memory, (const struct llama_context *))                                          \
    X(bool, llama_memory_seq_rm, (llama_memory_t, int32_t, int32_t, int32_t))                                    \
    X(size_t, llama_state_seq_get_size, (struct llama_context *, int32_t))                                       \
    X(size_t, llama_state_seq_get_data, (struct llama_context *, uint8_t *, size_t, int32_t))                    \
    X(size_t, llama_state_seq_set_data, (struct llama_context *, const uint8_t *, size_t, int32_t))              \
    X(void *, ggml_get_data, (const ggt *))                                                                      \
    X(const char *, ggml_get_name, (const ggt *))                                                                \
    X(bool, ggml_backend_buffer_is_host, (void *))                                                               \
    X(void *, ggml_backend_alloc_ctx_tensors, (ggctx *, ggml_backend_t))                                         \
    X(void, ggml_backend_buffer_free, (void *))                                                                  \
    X(void, llama_synchronize, (struct llama_context *))                                                         \
    X(ggctx *, ggml_init, (struct ggml_init_params))                                                             \
    X(void, ggml_free, (ggctx *))                                                                                \
    X(size_t, ggml_tensor_overhead, (void))                                                                      \
    X(size_t, ggml_graph_overhead_custom, (size_t, bool))                                                        \
    X(size_t, ggml_nbytes, (const ggt *))                                                                        \
    X(size_t, ggml_row_size, (int32_t, int64_t))                                                                 \
    X(struct ggml_cgraph *, ggml_new_graph_custom, (ggctx *, size_t, bool))                                      \
    X(void, ggml_build_forward_expand, (struct ggml_cgraph *, ggt *))                                            \
    X(void, ggml_set_input, (ggt *))                                                                             \
    X(void, ggml_set_output, (ggt *))                                                                            \
    X(ggt *, ggml_new_tensor_1d, (ggctx *, int32_t, int64_t))                                                    \
    X(ggt *, ggml_new_tensor_2d, (ggctx *, int32_t, int64_t, int64_t))                                           \
    X(ggt *, ggml_view_3d, (ggctx *, ggt *, int64_t, int64_t, int64_t, size_t, size_t, size_t))                  \
    X(ggt *, ggml_reshape_2d, (ggctx *, ggt *, int64_t, int64_t))                                                \
    X(ggt *, ggml_reshape_3d, (ggctx *, ggt *, int64_t, int64_t, int64_t))                                       \
    X(ggt *, ggml_reshape_4d, (ggctx *, ggt *, int64_t, int64_t, int64_t, int64_t))                              \
    X(ggt *, ggml_pad, (ggctx *, ggt *, int, int, int, int))                                                     \
    X(ggt *, ggml_concat, (ggctx *, ggt *, ggt *, int))                                                          \
    X(ggt *, ggml_permute, (ggctx *, ggt *, int, int, int, int))                                                 \
    X(ggt *, ggml_get_rows, (ggctx *, ggt *, ggt *))                                                             \
    X(ggt *, ggml_set_rows, (ggctx *, ggt *, ggt *, ggt *))                                                      \
    X(ggt *, ggml_cont, (ggctx *, ggt *))                                                                        \
    X(ggt *, ggml_sum_rows, (ggctx *, ggt *))                                                                    \
    X(ggt *, ggml_mul_mat, (ggctx *, ggt *, ggt *))                                                              \
    X(ggt *, ggml_add, (ggctx *, ggt *, ggt *))                                                                  \
    X(ggt *, ggml_mul, (ggctx *, ggt *, ggt *))                                                                  \
    X(ggt *, ggml_swiglu_split, (ggctx *, ggt *, ggt *))                                                         \
    X(ggt *, ggml_rms_norm, (ggctx *, ggt *, float))                                                             \
    X(ggt *, ggml_rope_ext,                                                                                      \
      (ggctx *, ggt *, ggt *, ggt *, int, int, int, float, float, float, float, float, float))                   \
    X(ggt *, ggml_flash_attn_ext, (ggctx *, ggt *, ggt *, ggt *, ggt *, float, float, float))                    \
    X(void, ggml_flash_attn_ext_set_prec, (ggt *, int32_t))                                                      \
    X(ggt *, ggml_soft_max_ext, (ggctx *, ggt *, ggt *, float, float))                                           \
    X(ggml_backend_buffer_type_t, ggml_backend_buffer_get_type, (void *))                                        \
    X(ggml_backend_dev_t, ggml_backend_buft_get_device, (ggml_backend_buffer_type_t))                            \
    X(int32_t, ggml_backend_dev_type, (ggml_backend_dev_t))                                                      \
    X(const char *, ggml_backend_dev_name, (ggml_backend_dev_t))                                                 \
    X(ggml_backend_t, ggml_backend_dev_init, (ggml_backend_dev_t, const char *))                                 \
    X(ggml_backend_reg_t, ggml_backend_dev_backend_reg, (ggml_backend_dev_t))                                    \
    X(void *, ggml_backend_reg_get_proc_address, (ggml_backend_reg_t, const char *))                             \
    X(ggml_backend_t, ggml_backend_init_by_type, (int32_t, const char *))                                        \
    X(ggml_backend_dev_t, ggml_backend_get_device, (ggml_backend_t))                                             \
    X(void, ggml_backend_free, (ggml_backend_t))                                                                 \
    X(void, ggml_backend_tensor_set, (ggt *, const void *, size_t, size_t))                                      \
    X(void, ggml_backend_tensor_memset, (ggt *, uint8_t, size_t, size_t))                                        \
    X(void, ggml_backend_tensor_get, (const ggt *, void *, size_t, size_t))                                      \
    X(ggml_backend_sched_t, ggml_backend_sched_new,                                                              \
      (ggml_backend_t *, ggml_backend_buffer_type_t *, int, size_t, bool, bool))                                 \
    X(void, ggml_backend_sched_free, (ggml_backend_sched_t))                                                     \
    X(void, ggml_backend_sched_reset, (ggml_backend_sched_t))                                                    \
    X(bool, ggml_backend_sched_alloc_graph, (ggml_backend_sched_t, struct ggml_cgraph *))                        \
    X(int32_t, ggml_backend_sched_graph_compute, (ggml_backend_sched_t, struct ggml_cgraph *))

typedef void (*custom_op_fn)(ggt * out, int ith, int nth, void * arg);
typedef size_t (*save_file_fn)(struct llama_context *, const char *, int32_t, const int32_t *, size_t);
typedef size_t (*load_file_fn)(struct llama_context *, const char *, int32_t, int32_t *, size_t, size_t *);
typedef void (*free_context_fn)(struct llama_context *);
typedef int32_t (*tokenize_fn)(const struct llama_vocab *, const char *, int32_t, int32_t *, int32_t, bool, bool);

/* The functions, and the map of tensors (C++, see abi.c). */
struct abi {
#define X(ret, name, args) ret(*name) args;
    AGENT_ABI(X)
#undef X
    const void * (*tensor_map)(const struct llama_model *);
    size_t tensor_map_entry; /* bytes of an entry */
    /* Null where the server has none. */
    ggt * (*ggml_custom_4d)(ggctx *, int32_t type, int64_t, int64_t, int64_t, int64_t, ggt ** args, int n_args, custom_op_fn, int n_tasks, void * arg);
    load_file_fn load_file;  /* the real llama_state_seq_load_file */
    save_file_fn save_file;  /* the real llama_state_seq_save_file */
    free_context_fn free_context; /* the real llama_free */
    tokenize_fn tokenize;    /* the real llama_tokenize */
    const char * missing;    /* a function that was not found, so that recipes cannot be carried out; else null */
};

/* The functions of the module that holds address, or that comes after the agent in the order
 * of symbol search: found once, since it takes milliseconds, and kept. Any of them may be
 * null. Never null itself: without memory it ends the process. */
const struct abi * abi_of(void * address);

#endif
