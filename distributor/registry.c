/* The registry's frame over LMDB: environment, transactions, keys, the parts of records (registry.h, registry_priv.h).
 */
#include "distributor/registry_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"

#define MAP_SIZE ((size_t)16 << 30) /* address space, not disk */

bool is_registry_name(const char *s)
{
    size_t n = s ? strlen(s) : 0;
    if (n == 0 || n >= SKF_REG_NAME || strcmp(s, ".") == 0 || strcmp(s, "..") == 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
              c == '-'))
            return false;
    }
    return true;
}

enum skf_err skf_reg_fail(struct skf_why *why, int rc, const char *what)
{
    switch (rc) {
    case 0:
        return SKF_OK;
    case MDB_NOTFOUND:
        return skf_fail(why, SKF_ERR_NOT_FOUND, "registry: %s: not there", what);
    case MDB_MAP_FULL:
        return skf_fail(why, SKF_ERR_FULL, "registry: %s: the database has reached its limit", what);
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
        return skf_fail(why, SKF_ERR_FORMAT, "registry: %s: %s", what, mdb_strerror(rc));
    default:
        break;
    }
    return rc > 0 ? skf_fail_errno(why, rc, "registry: %s", what)
                  : skf_fail(why, SKF_ERR_INTERNAL, "registry: %s: %s", what, mdb_strerror(rc));
}

/* ---- opening --------------------------------------------------------------------------------------------------- */
static enum skf_err take_lock(const char *dir, int *fd, struct skf_why *why)
{
    char path[PATH_MAX];
    SKF_TRY(skf_path(path, sizeof path, dir, "owner"));
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*fd < 0)
        return skf_fail_errno(why, errno, "%s", path);
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK ? skf_fail(why, SKF_ERR_BUSY, "%s: another distributor uses this registry", dir)
                                    : skf_fail_errno(why, errno, "%s", path);
    return SKF_OK;
}

static enum skf_err open_dbs(struct skf_registry *r, struct skf_why *why)
{
    static const char *const names[] = {"meta", "versions", "manifests", "channels",
                                        "pins", "deltas",   "adapters",  "devices",  "leftovers", "removed"};
    MDB_dbi *const dbs[] = {&r->meta, &r->versions, &r->manifests, &r->channels,
                            &r->pins, &r->deltas,   &r->adapters,  &r->devices,  &r->leftovers, &r->removed};
    struct skf_buf b = SKF_BUF_INIT(16);
    struct skf_reader got;
    struct skf_reg_key key;
    uint8_t format;
    MDB_txn *t;
    SKF_TRY(skf_reg_begin(r, true, &t, why));
    enum skf_err e = SKF_OK;
    for (size_t i = 0; i < sizeof dbs / sizeof dbs[0] && e == SKF_OK; i++)
        e = skf_reg_fail(why, mdb_dbi_open(t, names[i], MDB_CREATE, dbs[i]), names[i]);
    if (e != SKF_OK)
        goto out;
    skf_reg_key(&key, "format", NULL, NULL);
    e = skf_reg_get(t, r->meta, &key, &got);
    if (e == SKF_OK) {
        e = skf_get_u8(&got, &format);
        if (e == SKF_OK && format != SKF_REG_RECORD)
            e = skf_fail(why, SKF_ERR_UNSUPPORTED, "registry: written by another release (format %u)", format);
    } else if (e == SKF_ERR_NOT_FOUND) {
        SKF_GO(e, skf_buf_u8(&b, SKF_REG_RECORD));
        e = skf_reg_put(t, r->meta, &key, &b, why);
    }
out:
    skf_buf_free(&b);
    return skf_reg_end(t, e, why);
}

enum skf_err skf_registry_open(const char *dir, struct skf_registry **out, struct skf_why *why)
{
    struct skf_registry *r = skf_calloc(1, sizeof *r);
    if (!r)
        return skf_fail(why, SKF_ERR_NOMEM, "registry: out of memory");
    r->lock_fd = -1;
    enum skf_err e;
    SKF_GO(e, skf_mkdirs(dir, 0700, why));
    SKF_GO(e, take_lock(dir, &r->lock_fd, why));
    SKF_GO(e, skf_reg_fail(why, mdb_env_create(&r->env), dir));
    SKF_GO(e, skf_reg_fail(why, mdb_env_set_maxdbs(r->env, 16), dir));
    SKF_GO(e, skf_reg_fail(why, mdb_env_set_maxreaders(r->env, 1024), dir));
    SKF_GO(e, skf_reg_fail(why, mdb_env_set_mapsize(r->env, MAP_SIZE), dir));
    SKF_GO(e, skf_reg_fail(why, mdb_env_open(r->env, dir, MDB_NOTLS, 0600), dir));
    int dead;
    SKF_GO(e, skf_reg_fail(why, mdb_reader_check(r->env, &dead), dir));
    SKF_GO(e, open_dbs(r, why));
    *out = r;
    return SKF_OK;
out:
    skf_registry_close(r);
    return e;
}

void skf_registry_close(struct skf_registry *r)
{
    if (!r)
        return;
    if (r->env)
        mdb_env_close(r->env);
    if (r->lock_fd >= 0)
        (void)close(r->lock_fd);
    skf_free(r);
}

/* ---- transactions ---------------------------------------------------------------------------------------------- */
enum skf_err skf_reg_begin(struct skf_registry *r, bool is_write, MDB_txn **t, struct skf_why *why)
{
    return skf_reg_fail(why, mdb_txn_begin(r->env, NULL, is_write ? 0 : MDB_RDONLY, t), "transaction");
}

enum skf_err skf_reg_end(MDB_txn *take_t, enum skf_err e, struct skf_why *why)
{
    if (e == SKF_OK)
        return skf_reg_fail(why, mdb_txn_commit(take_t), "commit");
    mdb_txn_abort(take_t);
    return e;
}

enum skf_err skf_reg_get(MDB_txn *t, MDB_dbi db, const struct skf_reg_key *k, struct skf_reader *value)
{
    MDB_val key = {k->n, (void *)(uintptr_t)k->bytes}, v;
    int rc = mdb_get(t, db, &key, &v);
    if (rc != 0)
        return skf_reg_fail(NULL, rc, "get");
    *value = skf_reader_of(v.mv_data, v.mv_size);
    return SKF_OK;
}

enum skf_err skf_reg_put(MDB_txn *t, MDB_dbi db, const struct skf_reg_key *k, const struct skf_buf *value,
                         struct skf_why *why)
{
    MDB_val key = {k->n, (void *)(uintptr_t)k->bytes}, v = {value->len, value->data};
    return skf_reg_fail(why, mdb_put(t, db, &key, &v, 0), "put");
}

enum skf_err skf_reg_del(MDB_txn *t, MDB_dbi db, const void *key, size_t n, struct skf_why *why)
{
    MDB_val k = {n, (void *)(uintptr_t)key};
    int rc = mdb_del(t, db, &k, NULL);
    return rc == MDB_NOTFOUND ? SKF_OK : skf_reg_fail(why, rc, "delete");
}

enum skf_err skf_reg_scan(MDB_txn *t, MDB_dbi db, const struct skf_reg_key *prefix,
                          enum skf_err (*fn)(void *ctx, struct skf_reader key, struct skf_reader value), void *ctx)
{
    MDB_cursor *c;
    MDB_val key = {0, NULL}, v;
    SKF_TRY(skf_reg_fail(NULL, mdb_cursor_open(t, db, &c), "cursor"));
    if (prefix)
        key = (MDB_val){prefix->n, (void *)(uintptr_t)prefix->bytes};
    int rc = mdb_cursor_get(c, &key, &v, prefix ? MDB_SET_RANGE : MDB_FIRST);
    enum skf_err e = SKF_OK;
    for (; rc == 0; rc = mdb_cursor_get(c, &key, &v, MDB_NEXT)) {
        if (prefix && (key.mv_size < prefix->n || memcmp(key.mv_data, prefix->bytes, prefix->n) != 0))
            break;
        e = fn(ctx, skf_reader_of(key.mv_data, key.mv_size), skf_reader_of(v.mv_data, v.mv_size));
        if (e != SKF_OK)
            break;
    }
    mdb_cursor_close(c);
    return e != SKF_OK || rc == 0 || rc == MDB_NOTFOUND ? e : skf_reg_fail(NULL, rc, "cursor");
}

enum skf_err skf_reg_serial(struct skf_registry *r, MDB_txn *t, uint64_t *serial, struct skf_why *why)
{
    struct skf_reg_key key;
    struct skf_reader got;
    struct skf_buf b = SKF_BUF_INIT(16);
    uint64_t last = 0;
    skf_reg_key(&key, "serial", NULL, NULL);
    enum skf_err e = skf_reg_get(t, r->meta, &key, &got);
    if (e == SKF_OK)
        e = skf_get_u64(&got, &last);
    else if (e == SKF_ERR_NOT_FOUND)
        e = SKF_OK;
    if (e != SKF_OK)
        return skf_fail(why, e, "registry: serial: %s", skf_err_name(e));
    SKF_GO(e, skf_buf_u64(&b, last + 1));
    SKF_GO(e, skf_reg_put(t, r->meta, &key, &b, why));
    *serial = last + 1;
out:
    skf_buf_free(&b);
    return e;
}

/* ---- keys and the parts of records ----------------------------------------------------------------------------- */
static void key_add(struct skf_reg_key *k, const char *s)
{
    size_t n = strnlen(s, SKF_REG_NAME); /* a name of more than 128 is none, and finds nothing */
    memcpy(k->bytes + k->n, s, n);
    k->n += n;
}

void skf_reg_key(struct skf_reg_key *k, const char *a, const char *b, const char *c)
{
    const char *const parts[] = {a, b, c};
    k->n = 0;
    for (size_t i = 0; i < 3 && parts[i]; i++) {
        if (i)
            k->bytes[k->n++] = 0;
        key_add(k, parts[i]);
    }
}

void skf_reg_prefix(struct skf_reg_key *k, const char *a)
{
    skf_reg_key(k, a, NULL, NULL);
    k->bytes[k->n++] = 0;
}

void skf_reg_pair_key(struct skf_reg_key *k, const uint8_t from[SKF_DIGEST], const uint8_t to[SKF_DIGEST])
{
    memcpy(k->bytes, to, SKF_DIGEST);
    k->n = SKF_DIGEST;
    if (from) {
        memcpy(k->bytes + SKF_DIGEST, from, SKF_DIGEST);
        k->n += SKF_DIGEST;
    }
}

enum skf_err skf_reg_put_text(struct skf_buf *b, const char *s)
{
    size_t n = strlen(s);
    if (n > UINT16_MAX)
        return SKF_ERR_LIMIT;
    SKF_TRY(skf_buf_u16(b, (uint16_t)n));
    return skf_buf_put(b, s, n);
}

enum skf_err skf_reg_get_text(struct skf_reader *r, char *out, size_t cap)
{
    uint16_t n;
    const uint8_t *p;
    SKF_TRY(skf_get_u16(r, &n));
    SKF_TRY(skf_get_bytes(r, n, &p));
    if (n >= cap || (n && memchr(p, 0, n)))
        return SKF_ERR_FORMAT;
    if (n)
        memcpy(out, p, n);
    out[n] = 0;
    return SKF_OK;
}

enum skf_err skf_reg_get_digest(struct skf_reader *r, uint8_t out[SKF_DIGEST])
{
    const uint8_t *p;
    SKF_TRY(skf_get_bytes(r, SKF_DIGEST, &p));
    memcpy(out, p, SKF_DIGEST);
    return SKF_OK;
}

enum skf_err skf_reg_open_record(struct skf_reader *r)
{
    uint8_t v;
    SKF_TRY(skf_get_u8(r, &v));
    return v == SKF_REG_RECORD ? SKF_OK : SKF_ERR_UNSUPPORTED;
}

enum skf_err skf_reg_close_record(const struct skf_reader *r)
{
    return skf_reader_left(r) ? SKF_ERR_FORMAT : SKF_OK;
}
