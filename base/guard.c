/*
 * Reading a map whose file was cut short under it is a signal, which by itself ends the process.  Here it becomes an error of the
 * call that read (file.h).  The handler is the one thing that is set for the whole process; signals that are not ours go to whoever
 * had it before.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/util.h"

static _Thread_local sigjmp_buf *inmost; /* where this thread goes on, when it is inside a guard */
static _Thread_local const void *unread; /* what it could not read */
static struct sigaction before;

static void on_bus(int sig, siginfo_t *info, void *context)
{
    if (inmost && info->si_code > 0) { /* by a read, not by kill() */
        unread = info->si_addr;
        siglongjmp(*inmost, 1);
    }
    (void)sigaction(sig, &before, NULL);
    if (info->si_code <= 0)
        (void)raise(sig); /* a read comes back by itself */
}

static void install(void)
{
    struct sigaction sa = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_NODEFER};
    (void)sigaction(SIGBUS, &sa, &before);
}

enum skf_err skf_map_guard(enum skf_err (*fn)(void *ctx, struct skf_why *why), void *ctx, struct skf_why *why)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    sigjmp_buf here, *const outer = inmost;
    (void)pthread_once(&once, install);
    if (sigsetjmp(here, 1) != 0) { /* with the mask, which ThreadSanitizer changes around handlers */
        char name[256];
        inmost = outer;
        if (!has_map_name(unread, name, sizeof name))
            return skf_fail(why, SKF_ERR_IO, "a file became shorter while it was read, or its disk fails");
        return skf_fail(why, SKF_ERR_IO, "%s: became shorter while it was read, or its disk fails", name);
    }
    inmost = &here;
    enum skf_err e = fn(ctx, why);
    inmost = outer;
    return e;
}

bool is_map_cut(const char *path, const struct skf_map *m)
{
    struct stat st;
    return stat(path, &st) == 0 && (uint64_t)st.st_size < m->size;
}

void skf_map_soon(const struct skf_map *m, uint64_t off, uint64_t n)
{
    if (off >= m->size)
        return;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), from = off / page * page, end = off + SKF_MIN(n, m->size - off);
    void *p = (void *)(uintptr_t)(m->data + from);
    unsigned char is_here = 0; /* asking for what is in memory already takes as long as hashing a tenth of it */
    if (mincore(p, page, &is_here) != 0 || !(is_here & 1))
        (void)madvise(p, end - from, MADV_WILLNEED);
}

void skf_map_done(const struct skf_map *m, unsigned i, unsigned n)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), each = (m->size / n + page - 1) / page * page;
    if (m->data && i * each < m->size)
        (void)madvise((void *)(uintptr_t)(m->data + i * each), SKF_MIN(each, m->size - i * each), MADV_DONTNEED);
}
