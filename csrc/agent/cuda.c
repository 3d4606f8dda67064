#include "cuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static const char anchor;

/* The path of the library: that of the agent, with another name. */
static bool beside(char * path, size_t size) {
    Dl_info here;
    if (dladdr(&anchor, &here) == 0 || here.dli_fname == NULL) {
        return false;
    }
    const char * slash = strrchr(here.dli_fname, '/');
    const int dir = slash == NULL ? 0 : (int) (slash - here.dli_fname + 1);
    return snprintf(path, size, "%.*slibsemshare_cuda.so", dir, here.dli_fname) < (int) size;
}

static bool resolve(struct cuda * c, void * library, struct error * err) {
    int32_t (*version)(void);
    *(void **) &version = dlsym(library, "semshare_cuda_version");
    if (version == NULL || version() != SEMSHARE_VERSION) {
        return fail(err, "libsemshare_cuda.so is of version %d: expected %d", version == NULL ? 0 : version(), SEMSHARE_VERSION);
    }
#define X(name, args)                                                                        \
    if ((*(void **) &c->name = dlsym(library, "semshare_cuda_" #name)) == NULL) {            \
        return fail(err, "libsemshare_cuda.so has no function semshare_cuda_" #name);        \
    }
    AGENT_CUDA(X)
#undef X
    return true;
}

static const struct cuda * find(struct error * err) {
    static struct cuda found;
    static bool is_found;
    char path[4096];
    if (is_found) {
        return &found;
    }
    void * library = beside(path, sizeof path) ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library == NULL) {
        fail(err, "libsemshare_cuda.so, which should lie beside the agent, cannot be loaded");
        return NULL;
    }
    is_found = resolve(&found, library, err);
    return is_found ? &found : NULL;
}

static bool runs_on(const struct cuda * cuda, int32_t device, struct error * err) {
    const char * why = "";
    return cuda->usable(&why, device) == SEMSHARE_OK || fail(err, "libsemshare_cuda.so does not run on CUDA device %d: %s", device, why);
}

const struct cuda * cuda_for(const void * at, int32_t * device, struct error * err) {
    const struct cuda * cuda = find(err);
    if (cuda == NULL) {
        return NULL;
    }
    *device = cuda->device_of(at);
    /* For too old a driver no memory is a device's; device 0 then tells why. */
    if (!runs_on(cuda, *device < 0 ? 0 : *device, err)) {
        return NULL;
    }
    if (*device < 0) {
        fail(err, "the server's cache does not lie in a CUDA device's memory");
        return NULL;
    }
    return cuda;
}
