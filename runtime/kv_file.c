/*
 * Pinned pages in a file that outlives the worker.
 *
 *    0  8   "SKFKV", 0, 0, 1
 *    8  32  key: what the pages were computed with (skf_engine_cache_key); a file of another is not looked into any further
 *   40  4   bytes of a page         44  4  pages, n
 *   48  16  zeros
 *   64  168 each of n pages: u32 the page before it, counted from 1, 0 for none; u32 tokens, 1 to 32; 32 i32, the tokens, zeros behind them;
 *           SHA-256 of the page
 *    .  32  SHA-256 of all before; then zeros up to a multiple of 4096, the pages one behind the other, and the end
 *
 * Little-endian; a page as it stands in memory (kernels/kernels.h).  A page comes behind the one before it, which is full.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "runtime/kv_page_priv.h"
#include "runtime/llama_priv.h"

static const uint8_t magic[8] = {'S', 'K', 'F', 'K', 'V', 0, 0, 1};
enum { HEAD = 64, ENTRY = 168, DATA_ALIGN = 4096 };

static uint64_t data_at(uint32_t n) { return (HEAD + (uint64_t)ENTRY * n + SKF_DIGEST + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN; }

/* ---- writing ------------------------------------------------------------------------------------------------------------------------------- */
/* Of an adapter's pages none: the file's key does not name it. */
static bool is_saved(const struct skf_page *g)
{
    static const uint8_t none[SKF_DIGEST];
    return g->is_pinned && memcmp(g->root, none, sizeof none) == 0;
}

/* The pinned page behind g, its parent before it; NULL: g was the last. */
static struct skf_page *next_pinned(const struct skf_pages *p, struct skf_page *g)
{
    struct skf_page *to = g ? g->children : p->first;
    for (;;) {
        while (to && !is_saved(to))
            to = to->sibling;
        if (to || !g)
            return to;
        to = g->sibling;
        g = g->parent;
    }
}

static void put_entry(uint8_t *to, const struct skf_pages *p, const struct skf_page *g)
{
    skf_put_le32(to, g->parent ? g->parent->number : 0);
    skf_put_le32(to + 4, g->n);
    for (uint32_t i = 0; i < g->n; i++)
        skf_put_le32(to + 8 + 4 * i, (uint32_t)g->token[i]);
    skf_sha256(g->data, p->page_bytes, to + ENTRY - SKF_DIGEST);
}

static enum skf_err write_all(struct skf_pages *p, struct skf_draft *d, const uint8_t *table, uint32_t n, struct skf_why *why)
{
    uint64_t at = data_at(n);
    SKF_TRY(skf_draft_write_at(d, 0, table, (size_t)at, why));
    for (struct skf_page *g = next_pinned(p, NULL); g; g = next_pinned(p, g), at += p->page_bytes)
        SKF_TRY(skf_draft_write_at(d, at, g->data, p->page_bytes, why));
    return SKF_OK;
}

enum skf_err skf_pages_save(struct skf_pages *p, const char *path, const uint8_t key[SKF_DIGEST], struct skf_why *why)
{
    uint32_t n = 0;
    struct skf_draft *d = NULL;
    for (struct skf_page *g = next_pinned(p, NULL); g; g = next_pinned(p, g))
        g->number = ++n;
    uint8_t *table = skf_calloc(1, (size_t)data_at(n)), *to = table;
    if (!table)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: no memory for a table of %u pages", path, n);
    memcpy(to, magic, sizeof magic);
    memcpy(to + 8, key, SKF_DIGEST);
    skf_put_le32(to + 40, (uint32_t)p->page_bytes);
    skf_put_le32(to + 44, n);
    to += HEAD;
    for (struct skf_page *g = next_pinned(p, NULL); g; g = next_pinned(p, g), to += ENTRY)
        put_entry(to, p, g);
    skf_sha256(table, (size_t)(to - table), to);
    enum skf_err e = skf_draft_open(path, data_at(n) + (uint64_t)n * p->page_bytes, 0600, &d, why);
    if (e == SKF_OK) {
        e = write_all(p, d, table, n, why);
        if (e == SKF_OK)
            e = skf_draft_commit(d, why);
        else
            skf_draft_abort(d);
    }
    skf_free(table);
    return e;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------------------- */
static enum skf_err read_at(int fd, const char *path, uint64_t at, void *to, size_t n, struct skf_why *why)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = pread(fd, (uint8_t *)to + done, n - done, (off_t)(at + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return skf_fail_errno(why, errno, "%s", path);
        if (k == 0)
            return skf_fail(why, SKF_ERR_FORMAT, "%s: became shorter while it was read", path);
        done += (size_t)k;
    }
    return SKF_OK;
}

/* Only a file that nobody else could have written counts: its digests say that it is whole, not who made it. */
static enum skf_err open_ours(const char *path, int *fd, uint64_t *size, struct skf_why *why)
{
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (*fd < 0)
        return skf_fail_errno(why, errno, "%s", path);
    if (fstat(*fd, &st))
        return skf_fail_errno(why, errno, "%s", path);
    *size = (uint64_t)st.st_size;
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)))
        return skf_fail(why, SKF_ERR_REFUSED, "%s: others can write it, or it is no file of ours", path);
    return SKF_OK;
}

/* The table, checked in itself. *table with skf_free. */
static enum skf_err read_table(const struct skf_pages *p, int fd, const char *path, uint64_t size, const uint8_t key[SKF_DIGEST],
                               uint8_t **table, uint32_t *n, struct skf_why *why)
{
    uint8_t head[HEAD], digest[SKF_DIGEST];
    static const uint8_t zeros[16];
    if (size < HEAD)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: %llu bytes are no file of keys and values", path, (unsigned long long)size);
    SKF_TRY(read_at(fd, path, 0, head, HEAD, why));
    if (memcmp(head, magic, sizeof magic) != 0 || memcmp(head + 48, zeros, sizeof zeros) != 0)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: is no file of keys and values of this version of skiff", path);
    if (memcmp(head + 8, key, SKF_DIGEST) != 0 || skf_le32(head + 40) != p->page_bytes)
        return skf_fail(why, SKF_ERR_BASE, "%s: its keys and values are another model's, or of another type", path);
    *n = skf_le32(head + 44);
    if (*n > p->keep / p->page_bytes)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: holds %u pages, the cache keeps %llu", path, *n, (unsigned long long)(p->keep / p->page_bytes));
    if (size != data_at(*n) + (uint64_t)*n * p->page_bytes)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: has %llu bytes, its %u pages make another number", path, (unsigned long long)size, *n);
    size_t bytes = HEAD + (size_t)ENTRY * *n, all = (size_t)data_at(*n);
    *table = skf_alloc(all);
    if (!*table)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: no memory for a table of %u pages", path, *n);
    SKF_TRY(read_at(fd, path, 0, *table, all, why));
    skf_sha256(*table, bytes, digest);
    if (memcmp(digest, *table + bytes, SKF_DIGEST) != 0)
        return skf_fail(why, SKF_ERR_DIGEST, "%s: its table does not have its digest", path);
    for (size_t i = bytes + SKF_DIGEST; i < all; i++)
        if ((*table)[i])
            return skf_fail(why, SKF_ERR_FORMAT, "%s: something stands behind its table", path);
    return SKF_OK;
}

static bool is_there(const struct skf_pages *p, const struct skf_page *g)
{
    for (const struct skf_page *x = g->parent ? g->parent->children : p->first; x; x = x->sibling)
        if (x->n == g->n && memcmp(x->token, g->token, g->n * sizeof *g->token) == 0)
            return true;
    return false;
}

static enum skf_err check_entry(const struct skf_pages *p, const char *path, const uint8_t *entry, uint32_t i, struct skf_page *const *pages,
                                struct skf_page *g, struct skf_why *why)
{
    uint32_t parent = skf_le32(entry), n = skf_le32(entry + 4);
    bool is_good = parent <= i && n >= 1 && n <= SKF_KV_PAGE && (parent == 0 || pages[parent - 1]->n == SKF_KV_PAGE);
    for (uint32_t k = 0; k < SKF_KV_PAGE && is_good; k++) {
        uint32_t token = skf_le32(entry + 8 + 4 * k);
        is_good = k < n ? token < p->l->n_vocab : token == 0;
        g->token[k] = (int32_t)token;
    }
    g->n = n;
    g->parent = is_good && parent ? pages[parent - 1] : NULL;
    if (!is_good || is_there(p, g))
        return skf_fail(why, SKF_ERR_FORMAT, "%s: page %u is out of order", path, i + 1);
    return SKF_OK;
}

static enum skf_err read_page(struct skf_pages *p, int fd, const char *path, const uint8_t *table, uint32_t n, uint32_t i,
                              struct skf_page **pages, struct skf_why *why)
{
    const uint8_t *entry = table + HEAD + (size_t)ENTRY * i;
    uint8_t digest[SKF_DIGEST];
    struct skf_page *g = skf_calloc(1, sizeof *g);
    if (!g)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: no memory for page %u", path, i + 1);
    enum skf_err e = check_entry(p, path, entry, i, pages, g, why);
    if (e == SKF_OK) {
        g->data = skf_page_data(p);
        e = g->data ? read_at(fd, path, data_at(n) + (uint64_t)i * p->page_bytes, g->data, p->page_bytes, why)
                    : skf_fail(why, SKF_ERR_NOMEM, "%s: no memory for page %u", path, i + 1);
    }
    if (e == SKF_OK) {
        skf_sha256(g->data, p->page_bytes, digest);
        if (memcmp(digest, entry + ENTRY - SKF_DIGEST, SKF_DIGEST) != 0)
            e = skf_fail(why, SKF_ERR_DIGEST, "%s: page %u does not have its digest", path, i + 1);
    }
    g->refs = 1;
    if (e == SKF_OK) {
        skf_page_list(p, g, g->n == SKF_KV_PAGE ? skf_page_hash(p, g->parent, g->token) : 0);
        pages[i] = g;
    } else {
        skf_page_let_go(p, g); /* which is not listed */
    }
    return e;
}

enum skf_err skf_pages_load(struct skf_pages *p, const char *path, const uint8_t key[SKF_DIGEST], uint32_t *n, struct skf_why *why)
{
    int fd = -1;
    uint64_t size = 0;
    uint8_t *table = NULL;
    struct skf_page **pages = NULL;
    uint32_t many = 0, got = 0;
    enum skf_err e;
    *n = 0;
    SKF_GO(e, open_ours(path, &fd, &size, why));
    SKF_GO(e, read_table(p, fd, path, size, key, &table, &many, why));
    pages = skf_calloc(many + 1, sizeof *pages);
    if (!pages)
        e = skf_fail(why, SKF_ERR_NOMEM, "%s: no memory for %u pages", path, many);
    while (e == SKF_OK && got < many) {
        e = read_page(p, fd, path, table, many, got, pages, why);
        got += e == SKF_OK;
    }
    *n = got;
    while (got > 0) /* the last first: it is to go first */
        skf_page_let_go(p, pages[--got]);
out:
    if (fd >= 0)
        (void)close(fd);
    skf_free(table);
    skf_free(pages);
    return e;
}
