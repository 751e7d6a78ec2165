/* Adapters that publishers sent beside their versions, and what became of each (registry.h). */
#include <string.h>

#include "base/alloc.h"
#include "distributor/registry_priv.h"

void skf_reg_adapter_clear(struct skf_reg_adapter *a)
{
    skf_free(a->digests);
    *a = (struct skf_reg_adapter){.digests = NULL};
}

uint32_t skf_reg_adapter_length(const struct skf_reg_adapter *a, uint64_t piece)
{
    uint64_t left = a->size - piece * SKF_ADAPTER_PIECE;
    return left < SKF_ADAPTER_PIECE ? (uint32_t)left : SKF_ADAPTER_PIECE;
}

static bool is_sound(const struct skf_reg_adapter *a)
{
    return a->size > 0 && a->size <= SKF_ADAPTER_MAX && a->n == (a->size + SKF_ADAPTER_PIECE - 1) / SKF_ADAPTER_PIECE;
}

static enum skf_err pack(const struct skf_reg_adapter *a, struct skf_buf *b)
{
    SKF_TRY(skf_buf_u8(b, SKF_REG_RECORD));
    SKF_TRY(skf_buf_put(b, a->from, SKF_DIGEST));
    SKF_TRY(skf_buf_put(b, a->to, SKF_DIGEST));
    SKF_TRY(skf_buf_u64(b, a->size));
    SKF_TRY(skf_reg_put_text(b, a->said));
    return skf_buf_put(b, a->digests, a->n * SKF_DIGEST);
}

enum skf_err skf_reg_unpack_adapter(struct skf_reader r, struct skf_reg_adapter *a)
{
    const uint8_t *digests;
    *a = (struct skf_reg_adapter){.digests = NULL};
    SKF_TRY(skf_reg_open_record(&r));
    SKF_TRY(skf_reg_get_digest(&r, a->from));
    SKF_TRY(skf_reg_get_digest(&r, a->to));
    SKF_TRY(skf_get_u64(&r, &a->size));
    SKF_TRY(skf_reg_get_text(&r, a->said, sizeof a->said));
    a->n = skf_reader_left(&r) / SKF_DIGEST;
    if (!is_sound(a))
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_get_bytes(&r, a->n * SKF_DIGEST, &digests));
    SKF_TRY(skf_reg_close_record(&r));
    a->digests = skf_memdup(digests, a->n * SKF_DIGEST);
    return a->digests ? SKF_OK : SKF_ERR_NOMEM;
}

static enum skf_err get_in(struct skf_registry *r, MDB_txn *t, const uint8_t *from, const uint8_t *to,
                           struct skf_reg_adapter *out, struct skf_why *why)
{
    struct skf_reg_key key;
    struct skf_reader got;
    *out = (struct skf_reg_adapter){.digests = NULL};
    skf_reg_pair_key(&key, from, to);
    enum skf_err e = skf_reg_get(t, r->adapters, &key, &got);
    if (e == SKF_OK)
        e = skf_reg_unpack_adapter(got, out);
    if (e == SKF_OK)
        return e;
    skf_reg_adapter_clear(out);
    return skf_fail(why, e, "registry: adapter: %s", skf_err_name(e));
}

/* An adapter whose place another one takes leaves its pieces. */
static enum skf_err leave_old(struct skf_registry *r, MDB_txn *t, const struct skf_reg_adapter *a, struct skf_why *why)
{
    struct skf_reg_adapter old;
    enum skf_err e = get_in(r, t, a->from, a->to, &old, why);
    if (e == SKF_ERR_NOT_FOUND)
        return SKF_OK;
    if (e == SKF_OK && (old.n != a->n || memcmp(old.digests, a->digests, a->n * SKF_DIGEST) != 0)) {
        struct skf_reg_leftover l = {.digests = old.digests, .n = old.n};
        e = skf_reg_put_leftover(r, t, &l, why);
    }
    skf_reg_adapter_clear(&old);
    return e;
}

enum skf_err skf_reg_put_adapter(struct skf_registry *r, MDB_txn *t, const struct skf_reg_adapter *a,
                                 struct skf_why *why)
{
    struct skf_reg_key key;
    struct skf_buf b = SKF_BUF_INIT(SKF_REG_RECORD_MAX);
    enum skf_err e;
    if (!is_sound(a))
        return skf_fail(why, SKF_ERR_ARG, "adapter: %llu bytes in %zu pieces", (unsigned long long)a->size, a->n);
    SKF_TRY(leave_old(r, t, a, why));
    skf_reg_pair_key(&key, a->from, a->to);
    SKF_GO(e, pack(a, &b));
    e = skf_reg_put(t, r->adapters, &key, &b, why);
out:
    skf_buf_free(&b);
    return e;
}

enum skf_err skf_registry_adapter(struct skf_registry *r, const uint8_t from[SKF_DIGEST], const uint8_t to[SKF_DIGEST],
                                  struct skf_reg_adapter *out, struct skf_why *why)
{
    MDB_txn *t;
    *out = (struct skf_reg_adapter){.digests = NULL};
    SKF_TRY(skf_reg_begin(r, false, &t, why));
    enum skf_err e = get_in(r, t, from, to, out, why);
    mdb_txn_abort(t);
    return e;
}

enum skf_err skf_registry_adapter_said(struct skf_registry *r, const uint8_t from[SKF_DIGEST],
                                       const uint8_t to[SKF_DIGEST], const char *said, struct skf_why *why)
{
    struct skf_reg_adapter a;
    MDB_txn *t;
    SKF_TRY(skf_reg_begin(r, true, &t, why));
    enum skf_err e = get_in(r, t, from, to, &a, why);
    if (e == SKF_OK) {
        (void)snprintf(a.said, sizeof a.said, "%.*s", SKF_ADAPTER_SAID - 1, said);
        for (char *c = a.said; *c; c++) /* it names what stands in files from outside, and travels as text */
            *c = *c < ' ' || *c > '~' ? '?' : *c;
        e = skf_reg_put_adapter(r, t, &a, why);
    }
    skf_reg_adapter_clear(&a);
    return skf_reg_end(t, e, why);
}

struct adapter_walk {
    enum skf_err (*fn)(void *ctx, const struct skf_reg_adapter *a);
    void *ctx;
};

static enum skf_err walk(void *ctx, struct skf_reader key, struct skf_reader value)
{
    struct adapter_walk *w = ctx;
    struct skf_reg_adapter a;
    enum skf_err e = skf_reg_unpack_adapter(value, &a);
    if (e == SKF_OK)
        e = w->fn(w->ctx, &a);
    skf_reg_adapter_clear(&a);
    return e;
}

enum skf_err skf_registry_each_adapter(struct skf_registry *r,
                                       enum skf_err (*fn)(void *ctx, const struct skf_reg_adapter *a), void *ctx)
{
    struct adapter_walk w = {fn, ctx};
    MDB_txn *t;
    SKF_TRY(skf_reg_begin(r, false, &t, NULL));
    return skf_reg_end(t, skf_reg_scan(t, r->adapters, NULL, walk, &w), NULL);
}
