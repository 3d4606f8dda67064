#include "tokenized.h"

#include "recipe.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECOND 1000000000LL
#define EXPECTED_FOR SECOND
#define KEPT_FOR (60 * SECOND)

struct entry {
    struct text text; /* its bytes are the entry's own; null where there is no entry */
    int32_t * tokens;
    int32_t n;
    int64_t kept;     /* since when, in ns */
    int64_t expected; /* until when; 0 not */
};

static struct {
    pthread_mutex_t lock;
    struct entry entries[TOKENIZED_ENTRIES];
    int32_t oldest; /* entries are written in turn */
    size_t bytes;
    int64_t spared;
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t) t.tv_sec * SECOND + t.tv_nsec;
}

static size_t bytes_of(const struct entry * e) { return (size_t) e->text.len + (size_t) e->n * sizeof *e->tokens; }

static void forget(struct entry * e) {
    if (e->text.bytes != NULL) {
        kept.bytes -= bytes_of(e);
    }
    free((void *) e->text.bytes);
    free(e->tokens);
    memset(e, 0, sizeof *e);
}

static bool same(const struct text * a, const struct text * b) {
    return a->vocab == b->vocab && a->len == b->len && a->add_special == b->add_special && a->parse_special == b->parse_special && memcmp(a->bytes, b->bytes, (size_t) a->len) == 0;
}

static void * copy_of(const void * from, size_t size) {
    void * to = malloc(size);
    return to == NULL ? NULL : memcpy(to, from, size);
}

/* Room for an entry where the oldest was. */
static struct entry * make_room(size_t size, int64_t now) {
    for (int32_t i = 0; i < TOKENIZED_ENTRIES; i++) {
        struct entry * e = &kept.entries[(kept.oldest + i) % TOKENIZED_ENTRIES];
        if (kept.bytes + size > TOKENIZED_BYTES || now - e->kept > KEPT_FOR) {
            forget(e);
        }
    }
    struct entry * e = &kept.entries[kept.oldest];
    kept.oldest = (kept.oldest + 1) % TOKENIZED_ENTRIES;
    forget(e);
    return e;
}

void tokenized_keep(const struct text * t, const int32_t * tokens, int32_t n) {
    struct entry e = {.text = *t, .n = n, .kept = now_ns()};
    if (n < 1 || !t->add_special || t->len < TOKENIZED_LEAST || bytes_of(&e) > TOKENIZED_BYTES) {
        return;
    }
    e.text.bytes = copy_of(t->bytes, (size_t) t->len);
    e.tokens = copy_of(tokens, (size_t) n * sizeof *tokens);
    if (e.text.bytes == NULL || e.tokens == NULL) {
        free((void *) e.text.bytes);
        free(e.tokens);
        return;
    }
    pthread_mutex_lock(&kept.lock);
    *make_room(bytes_of(&e), e.kept) = e;
    kept.bytes += bytes_of(&e);
    pthread_mutex_unlock(&kept.lock);
}

static bool is_prompt(const struct entry * e, uint32_t n, uint64_t sum) {
    return e->text.bytes != NULL && (uint32_t) e->n == n && xxhash64((const uint8_t *) e->tokens, n * sizeof *e->tokens) == sum;
}

void tokenized_expect(const struct llama_vocab * vocab, uint32_t n, uint64_t sum) {
    pthread_mutex_lock(&kept.lock);
    for (int32_t i = 1; i <= TOKENIZED_ENTRIES; i++) { /* the newest first */
        struct entry * e = &kept.entries[(kept.oldest + TOKENIZED_ENTRIES - i) % TOKENIZED_ENTRIES];
        if (e->text.vocab == vocab && e->expected == 0 && is_prompt(e, n, sum)) {
            e->expected = now_ns() + EXPECTED_FOR;
            break;
        }
    }
    pthread_mutex_unlock(&kept.lock);
}

/* Gives out an entry that is expected still. */
static int32_t give(struct entry * e, int32_t * tokens, int32_t capacity) {
    int32_t n = -1;
    if (now_ns() < e->expected && e->n <= capacity) {
        n = e->n;
        memcpy(tokens, e->tokens, (size_t) n * sizeof *tokens);
        kept.spared++;
    }
    forget(e);
    return n;
}

int32_t tokenized_take(const struct text * t, int32_t * tokens, int32_t capacity) {
    int32_t n = -1;
    if (t->len < TOKENIZED_LEAST) {
        return n;
    }
    pthread_mutex_lock(&kept.lock);
    for (int32_t i = 0; i < TOKENIZED_ENTRIES && n < 0; i++) {
        struct entry * e = &kept.entries[i];
        if (e->text.bytes != NULL && e->expected != 0 && same(&e->text, t)) {
            n = give(e, tokens, capacity);
        }
    }
    pthread_mutex_unlock(&kept.lock);
    return n;
}

int64_t tokenized_spared(void) {
    pthread_mutex_lock(&kept.lock);
    const int64_t n = kept.spared;
    pthread_mutex_unlock(&kept.lock);
    return n;
}
