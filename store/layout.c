/*
 * A kept layout (layout.h) on the disk.  All integers are little-endian:
 *
 *   0    u32 "SKL1"              4   u32 format of the file, 1      8   u32 the layout's format    12  u32 count of parts
 *   16   root of the version     48  u64 bytes of the body          56  u64 zero
 *   64   digest of the body: the Merkle root (base/digest.h) of its pieces of 1 MiB
 *   96   SHA-256 of bytes 0 to 95 and the table
 *   128  table: u32 number, u32 kind, u64 bytes of each part; zeros up to a multiple of 4096
 *        the body: the parts one behind another
 */
#include "store/layout.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/util.h"

#define MAGIC       0x314c4b53u /* "SKL1" */
#define FILE_FORMAT 1u
#define HEAD        128u
#define ENTRY       16u
#define ALIGN       4096u
#define PARTS_MAX   (1u << 16)
#define PIECE       (1u << 20)
#define FOLDER      "layout"
#define SUFFIX      ".skl"

struct skf_layout {
    struct skf_map map;
    uint64_t body, bytes;
    uint32_t n;
    struct skf_layout_part *parts;
    uint64_t *at; /* of each part, in the body */
    uint8_t digest[SKF_DIGEST];
    char path[4096];
};

static enum skf_err path_of(const char *dir, const uint8_t root[SKF_DIGEST], char path[4096], struct skf_why *why)
{
    char hex[SKF_HEX], name[sizeof FOLDER + SKF_HEX + sizeof SUFFIX];
    skf_hex(root, SKF_DIGEST, hex);
    (void)snprintf(name, sizeof name, "%s/%s%s", FOLDER, hex, SUFFIX);
    enum skf_err e = skf_path(path, 4096, dir, name);
    return e == SKF_OK ? e : skf_fail(why, e, "%.200s: too long a name", dir);
}

static uint64_t body_at(uint32_t n) { return (HEAD + (uint64_t)n * ENTRY + ALIGN - 1) / ALIGN * ALIGN; }

/* ---- the body's digest --------------------------------------------------------------------------------------------------- */

struct hashing {
    const uint8_t *p;
    uint64_t n;
    uint8_t *digests; /* of the pieces */
};
struct some_pieces {
    struct skf_message m[SKF_SHA256_MANY];
    unsigned n;
};

static enum skf_err hash_some(void *ctx, struct skf_why *why)
{
    const struct some_pieces *s = ctx;
    (void)why;
    skf_sha256_many(s->m, s->n);
    return SKF_OK;
}

static enum skf_err hash_part(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    const struct hashing *h = ctx;
    struct some_pieces s = {.n = 0};
    (void)worker;
    for (uint64_t k = i * SKF_SHA256_MANY; s.n < SKF_SHA256_MANY && k * PIECE < h->n; k++)
        s.m[s.n++] = (struct skf_message){h->p + k * PIECE, (size_t)SKF_MIN(h->n - k * PIECE, (uint64_t)PIECE), h->digests + k * SKF_DIGEST};
    return skf_map_guard(hash_some, &s, why); /* a disk that fails is an error here, not the end of the process */
}

static enum skf_err digest_of(const uint8_t *p, uint64_t n, unsigned jobs, uint8_t out[SKF_DIGEST], struct skf_why *why)
{
    uint64_t pieces = n / PIECE + (n % PIECE > 0);
    struct skf_merkle tree;
    struct hashing h = {p, n, skf_calloc((size_t)pieces + 1, SKF_DIGEST)};
    if (!h.digests)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a layout's digests");
    enum skf_err e = skf_par_for(jobs, (pieces + SKF_SHA256_MANY - 1) / SKF_SHA256_MANY, hash_part, &h, why);
    skf_merkle_init(&tree);
    for (uint64_t i = 0; i < pieces; i++)
        skf_merkle_add(&tree, h.digests + i * SKF_DIGEST, SKF_MIN(n - i * PIECE, (uint64_t)PIECE));
    skf_merkle_root(&tree, out);
    skf_free(h.digests);
    return e;
}

/* The head's own digest; `head` is all of it, table included. */
static enum skf_err head_digest(const uint8_t *head, uint32_t n, uint8_t out[SKF_DIGEST])
{
    struct skf_sha256_ctx *c = skf_sha256_new();
    if (!c)
        return SKF_ERR_NOMEM;
    skf_sha256_add(c, head, 96);
    skf_sha256_add(c, head + HEAD, (size_t)n * ENTRY);
    skf_sha256_final(c, out);
    return SKF_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

static enum skf_err read_parts(struct skf_layout *l, struct skf_why *why)
{
    const uint8_t *p = l->map.data + HEAD;
    uint64_t off = 0;
    l->parts = skf_calloc((size_t)l->n + 1, sizeof *l->parts);
    l->at = skf_calloc((size_t)l->n + 1, sizeof *l->at);
    if (!l->parts || !l->at)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: no memory for its table", l->path);
    for (uint32_t i = 0; i < l->n; i++, p += ENTRY) {
        l->parts[i] = (struct skf_layout_part){skf_le32(p), skf_le32(p + 4), skf_le64(p + 8)};
        l->at[i] = off;
        if (!l->parts[i].bytes || l->parts[i].bytes % 64 || !is_add_ok(off, l->parts[i].bytes, &off))
            return skf_fail(why, SKF_ERR_FORMAT, "%s: part %u has %llu bytes", l->path, i, (unsigned long long)l->parts[i].bytes);
    }
    if (off != l->bytes)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: its parts have %llu bytes, its body %llu", l->path, (unsigned long long)off,
                        (unsigned long long)l->bytes);
    return SKF_OK;
}

static enum skf_err read_head(struct skf_layout *l, const uint8_t root[SKF_DIGEST], uint32_t format, struct skf_why *why)
{
    const uint8_t *h = l->map.data;
    uint8_t digest[SKF_DIGEST];
    if (l->map.size < HEAD || skf_le32(h) != MAGIC)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: no kept layout", l->path);
    if (skf_le32(h + 4) != FILE_FORMAT || skf_le32(h + 8) != format)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: formats %u and %u, this build knows %u and %u", l->path, skf_le32(h + 4), skf_le32(h + 8),
                        FILE_FORMAT, format);
    l->n = skf_le32(h + 12);
    l->body = body_at(l->n);
    l->bytes = skf_le64(h + 48);
    if (l->n > PARTS_MAX || l->map.size < l->body || l->map.size - l->body != l->bytes || skf_le64(h + 56))
        return skf_fail(why, SKF_ERR_FORMAT, "%s: %llu bytes, which its head does not say", l->path, (unsigned long long)l->map.size);
    SKF_TRY(head_digest(h, l->n, digest));
    if (memcmp(digest, h + 96, SKF_DIGEST) != 0 || memcmp(h + 16, root, SKF_DIGEST) != 0)
        return skf_fail(why, SKF_ERR_DIGEST, "%s: its head is damaged, or of another version", l->path);
    memcpy(l->digest, h + 64, SKF_DIGEST);
    return read_parts(l, why);
}

struct heading {
    struct skf_layout *l;
    const uint8_t *root;
    uint32_t format;
};
static enum skf_err read_guarded(void *ctx, struct skf_why *why)
{
    const struct heading *h = ctx;
    return read_head(h->l, h->root, h->format, why);
}

enum skf_err skf_layout_open(const char *dir, const uint8_t root[SKF_DIGEST], uint32_t format, struct skf_layout **out, struct skf_why *why)
{
    *out = NULL;
    struct skf_layout *l = skf_calloc(1, sizeof *l);
    if (!l)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a layout");
    struct heading h = {l, root, format};
    enum skf_err e;
    SKF_GO(e, path_of(dir, root, l->path, why));
    SKF_GO(e, skf_map_open(l->path, &l->map, why));
    SKF_GO(e, skf_map_guard(read_guarded, &h, why));
    *out = l;
    return SKF_OK;
out:
    skf_layout_close(l);
    return e;
}

void skf_layout_close(struct skf_layout *l)
{
    if (!l)
        return;
    skf_map_close(&l->map);
    skf_free(l->parts);
    skf_free(l->at);
    skf_free(l);
}

enum skf_err skf_layout_verify(const struct skf_layout *l, unsigned jobs, struct skf_why *why)
{
    uint8_t digest[SKF_DIGEST];
    SKF_TRY(digest_of(l->map.data + l->body, l->bytes, jobs, digest, why));
    return memcmp(digest, l->digest, SKF_DIGEST) == 0 ? SKF_OK : skf_fail(why, SKF_ERR_DIGEST, "%s: does not have its digest", l->path);
}

const uint8_t *skf_layout_part(const struct skf_layout *l, uint32_t number, uint32_t kind, uint64_t bytes)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (l->parts[i].number == number)
            return l->parts[i].kind == kind && l->parts[i].bytes == bytes ? l->map.data + l->body + l->at[i] : NULL;
    return NULL;
}

const uint8_t *skf_layout_body(const struct skf_layout *l, uint64_t *bytes)
{
    *bytes = l->bytes;
    return l->map.data + l->body;
}

uint64_t skf_layout_bytes(const struct skf_layout *l) { return l->map.size; }
uint32_t skf_layout_count(const struct skf_layout *l) { return l->n; }

/* ---- making -------------------------------------------------------------------------------------------------------------- */

struct skf_layout_maker {
    struct skf_draft *draft;
    uint64_t body, bytes;
    uint32_t n;
    struct skf_layout_part *parts;
    uint64_t *at;
    uint8_t *head;
};

static void free_maker(struct skf_layout_maker *m)
{
    skf_free(m->parts);
    skf_free(m->at);
    skf_free(m->head);
    skf_free(m);
}

static enum skf_err set_parts(struct skf_layout_maker *m, const struct skf_layout_part *parts, struct skf_why *why)
{
    m->body = body_at(m->n);
    m->parts = skf_calloc((size_t)m->n + 1, sizeof *m->parts);
    m->at = skf_calloc((size_t)m->n + 1, sizeof *m->at);
    m->head = skf_calloc((size_t)m->body, 1);
    if (!m->parts || !m->at || !m->head)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a layout's table");
    for (uint32_t i = 0; i < m->n; i++) {
        uint8_t *p = m->head + HEAD + (size_t)i * ENTRY;
        m->parts[i] = parts[i];
        m->at[i] = m->bytes;
        skf_put_le32(p, parts[i].number);
        skf_put_le32(p + 4, parts[i].kind);
        skf_put_le64(p + 8, parts[i].bytes);
        if (!parts[i].bytes || parts[i].bytes % 64 || !is_add_ok(m->bytes, parts[i].bytes, &m->bytes))
            return skf_fail(why, SKF_ERR_ARG, "a part of a layout of %llu bytes", (unsigned long long)parts[i].bytes);
    }
    return SKF_OK;
}

static enum skf_err reserve(struct skf_layout_maker *m, const char *dir, const char *path, uint64_t spare, struct skf_why *why)
{
    uint64_t disk, need;
    SKF_TRY(skf_disk_free(dir, &disk, why));
    if (!is_add_ok(m->body + m->bytes, SKF_LAYOUT_KEEP_FREE, &need) || !is_add_ok(need, spare, &need) || need > disk)
        return skf_fail(why, SKF_ERR_FULL, "%s: %llu bytes, the disk has %llu (%llu are to stay free)", path,
                        (unsigned long long)(m->body + m->bytes), (unsigned long long)disk, (unsigned long long)(SKF_LAYOUT_KEEP_FREE + spare));
    return skf_draft_open(path, m->body + m->bytes, 0600, &m->draft, why);
}

enum skf_err skf_layout_begin(const char *dir, const uint8_t root[SKF_DIGEST], uint32_t format, const struct skf_layout_part *parts, uint32_t n,
                              uint64_t spare, struct skf_layout_maker **out, struct skf_why *why)
{
    char folder[4096], path[4096];
    *out = NULL;
    if (n > PARTS_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "a layout of %u parts", n);
    SKF_TRY(path_of(dir, root, path, why));
    SKF_TRY(skf_path(folder, sizeof folder, dir, FOLDER));
    SKF_TRY(skf_mkdirs(folder, 0700, why));
    struct skf_layout_maker *m = skf_calloc(1, sizeof *m);
    if (!m)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a layout");
    m->n = n;
    enum skf_err e;
    SKF_GO(e, set_parts(m, parts, why));
    SKF_GO(e, reserve(m, dir, path, spare, why));
    skf_put_le32(m->head, MAGIC);
    skf_put_le32(m->head + 4, FILE_FORMAT);
    skf_put_le32(m->head + 8, format);
    skf_put_le32(m->head + 12, n);
    memcpy(m->head + 16, root, SKF_DIGEST);
    skf_put_le64(m->head + 48, m->bytes);
    *out = m;
    return SKF_OK;
out:
    free_maker(m);
    return e;
}

enum skf_err skf_layout_write(struct skf_layout_maker *m, uint32_t i, uint64_t off, const void *p, size_t n, struct skf_why *why)
{
    if (i >= m->n || off > m->parts[i].bytes || n > m->parts[i].bytes - off)
        return skf_fail(why, SKF_ERR_INTERNAL, "a layout's part %u has no %zu bytes at %llu", i, n, (unsigned long long)off);
    return skf_draft_write_at(m->draft, m->body + m->at[i] + off, p, n, why);
}

enum skf_err skf_layout_commit(struct skf_layout_maker *m, unsigned jobs, struct skf_why *why)
{
    struct skf_map map = {NULL, 0};
    enum skf_err e;
    skf_draft_soon(m->draft);
    SKF_GO(e, skf_draft_map(m->draft, &map, why));
    SKF_GO(e, digest_of(map.data + m->body, m->bytes, jobs, m->head + 64, why));
    SKF_GO(e, head_digest(m->head, m->n, m->head + 96));
    SKF_GO(e, skf_draft_write_at(m->draft, 0, m->head, (size_t)m->body, why));
out:
    skf_map_close(&map);
    if (e == SKF_OK)
        e = skf_draft_commit(m->draft, why);
    else
        skf_draft_abort(m->draft);
    free_maker(m);
    return e;
}

void skf_layout_abort(struct skf_layout_maker *m)
{
    if (!m)
        return;
    skf_draft_abort(m->draft);
    free_maker(m);
}

/* ---- all of them --------------------------------------------------------------------------------------------------------- */

/* "ROOT.skl" */
static bool is_layout_name(const char *name, uint8_t root[SKF_DIGEST])
{
    char hex[SKF_HEX];
    if (strlen(name) != SKF_HEX - 1 + sizeof SUFFIX - 1 || strcmp(name + SKF_HEX - 1, SUFFIX) != 0)
        return false;
    memcpy(hex, name, SKF_HEX - 1);
    hex[SKF_HEX - 1] = 0;
    return skf_unhex(hex, root, SKF_DIGEST) == SKF_OK;
}

static uint64_t size_at(int fd, const char *name)
{
    struct stat st;
    return fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_blocks * 512 : 0;
}

uint64_t skf_layout_sweep(const char *dir, const uint8_t *roots, size_t n, bool is_alone)
{
    char folder[4096];
    uint8_t root[SKF_DIGEST];
    uint64_t freed = 0;
    DIR *d = skf_path(folder, sizeof folder, dir, FOLDER) == SKF_OK ? opendir(folder) : NULL;
    if (!d)
        return 0;
    for (const struct dirent *f; (f = readdir(d)) != NULL;) {
        bool is_kept = !is_layout_name(f->d_name, root);
        for (size_t i = 0; !is_kept && i < n; i++)
            is_kept = memcmp(root, roots + i * SKF_DIGEST, SKF_DIGEST) == 0;
        uint64_t bytes = is_kept ? 0 : size_at(dirfd(d), f->d_name);
        if (!is_kept && unlinkat(dirfd(d), f->d_name, 0) == 0)
            freed += bytes;
    }
    (void)closedir(d);
    if (is_alone)
        skf_draft_sweep(folder);
    return freed;
}

uint64_t skf_layout_total(const char *dir)
{
    char folder[4096];
    uint8_t root[SKF_DIGEST];
    uint64_t bytes = 0;
    DIR *d = skf_path(folder, sizeof folder, dir, FOLDER) == SKF_OK ? opendir(folder) : NULL;
    if (!d)
        return 0;
    for (const struct dirent *f; (f = readdir(d)) != NULL;)
        if (is_layout_name(f->d_name, root))
            bytes += size_at(dirfd(d), f->d_name);
    (void)closedir(d);
    return bytes;
}
