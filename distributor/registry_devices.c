/* What each device last said and was told (registry.h). */
#include <string.h>

#include "base/alloc.h"
#include "distributor/registry_priv.h"

void skf_reg_device_clear(struct skf_reg_device *d)
{
    skf_free(d->tags);
    skf_free(d->held);
    skf_free(d->work);
    *d = (struct skf_reg_device){.tags = NULL};
}

/* ---- packing --------------------------------------------------------------------------------------------------- */
static enum skf_err pack_held(struct skf_buf *b, const struct skf_reg_held *h)
{
    SKF_TRY(skf_reg_put_text(b, h->model));
    SKF_TRY(skf_reg_put_text(b, h->version));
    SKF_TRY(skf_reg_put_text(b, h->slot));
    return skf_buf_put(b, h->root, SKF_DIGEST);
}

static enum skf_err pack_work(struct skf_buf *b, const struct skf_reg_work *w)
{
    SKF_TRY(skf_reg_put_text(b, w->model));
    SKF_TRY(skf_reg_put_text(b, w->target));
    SKF_TRY(skf_reg_put_text(b, w->id));
    SKF_TRY(skf_buf_u32(b, w->phase));
    SKF_TRY(skf_buf_u64(b, w->chunks_done));
    SKF_TRY(skf_buf_u64(b, w->chunks_total));
    SKF_TRY(skf_buf_u64(b, w->bytes_received));
    SKF_TRY(skf_buf_u64(b, w->swap_pause_us));
    SKF_TRY(skf_reg_put_text(b, w->error_class));
    SKF_TRY(skf_reg_put_text(b, w->error));
    SKF_TRY(skf_buf_u8(b, (uint8_t)((w->has_failed ? 1 : 0) | (w->is_full ? 2 : 0))));
    SKF_TRY(skf_buf_u32(b, w->attempts));
    return skf_buf_u64(b, (uint64_t)w->retry_at);
}

static enum skf_err pack_device(const struct skf_reg_device *d, struct skf_buf *b)
{
    SKF_TRY(skf_buf_u8(b, SKF_REG_RECORD));
    SKF_TRY(skf_reg_put_text(b, d->name));
    SKF_TRY(skf_reg_put_text(b, d->machine));
    SKF_TRY(skf_reg_put_text(b, d->isa));
    SKF_TRY(skf_reg_put_text(b, d->agent_version));
    SKF_TRY(skf_buf_u64(b, (uint64_t)d->last_seen));
    SKF_TRY(skf_buf_u32(b, d->cpus));
    SKF_TRY(skf_buf_u32(b, d->runtime_level));
    SKF_TRY(skf_buf_u64(b, d->memory_bytes));
    SKF_TRY(skf_buf_u64(b, d->disk_free));
    SKF_TRY(skf_buf_u16(b, (uint16_t)d->n_tags));
    for (size_t i = 0; i < d->n_tags; i++)
        SKF_TRY(skf_reg_put_text(b, d->tags[i]));
    SKF_TRY(skf_buf_u16(b, (uint16_t)d->n_held));
    for (size_t i = 0; i < d->n_held; i++)
        SKF_TRY(pack_held(b, &d->held[i]));
    SKF_TRY(skf_buf_u16(b, (uint16_t)d->n_work));
    for (size_t i = 0; i < d->n_work; i++)
        SKF_TRY(pack_work(b, &d->work[i]));
    return SKF_OK;
}

/* ---- unpacking ------------------------------------------------------------------------------------------------- */
static enum skf_err unpack_held(struct skf_reader *r, struct skf_reg_held *h)
{
    SKF_TRY(skf_reg_get_text(r, h->model, sizeof h->model));
    SKF_TRY(skf_reg_get_text(r, h->version, sizeof h->version));
    SKF_TRY(skf_reg_get_text(r, h->slot, sizeof h->slot));
    return skf_reg_get_digest(r, h->root);
}

static enum skf_err unpack_work(struct skf_reader *r, struct skf_reg_work *w)
{
    uint8_t flags;
    uint64_t retry_at;
    SKF_TRY(skf_reg_get_text(r, w->model, sizeof w->model));
    SKF_TRY(skf_reg_get_text(r, w->target, sizeof w->target));
    SKF_TRY(skf_reg_get_text(r, w->id, sizeof w->id));
    SKF_TRY(skf_get_u32(r, &w->phase));
    SKF_TRY(skf_get_u64(r, &w->chunks_done));
    SKF_TRY(skf_get_u64(r, &w->chunks_total));
    SKF_TRY(skf_get_u64(r, &w->bytes_received));
    SKF_TRY(skf_get_u64(r, &w->swap_pause_us));
    SKF_TRY(skf_reg_get_text(r, w->error_class, sizeof w->error_class));
    SKF_TRY(skf_reg_get_text(r, w->error, sizeof w->error));
    SKF_TRY(skf_get_u8(r, &flags));
    SKF_TRY(skf_get_u32(r, &w->attempts));
    SKF_TRY(skf_get_u64(r, &retry_at));
    if (flags > 3)
        return SKF_ERR_FORMAT;
    w->has_failed = flags & 1;
    w->is_full = flags & 2;
    w->retry_at = (int64_t)retry_at;
    return SKF_OK;
}

/* A count of at most max, and memory for that many. */
static enum skf_err get_array(struct skf_reader *r, size_t max, size_t size, size_t *n, void **p)
{
    uint16_t count;
    SKF_TRY(skf_get_u16(r, &count));
    if (count > max)
        return SKF_ERR_FORMAT;
    *p = count ? skf_calloc(count, size) : NULL;
    if (count && !*p)
        return SKF_ERR_NOMEM;
    *n = count;
    return SKF_OK;
}

static enum skf_err unpack_arrays(struct skf_reader *r, struct skf_reg_device *d)
{
    void *p;
    SKF_TRY(get_array(r, SKF_REG_TAGS_MAX, sizeof *d->tags, &d->n_tags, &p));
    d->tags = p;
    for (size_t i = 0; i < d->n_tags; i++)
        SKF_TRY(skf_reg_get_text(r, d->tags[i], sizeof d->tags[i]));
    SKF_TRY(get_array(r, SKF_REG_HELD_MAX, sizeof *d->held, &d->n_held, &p));
    d->held = p;
    for (size_t i = 0; i < d->n_held; i++)
        SKF_TRY(unpack_held(r, &d->held[i]));
    SKF_TRY(get_array(r, SKF_REG_WORK_MAX, sizeof *d->work, &d->n_work, &p));
    d->work = p;
    for (size_t i = 0; i < d->n_work; i++)
        SKF_TRY(unpack_work(r, &d->work[i]));
    return skf_reg_close_record(r);
}

/* On failure the caller clears d. */
static enum skf_err unpack_device(struct skf_reader r, struct skf_reg_device *d)
{
    uint64_t seen;
    SKF_TRY(skf_reg_open_record(&r));
    SKF_TRY(skf_reg_get_text(&r, d->name, sizeof d->name));
    SKF_TRY(skf_reg_get_text(&r, d->machine, sizeof d->machine));
    SKF_TRY(skf_reg_get_text(&r, d->isa, sizeof d->isa));
    SKF_TRY(skf_reg_get_text(&r, d->agent_version, sizeof d->agent_version));
    SKF_TRY(skf_get_u64(&r, &seen));
    SKF_TRY(skf_get_u32(&r, &d->cpus));
    SKF_TRY(skf_get_u32(&r, &d->runtime_level));
    SKF_TRY(skf_get_u64(&r, &d->memory_bytes));
    SKF_TRY(skf_get_u64(&r, &d->disk_free));
    d->last_seen = (int64_t)seen;
    return unpack_arrays(&r, d);
}

/* ---- interface ------------------------------------------------------------------------------------------------- */
static enum skf_err put_device(struct skf_registry *r, MDB_txn *t, const struct skf_reg_device *d, struct skf_buf *b,
                               struct skf_why *why)
{
    struct skf_reg_key key;
    skf_buf_clear(b);
    skf_reg_key(&key, d->name, NULL, NULL);
    SKF_TRY(pack_device(d, b));
    return skf_reg_put(t, r->devices, &key, b, why);
}

enum skf_err skf_registry_put_devices(struct skf_registry *r, const struct skf_reg_device *const *d, size_t n,
                                      struct skf_why *why)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_REG_RECORD_MAX);
    MDB_txn *t;
    if (n == 0)
        return SKF_OK;
    SKF_TRY(skf_reg_begin(r, true, &t, why));
    enum skf_err e = SKF_OK;
    for (size_t i = 0; i < n && e == SKF_OK; i++)
        e = put_device(r, t, d[i], &b, why);
    skf_buf_free(&b);
    return skf_reg_end(t, e, why);
}

struct device_walk {
    enum skf_err (*fn)(void *ctx, struct skf_reg_device *d);
    void *ctx;
};

static enum skf_err walk_device(void *ctx, struct skf_reader key, struct skf_reader value)
{
    struct device_walk *w = ctx;
    struct skf_reg_device d = {.tags = NULL};
    enum skf_err e = unpack_device(value, &d);
    if (e == SKF_OK)
        e = w->fn(w->ctx, &d);
    skf_reg_device_clear(&d);
    return e;
}

enum skf_err skf_registry_each_device(struct skf_registry *r, enum skf_err (*fn)(void *ctx, struct skf_reg_device *d),
                                      void *ctx, struct skf_why *why)
{
    struct device_walk w = {fn, ctx};
    MDB_txn *t;
    SKF_TRY(skf_reg_begin(r, false, &t, why));
    enum skf_err e = skf_reg_scan(t, r->devices, NULL, walk_device, &w);
    if (e != SKF_OK)
        (void)skf_fail(why, e, "registry: devices: %s", skf_err_name(e));
    return skf_reg_end(t, e, why);
}
