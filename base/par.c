/* A parallel loop with dynamic scheduling (util.h): workers take the next index until all are done or one failed. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/util.h"

struct loop {
    atomic_uint_fast64_t next;
    uint64_t count;
    enum skf_err (*fn)(void *ctx, unsigned worker, uint64_t i, struct skf_why *why);
    void *ctx;
    pthread_mutex_t lock;
    atomic_bool is_failed;
    uint64_t failed_at; /* the lowest index that failed; under lock, as what follows */
    enum skf_err err;
    struct skf_why why;
};
struct worker {
    struct loop *loop;
    unsigned number;
    pthread_t thread;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct loop *l = w->loop;
    while (!atomic_load(&l->is_failed)) {
        uint64_t i = atomic_fetch_add(&l->next, 1);
        if (i >= l->count)
            break;
        struct skf_why why = {{0}};
        enum skf_err e = l->fn(l->ctx, w->number, i, &why);
        if (e == SKF_OK)
            continue;
        (void)pthread_mutex_lock(&l->lock);
        if (l->err == SKF_OK || i < l->failed_at) {
            l->err = e;
            l->failed_at = i;
            l->why = why;
        }
        atomic_store(&l->is_failed, true);
        (void)pthread_mutex_unlock(&l->lock);
    }
    return NULL;
}

unsigned skf_cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return (unsigned)CPU_COUNT(&set);
    return 1;
}

enum skf_err skf_par_for(unsigned jobs, uint64_t count,
                         enum skf_err (*fn)(void *ctx, unsigned worker, uint64_t i, struct skf_why *why), void *ctx,
                         struct skf_why *why)
{
    if (jobs == 0)
        jobs = skf_cpu_count();
    if (jobs > count)
        jobs = count ? (unsigned)count : 1;
    struct loop l = {.count = count, .fn = fn, .ctx = ctx, .lock = PTHREAD_MUTEX_INITIALIZER};
    struct worker *w = skf_calloc(jobs, sizeof *w);
    if (!w)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    unsigned begun = 1;
    w[0] = (struct worker){.loop = &l, .number = 0};
    for (; begun < jobs; begun++) {
        w[begun] = (struct worker){.loop = &l, .number = begun};
        if (pthread_create(&w[begun].thread, NULL, work, &w[begun]) != 0)
            break; /* fewer threads, the same result */
    }
    (void)work(&w[0]);
    for (unsigned i = 1; i < begun; i++)
        (void)pthread_join(w[i].thread, NULL);
    skf_free(w);
    (void)pthread_mutex_destroy(&l.lock);
    if (l.err != SKF_OK && why)
        *why = l.why;
    return l.err;
}

void skf_progress_rest(const struct skf_progress *p, uint64_t begun_ns)
{
    if (!p || !p->share || p->share >= 100)
        return;
    uint64_t now = skf_now_ns(), until = now + (now - begun_ns) * (100 - p->share) / p->share;
    for (; now < until && !is_cancelled(p); now = skf_now_ns()) {
        uint64_t left = SKF_MIN(until - now, 100000000u);
        struct timespec t = {0, (long)left};
        (void)nanosleep(&t, NULL);
    }
}
