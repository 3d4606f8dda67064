/*
 * A program linked with a shared libllama, as llama-server is in llama.cpp's own
 * releases: the CPU backend is a library of its own that is opened at run time.
 *
 *   host LIBRARIES MODEL TOKENS
 *
 * LIBRARIES is the folder of the backends, TOKENS the context of each of two sequences.
 * It reads commands from standard input and answers each with one line:
 *
 *   compute SEQ N ID...     empties the sequence and computes N tokens   -> ok
 *   save SEQ FILE N ID...   saves the sequence, with its tokens          -> ok
 *   restore SEQ FILE        restores it                                  -> ok N
 *
 * What fails is answered with "failed", and why. The declarations are those of llama.h;
 * parameters are passed on as the library gives them, but for the first four of a
 * context's.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEQUENCES = 2, MAX_TOKENS = 1 << 16, PATH = 4096 };

/* Larger than they are: by value both travel in memory. */
struct llama_model_params { uint64_t opaque[64]; };
struct llama_context_params {
    uint32_t n_ctx, n_batch, n_ubatch, n_seq_max;
    uint64_t opaque[64];
};
struct llama_batch {
    int32_t n_tokens;
    int32_t * token;
    float * embd;
    int32_t * pos;
    int32_t * n_seq_id;
    int32_t ** seq_id;
    int8_t * logits;
};

void ggml_backend_load_all_from_path(const char * dir);
struct llama_model_params llama_model_default_params(void);
struct llama_context_params llama_context_default_params(void);
void * llama_model_load_from_file(const char * path, struct llama_model_params params);
void * llama_init_from_model(void * model, struct llama_context_params params);
void * llama_get_memory(const void * ctx);
bool llama_memory_seq_rm(void * memory, int32_t seq, int32_t from, int32_t to);
struct llama_batch llama_batch_init(int32_t n, int32_t embd, int32_t n_seq_max);
int32_t llama_decode(void * ctx, struct llama_batch batch);
size_t llama_state_seq_save_file(void * ctx, const char * path, int32_t seq, const int32_t * tokens, size_t n);
size_t llama_state_seq_load_file(void * ctx, const char * path, int32_t seq, int32_t * tokens, size_t capacity, size_t * n);

static int32_t tokens[MAX_TOKENS];

static bool read_tokens(int32_t * n) {
    bool ok = scanf("%d", n) == 1 && *n > 0 && *n <= MAX_TOKENS;
    for (int32_t i = 0; ok && i < *n; i++) {
        ok = scanf("%d", &tokens[i]) == 1;
    }
    return ok;
}

static const char * compute(void * ctx, struct llama_batch batch, int32_t n_batch, int32_t seq) {
    int32_t n;
    if (!read_tokens(&n)) {
        return "failed: no tokens";
    }
    llama_memory_seq_rm(llama_get_memory(ctx), seq, -1, -1);
    for (int32_t at = 0; at < n; at += batch.n_tokens) {
        batch.n_tokens = n - at < n_batch ? n - at : n_batch;
        for (int32_t i = 0; i < batch.n_tokens; i++) {
            batch.token[i] = tokens[at + i];
            batch.pos[i] = at + i;
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = seq;
            batch.logits[i] = at + i == n - 1;
        }
        if (llama_decode(ctx, batch) != 0) {
            return "failed: llama_decode";
        }
    }
    return "ok";
}

static const char * save(void * ctx, int32_t seq) {
    char path[PATH];
    int32_t n;
    if (scanf("%4095s", path) != 1 || !read_tokens(&n)) {
        return "failed: no file or no tokens";
    }
    return llama_state_seq_save_file(ctx, path, seq, tokens, (size_t) n) > 0 ? "ok" : "failed: llama_state_seq_save_file";
}

static const char * restore(void * ctx, int32_t seq) {
    static char answer[32];
    char path[PATH];
    size_t n = 0;
    if (scanf("%4095s", path) != 1) {
        return "failed: no file";
    }
    if (llama_state_seq_load_file(ctx, path, seq, tokens, MAX_TOKENS, &n) == 0) {
        return "failed: llama_state_seq_load_file";
    }
    snprintf(answer, sizeof answer, "ok %zu", n);
    return answer;
}

static int serve(void * ctx, int32_t n_batch) {
    const struct llama_batch batch = llama_batch_init(n_batch, 0, 1);
    char command[16];
    int32_t seq;
    while (scanf("%15s %d", command, &seq) == 2) {
        const char * answer = "failed: unknown command";
        if (seq < 0 || seq >= SEQUENCES) {
            answer = "failed: no such sequence";
        } else if (strcmp(command, "compute") == 0) {
            answer = compute(ctx, batch, n_batch, seq);
        } else if (strcmp(command, "save") == 0) {
            answer = save(ctx, seq);
        } else if (strcmp(command, "restore") == 0) {
            answer = restore(ctx, seq);
        }
        puts(answer);
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char ** argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: host LIBRARIES MODEL TOKENS\n");
        return 2;
    }
    ggml_backend_load_all_from_path(argv[1]);
    void * model = llama_model_load_from_file(argv[2], llama_model_default_params());
    if (model == NULL) {
        fprintf(stderr, "host: cannot load %s\n", argv[2]);
        return 1;
    }
    struct llama_context_params params = llama_context_default_params();
    if (params.n_ctx != 512 || params.n_seq_max != 1) {
        fprintf(stderr, "host: a context has other parameters than expected: %u tokens, %u sequences\n", params.n_ctx, params.n_seq_max);
        return 1;
    }
    params.n_ctx = (uint32_t) atoi(argv[3]) * SEQUENCES;
    params.n_seq_max = SEQUENCES;
    void * ctx = llama_init_from_model(model, params);
    return ctx == NULL ? 1 : serve(ctx, (int32_t) params.n_batch);
}
