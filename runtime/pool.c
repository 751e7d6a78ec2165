/* The threads that compute together (pool_priv.h). */
#include "runtime/pool_priv.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/alloc.h"

#define SPINS 2000 /* pauses, some tens of microseconds: longer than what lies between two regions of a token */

/* A thread and its share of the region's tasks, in a cache line of its own: as a rule nobody else touches it. */
struct worker {
    /* High half: number of the region; low half: tasks of the share not yet taken. Taking one is a compare and swap, so a late thread
     * can never take a task of a region it did not look at. */
    _Alignas(64) _Atomic uint64_t ticket;
    struct skf_pool *pool;
    pthread_t thread;
    unsigned number;
};
struct skf_pool {
    _Alignas(64) _Atomic uint32_t region; /* its number */
    void (*fn)(void *ctx, unsigned worker, uint32_t task); /* of the region; stable while one of its tasks is not done */
    void *ctx;
    uint32_t n;
    unsigned threads, started;
    _Alignas(64) _Atomic uint32_t done;
    _Atomic unsigned sleepers;
    _Atomic bool is_waiting, is_closing; /* is_waiting: the caller sleeps until done == n */
    pthread_mutex_t lock;
    pthread_cond_t begun, ended;
    struct worker workers[];
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

/* Where share w of n tasks begins. */
static uint32_t share_at(const struct skf_pool *p, uint32_t n, unsigned w) { return (uint32_t)((uint64_t)n * w / p->threads); }

/* Takes the next task of a share, in rising order. */
static bool has_taken(struct skf_pool *p, unsigned share, uint32_t *task)
{
    uint64_t t = atomic_load(&p->workers[share].ticket);
    while ((uint32_t)t > 0)
        if (atomic_compare_exchange_weak(&p->workers[share].ticket, &t, t - 1)) {
            *task = share_at(p, p->n, share + 1) - (uint32_t)t;
            return true;
        }
    return false;
}

/* Does tasks of the present region until none is left to take: the thread's own share, then what others have left of theirs. */
static void work(struct skf_pool *p, unsigned worker)
{
    uint32_t count = 0, n = 0, task;
    for (unsigned i = 0; i < p->threads; i++)
        while (has_taken(p, (worker + i) % p->threads, &task)) {
            n = p->n; /* not to be looked at once this thread's tasks count as done */
            p->fn(p->ctx, worker, task);
            count++;
        }
    if (count && atomic_fetch_add(&p->done, count) + count == n && atomic_load(&p->is_waiting)) {
        (void)pthread_mutex_lock(&p->lock);
        (void)pthread_cond_signal(&p->ended);
        (void)pthread_mutex_unlock(&p->lock);
    }
}

static bool has_begun(struct skf_pool *p, uint32_t seen)
{
    return atomic_load(&p->region) != seen || atomic_load(&p->is_closing);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct skf_pool *p = w->pool;
    uint32_t seen = 0;
    while (!atomic_load(&p->is_closing)) {
        for (int i = 0; i < SPINS && !has_begun(p, seen); i++)
            relax();
        if (!has_begun(p, seen)) {
            (void)pthread_mutex_lock(&p->lock);
            atomic_fetch_add(&p->sleepers, 1);
            while (!has_begun(p, seen))
                (void)pthread_cond_wait(&p->begun, &p->lock);
            atomic_fetch_sub(&p->sleepers, 1);
            (void)pthread_mutex_unlock(&p->lock);
        }
        seen = atomic_load(&p->region);
        work(p, w->number);
    }
    return NULL;
}

enum skf_err skf_pool_open(unsigned threads, struct skf_pool **out, struct skf_why *why)
{
    size_t bytes = sizeof(struct skf_pool) + threads * sizeof(struct worker);
    struct skf_pool *p = skf_aligned(64, bytes);
    if (!p)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for %u threads", threads);
    memset(p, 0, bytes);
    p->threads = threads;
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->begun, NULL);
    (void)pthread_cond_init(&p->ended, NULL);
    for (unsigned i = 1; i < threads; i++) {
        struct worker *w = &p->workers[i];
        w->pool = p;
        w->number = i;
        int sys = pthread_create(&w->thread, NULL, worker_main, w);
        if (sys) {
            skf_pool_close(p);
            return skf_fail_errno(why, sys, "cannot start thread %u of %u", i + 1, threads);
        }
        p->started = i;
    }
    *out = p;
    return SKF_OK;
}

void skf_pool_close(struct skf_pool *p)
{
    if (!p)
        return;
    (void)pthread_mutex_lock(&p->lock);
    atomic_store(&p->is_closing, true);
    (void)pthread_cond_broadcast(&p->begun);
    (void)pthread_mutex_unlock(&p->lock);
    for (unsigned i = 1; i <= p->started; i++)
        (void)pthread_join(p->workers[i].thread, NULL);
    (void)pthread_cond_destroy(&p->begun);
    (void)pthread_cond_destroy(&p->ended);
    (void)pthread_mutex_destroy(&p->lock);
    skf_free(p);
}

unsigned skf_pool_threads(const struct skf_pool *p) { return p->threads; }

void skf_pool_run(struct skf_pool *p, uint32_t n, void (*fn)(void *ctx, unsigned worker, uint32_t task), void *ctx)
{
    if (p->started == 0 || n < 2) { /* nobody to share with */
        for (uint32_t i = 0; i < n; i++)
            fn(ctx, 0, i);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    p->n = n;
    atomic_store(&p->done, 0);
    uint32_t region = atomic_load(&p->region) + 1;
    for (unsigned w = 0; w < p->threads; w++)
        atomic_store(&p->workers[w].ticket, (uint64_t)region << 32 | (share_at(p, n, w + 1) - share_at(p, n, w)));
    atomic_store(&p->region, region);
    if (atomic_load(&p->sleepers)) {
        (void)pthread_mutex_lock(&p->lock);
        (void)pthread_cond_broadcast(&p->begun);
        (void)pthread_mutex_unlock(&p->lock);
    }
    work(p, 0);
    for (int i = 0; i < SPINS && atomic_load(&p->done) != n; i++)
        relax();
    if (atomic_load(&p->done) == n)
        return;
    (void)pthread_mutex_lock(&p->lock);
    atomic_store(&p->is_waiting, true);
    while (atomic_load(&p->done) != n)
        (void)pthread_cond_wait(&p->ended, &p->lock);
    atomic_store(&p->is_waiting, false);
    (void)pthread_mutex_unlock(&p->lock);
}
