/* Finds llama.cpp's functions. Where libllama is a shared library they come next in
 * the order of search. Where it sits in an extension that was opened RTLD_LOCAL there
 * is no next: the module that called us has them. */
#include "abi.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char anchor;

/* The module that an address belongs to, already loaded; null where it is none. */
static void * module_of(void * address) {
    Dl_info info;
    if (dladdr(address, &info) == 0 || info.dli_fname == NULL) {
        return NULL;
    }
    return dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
}

/* Whether a symbol lies in the agent itself, which is not what is looked for. */
static bool is_ours(void * symbol) {
    Dl_info there, here;
    return dladdr(symbol, &there) != 0 && dladdr(&anchor, &here) != 0 && there.dli_fbase == here.dli_fbase;
}

static void * find(void * module, const char * name) {
    void * symbol = dlsym(RTLD_NEXT, name);
    if (symbol == NULL && module != NULL) {
        symbol = dlsym(module, name);
    }
    return symbol == NULL || is_ours(symbol) ? NULL : symbol;
}

/* llama_internal_get_tensor_map returns a std::vector<std::pair<std::string,
 * ggml_tensor *>>. libstdc++ has two kinds of strings; the symbol's name tells which:
 * the new one takes 32 bytes, the old one is a pointer. */
static bool find_tensor_map(struct abi * abi, void * module) {
    void * f = find(module, "_Z29llama_internal_get_tensor_mapB5cxx11PK11llama_model");
    abi->tensor_map_entry = 40;
    if (f == NULL && find(module, "_ZNSsC1ERKSs") != NULL) { /* not libc++, whose strings differ */
        f = find(module, "_Z29llama_internal_get_tensor_mapPK11llama_model");
        abi->tensor_map_entry = 16;
    }
    *(void **) &abi->tensor_map = f;
    return f != NULL;
}

/* ---- what was found, kept ---- */

static void * required(void * symbol, const char * name, const char ** missing) {
    if (symbol == NULL) {
        *missing = name;
    }
    return symbol;
}

static void find_all(struct abi * abi, void * module) {
    memset(abi, 0, sizeof *abi);
    *(void **) &abi->load_file = required(find(module, "llama_state_seq_load_file"), "llama_state_seq_load_file", &abi->missing);
    *(void **) &abi->save_file = find(module, "llama_state_seq_save_file");
    *(void **) &abi->free_context = find(module, "llama_free");
    *(void **) &abi->tokenize = find(module, "llama_tokenize");
#define X(ret, name, args) *(void **) &abi->name = required(find(module, #name), #name, &abi->missing);
    AGENT_ABI(X)
#undef X
    *(void **) &abi->ggml_custom_4d = find(module, "ggml_custom_4d");
    if (!find_tensor_map(abi, module)) {
        abi->missing = "llama_internal_get_tensor_map";
    }
}

/* Modules stay loaded: module_of opened them once more. */
struct found {
    void * module;
    struct abi abi;
    struct found * next;
};

/* Where one of the functions is called that the agent stands in for. There are few such
 * places, and they come by with every token. */
struct caller {
    void * address;
    const struct abi * abi;
    struct caller * next;
};

static pthread_mutex_t finding = PTHREAD_MUTEX_INITIALIZER;
static struct found * modules; /* of who holds the lock */
static _Atomic(struct caller *) callers;

static void * obtain(size_t size) {
    void * p = malloc(size);
    if (p == NULL) {
        fprintf(stderr, "semshare-agent: out of memory\n");
        abort();
    }
    return p;
}

static const struct abi * abi_in(void * module) {
    for (struct found * f = modules; f != NULL; f = f->next) {
        if (f->module == module) {
            return &f->abi;
        }
    }
    struct found * f = obtain(sizeof *f);
    find_all(&f->abi, module);
    f->module = module;
    f->next = modules;
    modules = f;
    return &f->abi;
}

static const struct abi * known(void * address) {
    for (struct caller * c = atomic_load_explicit(&callers, memory_order_acquire); c != NULL; c = c->next) {
        if (c->address == address) {
            return c->abi;
        }
    }
    return NULL;
}

const struct abi * abi_of(void * address) {
    const struct abi * abi = known(address);
    if (abi != NULL) {
        return abi;
    }
    pthread_mutex_lock(&finding);
    abi = known(address);
    if (abi == NULL) {
        struct caller * c = obtain(sizeof *c);
        *c = (struct caller) {address, abi_in(module_of(address)), atomic_load(&callers)};
        abi = c->abi;
        atomic_store_explicit(&callers, c, memory_order_release);
    }
    pthread_mutex_unlock(&finding);
    return abi;
}
