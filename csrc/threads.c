/* A parallel loop. Threads are started for each call: tens of microseconds against
 * the milliseconds of a state, and no pool to hold, configure or shut down. */
#include "internal.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

struct loop {
    atomic_llong next;
    int64_t n;
    void (*work)(void * arg, int64_t i);
    void * arg;
};

static void * run_loop(void * p) {
    struct loop * loop = p;
    for (;;) {
        const int64_t i = atomic_fetch_add_explicit(&loop->next, 1, memory_order_relaxed);
        if (i >= loop->n) {
            return NULL;
        }
        loop->work(loop->arg, i);
    }
}

void parallel_for(int64_t n, int32_t n_threads, void (*work)(void * arg, int64_t i), void * arg) {
    struct loop loop = {.n = n, .work = work, .arg = arg};
    pthread_t threads[SEMSHARE_MAX_THREADS];
    int32_t started = 0;
    /* The host's signal handlers (Go's among them) must not run on our threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    /* Where a thread cannot be started, those that run do its share. */
    while (started + 1 < n_threads && started + 1 < SEMSHARE_MAX_THREADS && started + 1 < n
           && pthread_create(&threads[started], NULL, run_loop, &loop) == 0) {
        started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    run_loop(&loop);
    for (int32_t i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
    }
}
