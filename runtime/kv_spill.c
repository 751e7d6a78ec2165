/* Pages in a file without a name (kv_spill_priv.h). */
#include "runtime/kv_spill_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/digest.h"
#include "base/util.h"

#define ALIGN       4096u
#define SLOTS_MOST  (1u << 20)
#define PATIENCE_NS 20000000 /* for a place among those on their way */

enum state { SLOT_FREE, SLOT_WAITING, SLOT_WRITING, SLOT_THERE, SLOT_BAD };
struct slot {
    uint8_t digest[SKF_DIGEST]; /* once it is there */
    void *page;                 /* until then */
    uint32_t next;              /* of the free, or of those that wait; UINT32_MAX: none */
    enum state state;
    bool is_dropped;            /* while it was written */
};
struct skf_spill {
    int fd;
    size_t page_bytes, slot_bytes;
    uint32_t n_slots, free, n_taken; /* the caller's, as what `taken` says */
    struct slot *slots;
    pthread_t writer;
    pthread_mutex_t lock;    /* the states, and what follows */
    pthread_cond_t come, gone;
    uint32_t first, last, n_waiting; /* on their way; n_waiting: the one being written too */
    bool is_closing, is_broken;
    bool is_slow;            /* the last wait was in vain: none until something has gone */
};

/* ---- the writer -------------------------------------------------------------------------------------------------------------------------- */
static bool is_written(const struct skf_spill *s, uint32_t slot, const uint8_t *p)
{
    for (size_t done = 0; done < s->page_bytes;) {
        ssize_t k = pwrite(s->fd, p + done, s->page_bytes - done, (off_t)((uint64_t)slot * s->slot_bytes + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return false;
        done += (size_t)k;
    }
    return true;
}

static void free_slot_(struct skf_spill *s, uint32_t i)
{
    s->slots[i].state = SLOT_FREE;
    s->slots[i].is_dropped = false;
    s->slots[i].next = s->free;
    s->free = i;
}

static void write_one_(struct skf_spill *s)
{
    uint32_t i = s->first;
    struct slot *x = &s->slots[i];
    s->first = x->next;
    if (s->first == UINT32_MAX)
        s->last = UINT32_MAX;
    bool is_wanted = !s->is_broken;
    x->state = SLOT_WRITING;
    pthread_mutex_unlock(&s->lock);
    skf_sha256(x->page, s->page_bytes, x->digest);
    bool ok = is_wanted && is_written(s, i, x->page);
    int sys = errno;
    pthread_mutex_lock(&s->lock);
    if (!ok && !s->is_broken) {
        s->is_broken = true;
        skf_log(SKF_LOG_WARN, "keys and values are not put aside any more: their file cannot be written: %s", strerror(sys));
    }
    skf_free(x->page);
    x->page = NULL;
    x->state = ok ? SLOT_THERE : SLOT_BAD;
    if (x->is_dropped)
        free_slot_(s, i);
    s->n_waiting--;
    s->is_slow = false;
    pthread_cond_broadcast(&s->gone);
}

static void *writer_main(void *ctx)
{
    struct skf_spill *s = ctx;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        if (s->is_closing)
            break;
        if (s->first != UINT32_MAX)
            write_one_(s);
        else
            pthread_cond_wait(&s->come, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- opening ----------------------------------------------------------------------------------------------------------------------------- */
static enum skf_err open_file(const char *dir, int *fd, struct skf_why *why)
{
    char path[4096];
    *fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (*fd >= 0)
        return SKF_OK;
    if (errno != EOPNOTSUPP && errno != EISDIR)
        return skf_fail_errno(why, errno, "%s: cannot hold what keys and values do not fit in memory", dir);
    int n = snprintf(path, sizeof path, "%s/.skiff-XXXXXX", dir); /* a file system that knows no files without a name */
    if (n < 0 || (size_t)n >= sizeof path)
        return skf_fail(why, SKF_ERR_LIMIT, "%.100s...: the name is too long", dir);
    *fd = mkostemp(path, O_CLOEXEC);
    if (*fd < 0)
        return skf_fail_errno(why, errno, "%s: cannot hold what keys and values do not fit in memory", dir);
    (void)unlink(path);
    return SKF_OK;
}

static enum skf_err open_locks(struct skf_spill *s)
{
    pthread_condattr_t attr;
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->come, NULL);
    if (pthread_condattr_init(&attr))
        return SKF_ERR_NOMEM;
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&s->gone, &attr);
    (void)pthread_condattr_destroy(&attr);
    return SKF_OK;
}

enum skf_err skf_spill_open(const char *dir, uint64_t bytes, size_t page_bytes, struct skf_spill **out, struct skf_why *why)
{
    size_t slot_bytes = (page_bytes + ALIGN - 1) / ALIGN * ALIGN;
    uint32_t n = (uint32_t)SKF_MIN(bytes / slot_bytes, (uint64_t)SLOTS_MOST);
    if (n == 0)
        return skf_fail(why, SKF_ERR_LIMIT, "%llu bytes to put keys and values aside do not hold a page of %zu", (unsigned long long)bytes, slot_bytes);
    struct skf_spill *s = skf_calloc(1, sizeof *s);
    if (s)
        *s = (struct skf_spill){.fd = -1, .page_bytes = page_bytes, .slot_bytes = slot_bytes, .n_slots = n, .slots = skf_calloc(n, sizeof *s->slots),
                                .free = UINT32_MAX, .first = UINT32_MAX, .last = UINT32_MAX};
    if (!s || !s->slots || open_locks(s) != SKF_OK) {
        skf_free(s ? s->slots : NULL);
        skf_free(s);
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for %u pages put aside", n);
    }
    for (uint32_t i = n; i > 0; i--)
        free_slot_(s, i - 1);
    enum skf_err e = open_file(dir, &s->fd, why);
    int sys = e == SKF_OK ? pthread_create(&s->writer, NULL, writer_main, s) : 0;
    if (sys)
        e = skf_fail_errno(why, sys, "cannot start a thread");
    if (e == SKF_OK) {
        *out = s;
        return SKF_OK;
    }
    if (s->fd >= 0)
        (void)close(s->fd);
    skf_free(s->slots);
    skf_free(s);
    return e;
}

void skf_spill_close(struct skf_spill *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->is_closing = true;
    pthread_cond_broadcast(&s->come);
    pthread_mutex_unlock(&s->lock);
    (void)pthread_join(s->writer, NULL);
    for (uint32_t i = 0; i < s->n_slots; i++)
        skf_free(s->slots[i].page);
    (void)pthread_cond_destroy(&s->come);
    (void)pthread_cond_destroy(&s->gone);
    (void)pthread_mutex_destroy(&s->lock);
    (void)close(s->fd);
    skf_free(s->slots);
    skf_free(s);
}

/* ---- pages ------------------------------------------------------------------------------------------------------------------------------- */
/* A place among those on their way, for which it waits a little. */
static bool has_room_(struct skf_spill *s)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += PATIENCE_NS;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    while (s->n_waiting >= SKF_SPILL_WAITING && !s->is_slow && !s->is_broken)
        s->is_slow = pthread_cond_timedwait(&s->gone, &s->lock, &until) == ETIMEDOUT;
    return s->n_waiting < SKF_SPILL_WAITING && !s->is_broken;
}

enum skf_err skf_spill_put(struct skf_spill *s, void *take_page, uint32_t *slot)
{
    enum skf_err e = SKF_OK;
    pthread_mutex_lock(&s->lock);
    if (s->free == UINT32_MAX)
        e = SKF_ERR_FULL;
    else if (!has_room_(s))
        e = SKF_ERR_BUSY;
    else {
        uint32_t i = s->free;
        s->free = s->slots[i].next;
        s->slots[i].page = take_page;
        s->slots[i].state = SLOT_WAITING;
        s->slots[i].next = UINT32_MAX;
        *(s->last == UINT32_MAX ? &s->first : &s->slots[s->last].next) = i;
        s->last = i;
        s->n_waiting++;
        s->n_taken++;
        *slot = i;
        pthread_cond_signal(&s->come);
    }
    pthread_mutex_unlock(&s->lock);
    return e;
}

/* Takes a page that waits out of the line; gives it back. */
static void *take_waiting_(struct skf_spill *s, uint32_t slot)
{
    uint32_t before = UINT32_MAX, i = s->first;
    while (i != slot) {
        before = i;
        i = s->slots[i].next;
    }
    *(before == UINT32_MAX ? &s->first : &s->slots[before].next) = s->slots[i].next;
    if (s->last == i)
        s->last = before;
    void *page = s->slots[i].page;
    s->slots[i].page = NULL;
    s->n_waiting--;
    return page;
}

void skf_spill_drop(struct skf_spill *s, uint32_t slot)
{
    struct slot *x = &s->slots[slot];
    void *page = NULL;
    pthread_mutex_lock(&s->lock);
    if (x->state == SLOT_WRITING) {
        x->is_dropped = true; /* the writer frees it */
    } else {
        if (x->state == SLOT_WAITING)
            page = take_waiting_(s, slot);
        free_slot_(s, slot);
    }
    s->n_taken--;
    pthread_mutex_unlock(&s->lock);
    skf_free(page);
}

static enum skf_err read_back(const struct skf_spill *s, uint32_t slot, uint8_t *to)
{
    uint8_t digest[SKF_DIGEST];
    for (size_t done = 0; done < s->page_bytes;) {
        ssize_t k = pread(s->fd, to + done, s->page_bytes - done, (off_t)((uint64_t)slot * s->slot_bytes + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return SKF_ERR_IO;
        done += (size_t)k;
    }
    skf_sha256(to, s->page_bytes, digest);
    return memcmp(digest, s->slots[slot].digest, sizeof digest) == 0 ? SKF_OK : SKF_ERR_DIGEST;
}

enum skf_err skf_spill_get(struct skf_spill *s, uint32_t slot, void *to)
{
    struct slot *x = &s->slots[slot];
    enum skf_err e = SKF_OK;
    pthread_mutex_lock(&s->lock);
    bool is_here = x->state == SLOT_WAITING || x->state == SLOT_WRITING;
    if (is_here)
        memcpy(to, x->page, s->page_bytes); /* the writer only reads it, and frees it under the lock */
    bool is_bad = x->state == SLOT_BAD;
    pthread_mutex_unlock(&s->lock);
    if (!is_here)
        e = is_bad ? SKF_ERR_IO : read_back(s, slot, to);
    skf_spill_drop(s, slot);
    return e;
}

void skf_spill_bytes(struct skf_spill *s, uint64_t *taken, uint64_t *waiting)
{
    pthread_mutex_lock(&s->lock);
    *taken = (uint64_t)s->n_taken * s->page_bytes;
    *waiting = (uint64_t)s->n_waiting * s->page_bytes;
    pthread_mutex_unlock(&s->lock);
}

void skf_spill_settle(struct skf_spill *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->n_waiting > 0)
        pthread_cond_wait(&s->gone, &s->lock);
    pthread_mutex_unlock(&s->lock);
}
