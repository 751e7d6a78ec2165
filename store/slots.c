/*
 * Slots and journal: which version is what, and what is under way.  Both change together in one transaction, so that a restart
 * never finds a slot without the record that explains it.
 */
#include "store/store_priv.h"

#include "base/alloc.h"

static enum skf_err get_slots(const MDB_val *v, struct skf_slots *out)
{
    const uint8_t *p = v->mv_data, *end = p + v->mv_size;
    for (int i = 0; i < SKF_SLOT_COUNT; i++) {
        if (p == end || *p >= SKF_NAME_MAX || *p > end - p - 1)
            return SKF_ERR_FORMAT;
        memcpy(out->version[i], p + 1, *p);
        out->version[i][*p] = 0;
        p += 1 + *p;
    }
    return p == end ? SKF_OK : SKF_ERR_FORMAT;
}

enum skf_err skf_slots_read(struct skf_store *s, MDB_txn *txn, const char *model, struct skf_slots *out,
                            struct skf_why *why)
{
    memset(out, 0, sizeof *out);
    if (!is_store_name(model))
        return skf_fail(why, SKF_ERR_ARG, "store: '%.140s' is no name of a model", model ? model : "");
    MDB_val k = {strlen(model), (void *)(uintptr_t)model}, v;
    int rc = mdb_get(txn, s->slot, &k, &v);
    if (rc == MDB_NOTFOUND)
        return SKF_OK;
    if (rc)
        return skf_store_fail(why, rc, "slots of %s", model);
    if (get_slots(&v, out) != SKF_OK)
        return skf_fail(why, SKF_ERR_FORMAT, "store: the slots of %s are damaged", model);
    return SKF_OK;
}

enum skf_err skf_store_slots(struct skf_store *s, const char *model, struct skf_slots *out, struct skf_why *why)
{
    MDB_txn *txn;
    SKF_TRY(skf_txn_begin(s, false, &txn, why));
    enum skf_err e = skf_slots_read(s, txn, model, out, why);
    mdb_txn_abort(txn);
    return e;
}

static enum skf_err put_slots(struct skf_store *s, MDB_txn *txn, const char *model, const struct skf_slots *in,
                              struct skf_why *why)
{
    if (!is_store_name(model))
        return skf_fail(why, SKF_ERR_ARG, "store: '%.140s' is no name of a model", model ? model : "");
    uint8_t rec[SKF_SLOT_COUNT * SKF_NAME_MAX];
    size_t len = 0;
    for (int i = 0; i < SKF_SLOT_COUNT; i++) {
        const char *name = in->version[i];
        if (*name && !is_store_name(name))
            return skf_fail(why, SKF_ERR_ARG, "store: a slot of %s names no version", model);
        if (*name && i != SKF_SLOT_INCOMING) {
            MDB_val key, val;
            char keybuf[SKF_VERSION_KEY];
            SKF_TRY(skf_version_find(s, txn, model, name, &key, keybuf, &val, why));
        }
        size_t n = strlen(name);
        rec[len] = (uint8_t)n;
        memcpy(rec + len + 1, name, n);
        len += 1 + n;
    }
    MDB_val k = {strlen(model), (void *)(uintptr_t)model}, v = {len, rec};
    int rc = mdb_put(txn, s->slot, &k, &v, 0);
    return rc ? skf_store_fail(why, rc, "slots of %s", model) : SKF_OK;
}

static enum skf_err put_journal(struct skf_store *s, MDB_txn *txn, const char *key, const void *p, size_t n,
                                struct skf_why *why)
{
    size_t key_len = key ? strlen(key) : 0;
    if (!key_len || key_len > SKF_JOURNAL_KEY)
        return skf_fail(why, SKF_ERR_ARG, "store: a journal key of %zu bytes", key_len);
    if (n > SKF_JOURNAL_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "store: a journal record of %zu bytes", n);
    MDB_val k = {key_len, (void *)(uintptr_t)key}, v = {n, (void *)(uintptr_t)p};
    int rc = n ? mdb_put(txn, s->journal, &k, &v, 0) : mdb_del(txn, s->journal, &k, NULL);
    if (rc == MDB_NOTFOUND && !n)
        rc = 0;
    return rc ? skf_store_fail(why, rc, "journal record %s", key) : SKF_OK;
}

enum skf_err skf_store_set_slots(struct skf_store *s, const char *model, const struct skf_slots *in,
                                 const char *journal_key, const void *journal, size_t journal_len, struct skf_why *why)
{
    MDB_txn *txn;
    SKF_TRY(skf_txn_begin(s, true, &txn, why));
    enum skf_err e = put_slots(s, txn, model, in, why);
    if (e == SKF_OK && journal_key)
        e = put_journal(s, txn, journal_key, journal, journal_len, why);
    return skf_txn_end(txn, e, why);
}

enum skf_err skf_store_journal_put(struct skf_store *s, const char *key, const void *p, size_t n, struct skf_why *why)
{
    MDB_txn *txn;
    SKF_TRY(skf_txn_begin(s, true, &txn, why));
    return skf_txn_end(txn, put_journal(s, txn, key, p, n, why), why);
}

enum skf_err skf_store_journal_get(struct skf_store *s, const char *key, uint8_t **p, size_t *n, struct skf_why *why)
{
    *p = NULL;
    *n = 0;
    if (!key || !*key || strlen(key) > SKF_JOURNAL_KEY)
        return skf_fail(why, SKF_ERR_ARG, "store: bad journal key");
    MDB_txn *txn;
    SKF_TRY(skf_txn_begin(s, false, &txn, why));
    MDB_val k = {strlen(key), (void *)(uintptr_t)key}, v;
    enum skf_err e = SKF_OK;
    int rc = mdb_get(txn, s->journal, &k, &v);
    if (rc == MDB_NOTFOUND)
        e = skf_fail(why, SKF_ERR_NOT_FOUND, "store: no journal record %s", key);
    else if (rc)
        e = skf_store_fail(why, rc, "journal record %s", key);
    else if (!(*p = skf_memdup(v.mv_data, v.mv_size)))
        e = skf_fail(why, SKF_ERR_NOMEM, "store: no memory for journal record %s", key);
    else
        *n = v.mv_size;
    mdb_txn_abort(txn);
    return e;
}
