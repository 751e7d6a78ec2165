/* Frames to a worker's peers. Text is made valid UTF-8 without NUL here: a model can produce any bytes, the protocol takes none else. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/util.h"
#include "proto/msg.h"
#include "runtime/worker_priv.h"

void skf_worker_hang_up_(struct worker_conn *c)
{
    if (!c->dead)
        (void)shutdown(c->fd, SHUT_RDWR); /* wakes its reader, which cancels what runs for it */
    c->dead = true;
    pthread_cond_broadcast(&c->work);
}

void skf_worker_say_(struct worker_conn *c, const Skiff__V1__FromWorker *m)
{
    uint8_t *p = NULL;
    size_t n = 0;
    if (c->dead)
        return;
    enum skf_err e = skf_msg_pack(&m->base, &p, &n);
    struct worker_frame *f = e == SKF_OK && n <= WORKER_OUTBOX - c->out_bytes ? skf_alloc(sizeof *f + n) : NULL;
    if (f) {
        f->next = NULL;
        f->n = n;
        memcpy(f->p, p, n);
        *c->out_end = f;
        c->out_end = &f->next;
        c->out_bytes += n;
        pthread_cond_broadcast(&c->work);
    } else {
        skf_log(SKF_LOG_WARN, "a peer is hung up on: %s", e == SKF_OK && n > WORKER_OUTBOX - c->out_bytes ? "it reads too slowly" : "out of memory");
        skf_worker_hang_up_(c);
    }
    skf_free(p);
}

/* A copy with U+FFFD for every byte that is no text; NULL when there is no memory. */
static char *clean(const char *s, size_t n)
{
    char *to = skf_alloc(3 * n + 1);
    size_t k = 0;
    if (!to)
        return NULL;
    for (size_t i = 0; i < n;) {
        size_t len = skf_utf8_len(s + i, n - i);
        memcpy(to + k, len ? s + i : "\xEF\xBF\xBD", len ? len : 3);
        k += len ? len : 3;
        i += len ? len : 1;
    }
    to[k] = 0;
    return to;
}

void skf_worker_say_token_(struct worker_conn *c, Skiff__V1__Token *t, const char *text, size_t n)
{
    Skiff__V1__FromWorker m = SKIFF__V1__FROM_WORKER__INIT;
    char *copy = clean(text, n);
    if (!copy) {
        skf_worker_hang_up_(c);
        return;
    }
    t->text = copy;
    m.kind_case = SKIFF__V1__FROM_WORKER__KIND_TOKEN;
    m.token = t;
    skf_worker_say_(c, &m);
    skf_free(copy);
}

static void set_cache(Skiff__V1__CacheState *to, struct skf_engine *engine)
{
    struct skf_engine_load l;
    skf_engine_load(engine, &l);
    *to = (Skiff__V1__CacheState)SKIFF__V1__CACHE_STATE__INIT;
    to->memory_bytes = l.cache.bytes;
    to->kept_bytes = l.cache.kept_bytes;
    to->pinned_bytes = l.cache.pinned_bytes;
    to->file_bytes = l.cache.aside_bytes;
    to->prompt_tokens = l.cache.prompt_tokens;
    to->memory_tokens = l.cache.cached_tokens - l.cache.aside_tokens;
    to->file_tokens = l.cache.aside_tokens;
    to->evicted_pages = l.cache.evictions;
    to->spilled_pages = l.cache.spills;
    to->read_pages = l.cache.reads;
    to->type = (char *)(uintptr_t)skf_engine_cache_type(engine);
}

void skf_worker_say_finished_(struct worker_conn *c, uint64_t id, uint32_t choice, bool is_more, const struct skf_finish *f)
{
    Skiff__V1__FromWorker m = SKIFF__V1__FROM_WORKER__INIT;
    Skiff__V1__Finished d = SKIFF__V1__FINISHED__INIT;
    Skiff__V1__CacheState cache;
    const char *text = f->text ? f->text : "";
    char *copy = clean(text, strlen(text));
    if (!copy) {
        skf_worker_hang_up_(c);
        return;
    }
    d.id = id;
    d.choice = choice;
    d.is_more = is_more;
    d.reason = (char *)(uintptr_t)f->reason;
    d.error = copy;
    d.error_class = (char *)(uintptr_t)(f->err != SKF_OK ? skf_err_name(f->err) : "");
    d.prompt_tokens = f->prompt_tokens;
    d.cached_tokens = f->cached_tokens;
    d.drafted_tokens = f->drafted_tokens;
    d.accepted_tokens = f->accepted_tokens;
    d.completion_tokens = f->completion_tokens;
    d.prefill_us = f->prefill_ns / 1000;
    d.decode_us = f->decode_ns / 1000;
    d.queue_us = f->queue_ns / 1000;
    d.sample_us = f->sample_ns / 1000;
    d.write_us = f->tell_ns / 1000;
    d.gap_us = f->gap_ns / 1000;
    d.retry_us = f->retry_ns / 1000;
    set_cache(&cache, c->w->engine);
    d.cache = &cache;
    m.kind_case = SKIFF__V1__FROM_WORKER__KIND_FINISHED;
    m.finished = &d;
    skf_worker_say_(c, &m);
    skf_free(copy);
}

void skf_worker_say_warmed_(struct worker_conn *c, uint64_t id, uint32_t tokens, uint32_t cached, enum skf_err e, const char *error)
{
    Skiff__V1__FromWorker m = SKIFF__V1__FROM_WORKER__INIT;
    Skiff__V1__Warmed d = SKIFF__V1__WARMED__INIT;
    char *copy = clean(error, strlen(error));
    if (!copy) {
        skf_worker_hang_up_(c);
        return;
    }
    d.id = id;
    d.error = copy;
    d.error_class = (char *)(uintptr_t)(e != SKF_OK ? skf_err_name(e) : "");
    d.tokens = tokens;
    d.cached_tokens = cached;
    m.kind_case = SKIFF__V1__FROM_WORKER__KIND_WARMED;
    m.warmed = &d;
    skf_worker_say_(c, &m);
    skf_free(copy);
}

static uint64_t resident_bytes(void)
{
    unsigned long long size, pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f)
        return 0;
    if (fscanf(f, "%llu %llu", &size, &pages) != 2)
        pages = 0;
    (void)fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void set_load(Skiff__V1__Health *h, struct skf_engine *engine)
{
    struct skf_engine_load l;
    skf_engine_load(engine, &l);
    h->slots = l.slots;
    h->running = l.running;
    h->waiting = l.waiting;
    h->waiting_tokens = l.waiting_tokens;
    h->busy_permille = l.busy_permille;
    h->kv_bytes = l.cache.bytes;
    h->kv_kept_bytes = l.cache.kept_bytes;
    h->kv_most_bytes = l.memory;
    h->expected_us = l.expected_ns / 1000;
    h->steps = l.steps;
}

void skf_worker_say_health_(struct worker_conn *c, bool is_hello, uint64_t id, enum skf_err e, const char *error)
{
    Skiff__V1__FromWorker m = SKIFF__V1__FROM_WORKER__INIT;
    Skiff__V1__Health h = SKIFF__V1__HEALTH__INIT;
    Skiff__V1__CacheState cache;
    struct worker_names names;
    char *copy = clean(error, strlen(error));
    if (!copy) {
        skf_worker_hang_up_(c);
        return;
    }
    h.id = id;
    h.ok = e == SKF_OK;
    h.model = c->w->model;
    h.version = c->w->version;
    h.error = copy;
    h.active = c->w->n_gens;
    h.isa = (char *)(uintptr_t)skf_engine_isa(c->w->engine);
    h.rss_bytes = resident_bytes();
    set_load(&h, c->w->engine);
    set_cache(&cache, c->w->engine);
    h.cache = &cache;
    h.n_adapters = skf_worker_adapter_names(c->w, &names);
    h.adapters = names.list;
    m.kind_case = is_hello ? SKIFF__V1__FROM_WORKER__KIND_HELLO : SKIFF__V1__FROM_WORKER__KIND_HEALTH;
    if (is_hello)
        m.hello = &h;
    else
        m.health = &h;
    skf_worker_say_(c, &m);
    skf_free(copy);
}
