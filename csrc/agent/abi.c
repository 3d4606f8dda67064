/* Finds llama.cpp's functions. Where libllama is a shared library they come next in
 * the order of search. Where it sits in an extension that was opened RTLD_LOCAL there
 * is no next: the module that called us has them. */
#include "abi.h"

#include <dlfcn.h>

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

void * abi_real(void * address, const char * name) { return find(module_of(address), name); }

bool abi_find(struct abi * abi, void * address, const char ** missing) {
    void * module = module_of(address);
    bool found = true;
    *(void **) &abi->load_file = find(module, "llama_state_seq_load_file");
    *(void **) &abi->save_file = find(module, "llama_state_seq_save_file");
#define X(ret, name, args)                                        \
    if ((*(void **) &abi->name = find(module, #name)) == NULL) {  \
        *missing = #name;                                         \
        found = false;                                            \
    }
    AGENT_ABI(X)
#undef X
    *(void **) &abi->ggml_custom_4d = find(module, "ggml_custom_4d");
    if (!find_tensor_map(abi, module)) {
        *missing = "llama_internal_get_tensor_map";
        found = false;
    }
    return found && abi->load_file != NULL;
}
