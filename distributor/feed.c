/* Answers to GetMeta and GetChunks (feed.h). */
#include "distributor/feed.h"

#include <limits.h>
#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/util.h"
#include "delta/delta.h"
#include "distributor/builder.h"
#include "proto/msg.h"

#define ITEMS_MAX  32
#define RANGES_MAX 1024
#define PART       (1u << 20) /* bytes of a Meta's data */
#define ENOUGH     (2u << 20) /* bytes that may wait in the stream */

struct delta_file {
    struct delta_file *next;
    char path[PATH_MAX];
    struct skf_map map;
    struct skf_skd *skd;
    unsigned refs;
};

struct skf_feeds {
    char dir[PATH_MAX];
    struct skf_registry *registry;
    struct skf_signer *signer;
    pthread_mutex_t lock;
    struct delta_file *files;
};

struct item {
    struct item *next;
    uint32_t id;
    bool is_meta;
    uint8_t *bytes;          /* of a Meta, unless it is the head of `file` */
    struct delta_file *file; /* counted */
    uint64_t total, at;
    bool is_found;
    struct {
        uint64_t first, count;
    } * ranges;
    size_t n_ranges, range;
    char error[128];
};

struct skf_feed {
    struct skf_feeds *shared;
    struct item *first, **last;
    size_t n;
};

/* ---- open deltas ----------------------------------------------------------------------------------------------- */
enum skf_err skf_feeds_open(const char *deltas_dir, struct skf_registry *registry, struct skf_signer *signer,
                            struct skf_feeds **out, struct skf_why *why)
{
    struct skf_feeds *f = skf_calloc(1, sizeof *f);
    if (!f || pthread_mutex_init(&f->lock, NULL) != 0) {
        skf_free(f);
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    }
    f->registry = registry;
    f->signer = signer;
    enum skf_err e = skf_path(f->dir, sizeof f->dir, deltas_dir, "");
    if (e == SKF_OK)
        *out = f;
    else
        skf_feeds_close(f);
    return e;
}

static void delta_free(struct delta_file *d)
{
    skf_skd_free(d->skd);
    skf_map_close(&d->map);
    skf_free(d);
}

void skf_feeds_close(struct skf_feeds *f)
{
    if (!f)
        return;
    (void)pthread_mutex_destroy(&f->lock);
    skf_free(f);
}

static void delta_unref(struct skf_feeds *f, struct delta_file *d)
{
    if (!d)
        return;
    (void)pthread_mutex_lock(&f->lock);
    bool is_last = --d->refs == 0;
    for (struct delta_file **at = &f->files; is_last && *at; at = &(*at)->next)
        if (*at == d) {
            *at = d->next;
            break;
        }
    (void)pthread_mutex_unlock(&f->lock);
    if (is_last)
        delta_free(d);
}

static struct delta_file *delta_known(struct skf_feeds *f, const char *path)
{
    struct delta_file *d = f->files;
    while (d && strcmp(d->path, path) != 0)
        d = d->next;
    if (d)
        d->refs++;
    return d;
}

/* "deltas/<64 hex>-<64 hex>.skdx" */
static enum skf_err roots_of(const char *target, uint8_t from[SKF_DIGEST], uint8_t to[SKF_DIGEST])
{
    char a[SKF_HEX], b[SKF_HEX];
    const size_t hex = SKF_HEX - 1;
    if (strlen(target) != 7 + 2 * hex + 1 + 5 || strncmp(target, "deltas/", 7) != 0 || target[7 + hex] != '-' ||
        strcmp(target + 7 + 2 * hex + 1, ".skdx") != 0)
        return SKF_ERR_NOT_FOUND;
    memcpy(a, target + 7, hex);
    memcpy(b, target + 7 + hex + 1, hex);
    a[hex] = b[hex] = 0;
    return skf_unhex(a, from, SKF_DIGEST) == SKF_OK && skf_unhex(b, to, SKF_DIGEST) == SKF_OK ? SKF_OK
                                                                                              : SKF_ERR_NOT_FOUND;
}

/* Opens a delta that is listed in signed metadata; nothing else is ever sent. */
static enum skf_err delta_open(struct skf_feeds *f, const char *target, struct delta_file **out, struct skf_why *why)
{
    uint8_t from[SKF_DIGEST], to[SKF_DIGEST];
    struct skf_reg_delta r;
    char path[PATH_MAX];
    SKF_TRY(roots_of(target, from, to));
    SKF_TRY(skf_registry_delta(f->registry, from, to, &r, why));
    SKF_TRY(skf_delta_file(f->dir, from, to, path, sizeof path));
    (void)pthread_mutex_lock(&f->lock);
    struct delta_file *d = delta_known(f, path);
    (void)pthread_mutex_unlock(&f->lock);
    if (d) {
        *out = d;
        return SKF_OK;
    }
    d = skf_calloc(1, sizeof *d);
    if (!d)
        return SKF_ERR_NOMEM;
    (void)snprintf(d->path, sizeof d->path, "%s", path);
    enum skf_err e = skf_map_open(path, &d->map, why);
    if (e == SKF_OK && (d->map.size != r.bytes || r.index_size > r.bytes))
        e = skf_fail(why, SKF_ERR_FORMAT, "%s: not the size it was built with", path);
    if (e == SKF_OK)
        e = skf_skd_parse(d->map.data, r.index_size, &d->skd, why);
    if (e != SKF_OK) {
        delta_free(d);
        return e;
    }
    (void)pthread_mutex_lock(&f->lock);
    struct delta_file *other = delta_known(f, path); /* another session may have been faster */
    if (!other) {
        d->refs = 1;
        d->next = f->files;
        f->files = d;
    }
    (void)pthread_mutex_unlock(&f->lock);
    if (other)
        delta_free(d);
    *out = other ? other : d;
    return SKF_OK;
}

/* ---- the queue ------------------------------------------------------------------------------------------------- */
enum skf_err skf_feed_new(struct skf_feeds *f, struct skf_feed **feed)
{
    *feed = skf_calloc(1, sizeof **feed);
    if (!*feed)
        return SKF_ERR_NOMEM;
    (*feed)->shared = f;
    (*feed)->last = &(*feed)->first;
    return SKF_OK;
}

static void item_free(struct skf_feeds *f, struct item *i)
{
    delta_unref(f, i->file);
    skf_free(i->bytes);
    skf_free(i->ranges);
    skf_free(i);
}

static void pop(struct skf_feed *feed)
{
    struct item *i = feed->first;
    feed->first = i->next;
    if (!feed->first)
        feed->last = &feed->first;
    feed->n--;
    item_free(feed->shared, i);
}

void skf_feed_free(struct skf_feed *feed)
{
    if (!feed)
        return;
    while (feed->first)
        pop(feed);
    skf_free(feed);
}

static enum skf_err push(struct skf_feed *feed, uint32_t id, struct item **out, struct skf_why *why)
{
    if (feed->n == ITEMS_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "more than %u requests at once", ITEMS_MAX);
    struct item *i = skf_calloc(1, sizeof *i);
    if (!i)
        return SKF_ERR_NOMEM;
    i->id = id;
    *feed->last = i;
    feed->last = &i->next;
    feed->n++;
    *out = i;
    return SKF_OK;
}

enum skf_err skf_manifest_by_path(struct skf_registry *r, const char *path, uint8_t **p, size_t *n, struct skf_why *why)
{
    char model[SKF_REG_NAME], version[SKF_REG_NAME];
    static const char end[] = ".manifest";
    size_t len = strlen(path);
    if (strncmp(path, "models/", 7) != 0 || len < 7 + sizeof end || strcmp(path + len - (sizeof end - 1), end) != 0)
        return SKF_ERR_NOT_FOUND;
    const char *a = path + 7, *slash = strchr(a, '/');
    if (!slash || (size_t)(slash - a) >= sizeof model)
        return SKF_ERR_NOT_FOUND;
    size_t left = (size_t)(path + len - (sizeof end - 1) - (slash + 1));
    if (left >= sizeof version)
        return SKF_ERR_NOT_FOUND;
    (void)snprintf(model, sizeof model, "%.*s", (int)(slash - a), a);
    (void)snprintf(version, sizeof version, "%.*s", (int)left, slash + 1);
    if (!is_registry_name(model) || !is_registry_name(version))
        return SKF_ERR_NOT_FOUND;
    return skf_registry_manifest(r, model, version, p, n, why);
}

enum skf_err skf_feed_meta(struct skf_feed *feed, const Skiff__V1__GetMeta *m, struct skf_why *why)
{
    struct skf_feeds *f = feed->shared;
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    struct item *i = NULL;
    size_t n = 0;
    SKF_TRY(push(feed, m->id, &i, why));
    i->is_meta = true;
    enum skf_err e;
    if (strncmp(m->name, "models/", 7) == 0) {
        e = skf_manifest_by_path(f->registry, m->name, &i->bytes, &n, NULL);
    } else if (strncmp(m->name, "deltas/", 7) == 0) {
        e = delta_open(f, m->name, &i->file, NULL);
        n = e == SKF_OK ? skf_skd_info(i->file->skd)->index_size : 0;
    } else {
        e = skf_signer_read(f->signer, m->name, &b, NULL);
        i->bytes = skf_buf_steal(&b, &n);
        skf_buf_free(&b);
    }
    i->is_found = e == SKF_OK;
    i->total = n;
    return e == SKF_ERR_NOMEM ? e : SKF_OK;
}

static enum skf_err take_ranges(struct item *i, const Skiff__V1__GetChunks *g)
{
    const struct skf_skd_info *info = skf_skd_info(i->file->skd);
    uint64_t n = info->n_chunks + info->n_sides, end, sum = 0; /* sides are numbered behind the chunks */
    i->ranges = skf_calloc(g->n_ranges + 1, sizeof *i->ranges);
    if (!i->ranges)
        return SKF_ERR_NOMEM;
    for (size_t k = 0; k < g->n_ranges; k++) {
        i->ranges[k].first = g->ranges[k]->first;
        i->ranges[k].count = g->ranges[k]->count;
        if (!is_add_ok(g->ranges[k]->first, g->ranges[k]->count, &end) || end > n || (sum += g->ranges[k]->count) > n) {
            (void)snprintf(i->error, sizeof i->error, "no such chunks");
            return SKF_OK;
        }
    }
    i->n_ranges = g->n_ranges;
    return SKF_OK;
}

enum skf_err skf_feed_chunks(struct skf_feed *feed, const Skiff__V1__GetChunks *g, struct skf_why *why)
{
    struct item *i = NULL;
    if (g->n_ranges > RANGES_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "more than %u ranges in one request", RANGES_MAX);
    SKF_TRY(push(feed, g->id, &i, why));
    enum skf_err e = delta_open(feed->shared, g->delta, &i->file, NULL);
    if (e == SKF_OK)
        return take_ranges(i, g);
    (void)snprintf(i->error, sizeof i->error, "no such delta");
    return e == SKF_ERR_NOMEM ? e : SKF_OK;
}

/* ---- sending --------------------------------------------------------------------------------------------------- */
static enum skf_err send_message(struct skf_wire_stream *s, Skiff__V1__CentreMessage *m)
{
    uint8_t *p;
    size_t n;
    SKF_TRY(skf_msg_pack(&m->base, &p, &n));
    enum skf_err e = skf_wire_send(s, p, n);
    skf_free(p);
    return e;
}

/* The next part; *is_over when it was the last. */
static enum skf_err send_part(struct item *i, struct skf_wire_stream *s, bool *is_over)
{
    Skiff__V1__CentreMessage m = SKIFF__V1__CENTRE_MESSAGE__INIT;
    Skiff__V1__Meta meta = SKIFF__V1__META__INIT;
    uint64_t n = SKF_MIN(i->total - i->at, (uint64_t)PART);
    const uint8_t *from = i->file ? i->file->map.data : i->bytes;
    m.kind_case = SKIFF__V1__CENTRE_MESSAGE__KIND_META;
    m.meta = &meta;
    meta.id = i->id;
    meta.found = i->is_found;
    meta.offset = i->at;
    meta.total = i->total;
    if (n)
        meta.data = (ProtobufCBinaryData){n, (uint8_t *)(uintptr_t)(from + i->at)};
    SKF_TRY(send_message(s, &m));
    i->at += n;
    *is_over = i->at == i->total;
    return SKF_OK;
}

static enum skf_err send_end(struct item *i, struct skf_wire_stream *s)
{
    Skiff__V1__CentreMessage m = SKIFF__V1__CENTRE_MESSAGE__INIT;
    Skiff__V1__ChunksEnd end = SKIFF__V1__CHUNKS_END__INIT;
    m.kind_case = SKIFF__V1__CENTRE_MESSAGE__KIND_CHUNKS_END;
    m.chunks_end = &end;
    end.id = i->id;
    end.error = i->error;
    return send_message(s, &m);
}

/* The next payload, or the end. A chunk without a payload is not sent. */
static enum skf_err send_chunk(struct item *i, struct skf_wire_stream *s, bool *is_over)
{
    Skiff__V1__CentreMessage m = SKIFF__V1__CENTRE_MESSAGE__INIT;
    Skiff__V1__Chunk chunk = SKIFF__V1__CHUNK__INIT;
    uint64_t offset;
    uint32_t length;
    for (; i->range < i->n_ranges; i->range++, i->at = 0) {
        for (; i->at < i->ranges[i->range].count; i->at++) {
            uint64_t number = i->ranges[i->range].first + i->at;
            skf_skd_payload(i->file->skd, number, &offset, &length);
            if (length == 0)
                continue;
            m.kind_case = SKIFF__V1__CENTRE_MESSAGE__KIND_CHUNK;
            m.chunk = &chunk;
            chunk.id = i->id;
            chunk.number = number;
            chunk.payload = (ProtobufCBinaryData){length, (uint8_t *)(uintptr_t)(i->file->map.data + offset)};
            SKF_TRY(send_message(s, &m));
            i->at++;
            return SKF_OK;
        }
    }
    *is_over = true;
    return send_end(i, s);
}

void skf_feed_pump(struct skf_feed *feed, struct skf_wire_stream *s)
{
    while (feed->first && skf_wire_queued(s) < ENOUGH) {
        struct item *i = feed->first;
        bool is_over = false;
        enum skf_err e = i->is_meta ? send_part(i, s, &is_over) : send_chunk(i, s, &is_over);
        if (e == SKF_ERR_FULL) /* the next time the stream is writable */
            return;
        if (e != SKF_OK) {
            skf_wire_end(s, skf_wire_status_of(e), "cannot be sent");
            return;
        }
        if (is_over)
            pop(feed);
    }
}
