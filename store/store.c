/*
 * Opening and closing the store, transactions, and the translation of LMDB's errors.
 */
#include "store/store_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/util.h"

#define DEFAULT_MAP       (64ull << 30)
#define DEFAULT_KEEP_FREE (64ull << 20)
#define MAX_READERS       254

static enum skf_err err_of(int rc)
{
    switch (rc) {
    case MDB_NOTFOUND:
    case ENOENT:
        return SKF_ERR_NOT_FOUND;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
    case ENOSPC:
    case EDQUOT:
        return SKF_ERR_FULL;
    case ENOMEM:
        return SKF_ERR_NOMEM;
    case MDB_READERS_FULL:
    case MDB_MAP_RESIZED:
    case EAGAIN:
        return SKF_ERR_BUSY;
    case MDB_CORRUPTED:
    case MDB_INVALID:
    case MDB_PAGE_NOTFOUND:
        return SKF_ERR_FORMAT;
    case MDB_VERSION_MISMATCH:
        return SKF_ERR_UNSUPPORTED;
    default:
        return rc > 0 ? SKF_ERR_IO : SKF_ERR_INTERNAL;
    }
}

enum skf_err skf_store_fail(struct skf_why *why, int rc, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return skf_fail(why, err_of(rc), "%s: %s", text, mdb_strerror(rc));
}

bool is_store_name(const char *name)
{
    if (!name || !*name)
        return false;
    size_t n = 0;
    for (; name[n]; n++) {
        char c = name[n];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
                  c == '-';
        if (!ok || n + 1 >= SKF_NAME_MAX)
            return false;
    }
    return true;
}

enum skf_err skf_txn_begin(struct skf_store *s, bool is_write, MDB_txn **txn, struct skf_why *why)
{
    *txn = NULL;
    if (is_write && s->lock_fd < 0)
        return skf_fail(why, SKF_ERR_STATE, "%s: opened for reading only", s->dir);
    int rc = mdb_txn_begin(s->env, NULL, is_write ? 0 : MDB_RDONLY, txn);
    return rc ? skf_store_fail(why, rc, "%s: begin", s->dir) : SKF_OK;
}

enum skf_err skf_txn_end(MDB_txn *take_txn, enum skf_err e, struct skf_why *why)
{
    if (!take_txn)
        return e;
    if (e != SKF_OK) {
        mdb_txn_abort(take_txn);
        return e;
    }
    int rc = mdb_txn_commit(take_txn);
    return rc ? skf_store_fail(why, rc, "store: commit") : SKF_OK;
}

/* One writer at a time. flock follows the open file, so a second open in this process is refused too. */
static enum skf_err take_lock(struct skf_store *s, struct skf_why *why)
{
    char path[4200];
    SKF_TRY(skf_path(path, sizeof path, s->dir, "writer.lock"));
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0)
        return skf_fail_errno(why, errno, "%s", path);
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return skf_fail(why, SKF_ERR_BUSY, "%s: another process writes this store", s->dir);
        return skf_fail_errno(why, errno, "%s", path);
    }
    return SKF_OK;
}

static enum skf_err open_env(struct skf_store *s, const struct skf_store_opts *o, struct skf_why *why)
{
    bool is_write = o->mode == SKF_STORE_WRITE;
    int rc = mdb_env_create(&s->env);
    if (rc)
        return skf_store_fail(why, rc, "%s", s->dir);
    uint64_t map = o->map_size ? o->map_size : is_write ? DEFAULT_MAP : 0; /* a reader takes the file's own */
    /* The quota is the size of the writer's map: LMDB then enforces it to the page. A file that is larger already stays usable,
     * since LMDB raises a map that is too small for what is there. */
    if (is_write && o->quota && o->quota < map)
        map = SKF_MAX(o->quota, 16 * 65536u);
    if (map && (rc = mdb_env_set_mapsize(s->env, (size_t)map & ~(size_t)65535)))
        return skf_store_fail(why, rc, "%s: map of %llu bytes", s->dir, (unsigned long long)map);
    if ((rc = mdb_env_set_maxdbs(s->env, 8)) || (rc = mdb_env_set_maxreaders(s->env, MAX_READERS)))
        return skf_store_fail(why, rc, "%s", s->dir);
    rc = mdb_env_open(s->env, s->dir, MDB_NOTLS | MDB_NORDAHEAD | (is_write ? 0 : MDB_RDONLY), 0600);
    if (rc == ENOENT)
        return skf_fail(why, SKF_ERR_NOT_FOUND, "%s: no store here", s->dir);
    if (rc)
        return skf_store_fail(why, rc, "%s", s->dir);
    MDB_stat st;
    if ((rc = mdb_env_stat(s->env, &st)))
        return skf_store_fail(why, rc, "%s", s->dir);
    s->page = st.ms_psize;
    return SKF_OK;
}

static enum skf_err check_format(struct skf_store *s, MDB_txn *txn, bool is_write, struct skf_why *why)
{
    MDB_val k = {6, (void *)(uintptr_t)"format"}, v;
    int rc = mdb_get(txn, s->meta, &k, &v);
    if (rc == MDB_NOTFOUND && is_write) {
        uint8_t format[4];
        skf_put_le32(format, SKF_STORE_FORMAT);
        v = (MDB_val){sizeof format, format};
        rc = mdb_put(txn, s->meta, &k, &v, 0);
        return rc ? skf_store_fail(why, rc, "%s", s->dir) : SKF_OK;
    }
    if (rc)
        return skf_store_fail(why, rc, "%s: format", s->dir);
    if (v.mv_size != 4)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: the format record has %zu bytes, not 4", s->dir, v.mv_size);
    uint32_t format = skf_le32(v.mv_data);
    if (format != SKF_STORE_FORMAT)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: store format %u, this build knows %u", s->dir, format,
                        SKF_STORE_FORMAT);
    return SKF_OK;
}

static enum skf_err open_tables(struct skf_store *s, bool is_write, struct skf_why *why)
{
    const struct {
        const char *name;
        MDB_dbi *dbi;
    } tables[] = {{"meta", &s->meta}, {"chunk", &s->chunk}, {"version", &s->version}, {"slot", &s->slot},
                  {"journal", &s->journal}};
    MDB_txn *txn;
    SKF_TRY(skf_txn_begin(s, is_write, &txn, why));
    enum skf_err e = SKF_OK;
    for (size_t i = 0; e == SKF_OK && i < SKF_COUNT(tables); i++) {
        int rc = mdb_dbi_open(txn, tables[i].name, is_write ? MDB_CREATE : 0, tables[i].dbi);
        if (rc == MDB_NOTFOUND)
            e = skf_fail(why, SKF_ERR_FORMAT, "%s: table %s is missing; not a store of ours", s->dir, tables[i].name);
        else if (rc)
            e = skf_store_fail(why, rc, "%s: table %s", s->dir, tables[i].name);
    }
    if (e == SKF_OK)
        e = check_format(s, txn, is_write, why);
    return skf_txn_end(txn, e, why); /* committing a read transaction keeps the handles */
}

enum skf_err skf_store_open(const char *dir, const struct skf_store_opts *opts, struct skf_store **out,
                            struct skf_why *why)
{
    *out = NULL;
    if (!dir || !*dir || strlen(dir) >= sizeof ((struct skf_store *)0)->dir)
        return skf_fail(why, SKF_ERR_ARG, "store: folder name is empty or too long");
    bool is_write = opts->mode == SKF_STORE_WRITE;
    if (is_write)
        SKF_TRY(skf_mkdirs(dir, 0700, why));
    struct skf_store *s = skf_calloc(1, sizeof *s);
    if (!s)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: no memory", dir);
    s->lock_fd = -1;
    s->keep_free = opts->keep_free ? opts->keep_free : DEFAULT_KEEP_FREE;
    (void)snprintf(s->dir, sizeof s->dir, "%s", dir);
    enum skf_err e = SKF_OK;
    if (is_write)
        SKF_GO(e, take_lock(s, why));
    SKF_GO(e, open_env(s, opts, why));
    int dead = 0; /* a reader that was killed would hold back its pages for ever */
    (void)mdb_reader_check(s->env, &dead);
    SKF_GO(e, open_tables(s, is_write, why));
    *out = s;
    return SKF_OK;
out:
    skf_store_close(s);
    return e;
}

void skf_store_close(struct skf_store *s)
{
    if (!s)
        return;
    if (s->env)
        mdb_env_close(s->env);
    if (s->lock_fd >= 0)
        close(s->lock_fd); /* the file stays: removing it would let two writers lock two files of one name */
    skf_free(s);
}
