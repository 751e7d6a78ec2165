/*
 * What the store's tests share: a scratch folder, chunks and versions made from a seed, and the check that a store is whole.
 */
#ifndef SKF_TESTS_STORE_FIX_H
#define SKF_TESTS_STORE_FIX_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <ftw.h>
#include <unistd.h>

#include "base/alloc.h"
#include "store/store.h"

#define FIX_MAP (256ull << 20)

struct fix_version {
    struct skf_store_version v;
    struct skf_store_chunk chunks[64];
    uint8_t *bytes[64];
    char name[32];
};

__attribute__((unused)) static const char *fix_dir(char dir[64])
{
    const char *base = getenv("SKF_TMP");
    (void)snprintf(dir, 64, "%.40s/store-XXXXXX", base && strlen(base) <= 40 ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
    return dir;
}

static int fix_unlink(const char *path, const struct stat *st, int flag, struct FTW *f)
{
    (void)st, (void)flag, (void)f;
    return remove(path);
}
__attribute__((unused)) static void fix_remove(const char *dir) { (void)nftw(dir, fix_unlink, 8, FTW_DEPTH | FTW_PHYS); }

#define fix_ok(expr)                                                                                                   \
    do {                                                                                                               \
        struct skf_why fix_why_ = {{0}}, *why __attribute__((unused)) = &fix_why_;                                     \
        enum skf_err fix_e_ = (expr);                                                                                  \
        if (fix_e_ != SKF_OK)                                                                                          \
            fail_msg("%s: %s: %s", #expr, skf_err_name(fix_e_), fix_why_.text);                                        \
    } while (0)
#define fix_err(want, expr)                                                                                            \
    do {                                                                                                               \
        struct skf_why fix_why_ = {{0}}, *why __attribute__((unused)) = &fix_why_;                                     \
        enum skf_err fix_e_ = (expr);                                                                                  \
        if (fix_e_ != (want))                                                                                          \
            fail_msg("%s: %s instead of %s: %s", #expr, skf_err_name(fix_e_), skf_err_name(want), fix_why_.text);      \
        assert_true(fix_why_.text[0] != 0);                                                                            \
    } while (0)

__attribute__((unused)) static struct skf_store *fix_open(const char *dir, enum skf_store_mode mode)
{
    struct skf_store_opts o = {.mode = mode, .map_size = mode == SKF_STORE_WRITE ? FIX_MAP : 0, .keep_free = 1};
    struct skf_store *s = NULL;
    fix_ok(skf_store_open(dir, &o, &s, why));
    return s;
}

static inline uint64_t fix_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

/* n bytes that depend on the seed alone. */
__attribute__((unused)) static uint8_t *fix_bytes(uint64_t seed, uint32_t n)
{
    uint8_t *p = malloc(n ? n : 1);
    assert_non_null(p);
    for (uint32_t i = 0; i < n; i++)
        p[i] = (uint8_t)(fix_mix(seed * 1000003 + i / 8) >> 8 * (i % 8));
    return p;
}

/* A version of n chunks; chunk i is that of seed `base + i`, but for every `step`-th one, which is of `fresh + i`. */
__attribute__((unused)) static struct fix_version *fix_version(const char *name, unsigned n, uint64_t base, uint64_t fresh,
                                                              unsigned step, uint32_t length)
{
    struct fix_version *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_true(n <= 64);
    struct skf_merkle m;
    skf_merkle_init(&m);
    (void)snprintf(f->name, sizeof f->name, "%s", name);
    for (unsigned i = 0; i < n; i++) {
        uint64_t seed = step && i % step == 0 ? fresh + i : base + i;
        uint32_t len = i % 3 == 2 ? 100 + i : length; /* small ones too: they must be aligned all the same */
        f->bytes[i] = fix_bytes(seed, len);
        f->chunks[i].length = len;
        skf_sha256(f->bytes[i], len, f->chunks[i].digest);
        skf_merkle_add(&m, f->chunks[i].digest, len);
    }
    skf_merkle_root(&m, f->v.root);
    f->v.model = "m";
    f->v.version = f->name;
    f->v.size = m.size;
    f->v.manifest = "manifest";
    f->v.manifest_len = 8;
    f->v.chunks = f->chunks;
    f->v.n_chunks = n;
    return f;
}

__attribute__((unused)) static void fix_free(struct fix_version *f)
{
    for (unsigned i = 0; i < 64; i++)
        free(f->bytes[i]);
    free(f);
}

__attribute__((unused)) static void fix_puts(const struct fix_version *f, struct skf_store_put puts[64])
{
    for (unsigned i = 0; i < f->v.n_chunks; i++)
        puts[i] = (struct skf_store_put){f->chunks[i].digest, f->bytes[i], f->chunks[i].length};
}

__attribute__((unused)) static void fix_put(struct skf_store *s, const struct fix_version *f)
{
    struct skf_store_put puts[64];
    fix_puts(f, puts);
    fix_ok(skf_store_put(s, puts, (size_t)f->v.n_chunks, why));
}

__attribute__((unused)) static void fix_install(struct skf_store *s, const struct fix_version *f)
{
    fix_put(s, f);
    fix_ok(skf_store_add_version(s, &f->v, why));
}

/* The view's bytes are the version's. */
__attribute__((unused)) static void fix_check_view(const struct skf_view *w, const struct fix_version *f)
{
    const struct skf_store_version *v = skf_view_version(w);
    assert_int_equal(v->n_chunks, f->v.n_chunks);
    assert_int_equal(v->size, f->v.size);
    assert_memory_equal(v->root, f->v.root, SKF_DIGEST);
    for (uint64_t i = 0; i < v->n_chunks; i++) {
        uint32_t n;
        const void *p = skf_view_chunk(w, i, &n);
        assert_int_equal(n, f->chunks[i].length);
        assert_int_equal((uintptr_t)p % 64, 0);
        assert_memory_equal(p, f->bytes[i], n);
    }
}

__attribute__((unused)) static void fix_check(struct skf_store *s, const struct fix_version *f)
{
    struct skf_view *w;
    fix_ok(skf_view_open(s, f->v.model, f->v.version, &w, why));
    fix_check_view(w, f);
    skf_view_close(w);
}

#endif
