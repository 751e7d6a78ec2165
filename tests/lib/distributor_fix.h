/* What the distributor's tests share: a folder, a registry, contents of small bytes with their manifests, a signed
 * repository. */
#ifndef SKF_TESTS_DISTRIBUTOR_FIX_H
#define SKF_TESTS_DISTRIBUTOR_FIX_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/util.h"
#include "distributor/assign.h"
#include "distributor/manifest.h"
#include "distributor/registry.h"

#define FIX __attribute__((unused)) static

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
    } while (0)

FIX const char *fix_dir(char dir[64])
{
    (void)snprintf(dir, 64, "/tmp/skf-distributor-XXXXXX");
    assert_non_null(mkdtemp(dir));
    return dir;
}

FIX int fix_unlink(const char *path, const struct stat *st, int kind, struct FTW *f)
{
    return remove(path);
}
FIX void fix_remove(const char *dir)
{
    (void)nftw(dir, fix_unlink, 16, FTW_DEPTH | FTW_PHYS);
}

FIX struct skf_registry *fix_registry(const char *dir)
{
    struct skf_registry *r;
    fix_ok(skf_registry_open(dir, &r, why));
    return r;
}

/* A content of pseudo-random bytes, cut, with its packed manifest. */
struct fix_content {
    uint8_t *bytes;
    size_t n;
    struct skf_source src;
    struct skf_model *model;
    struct skf_cut cut;
    uint8_t *manifest;
    size_t manifest_len;
    struct skf_reg_version v;
};

FIX void fix_content(struct fix_content *c, const char *model, const char *version, unsigned seed, size_t n)
{
    *c = (struct fix_content){.n = n};
    c->bytes = skf_alloc(n + 1);
    assert_non_null(c->bytes);
    for (size_t i = 0; i < n; i++)
        c->bytes[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
    c->src = skf_source_of(c->bytes, n);
    fix_ok(skf_model_open_source(&c->src, "a content", &c->model, why));
    fix_ok(skf_cut_make(c->model, 1, NULL, &c->cut, why));
    struct skf_manifest_opts o = {.model = model, .version = version, .file = "model.bin", .created = 1700000000};
    fix_ok(skf_manifest_make(c->model, &c->cut, &o, &c->manifest, &c->manifest_len, why));
    Skiff__V1__Manifest *m;
    fix_ok(skf_manifest_read(c->manifest, c->manifest_len, &m, why));
    skf_manifest_version(m, &c->v);
    skf_manifest_free(m);
}

FIX void fix_content_free(struct fix_content *c)
{
    skf_model_close(c->model);
    skf_cut_free(&c->cut);
    skf_free(c->manifest);
    skf_free(c->bytes);
}

FIX void fix_publish(struct skf_registry *r, const struct fix_content *c, const char *channel)
{
    fix_ok(skf_registry_add_version(r, &c->v, c->manifest, c->manifest_len, NULL, channel, why));
}

/* A version known to the registry by name and root alone. */
FIX void fix_version(struct skf_registry *r, const char *model, const char *version, unsigned root, const char *channel)
{
    struct skf_reg_version v = {.size = 1000, .n_chunks = 1, .created = 1};
    (void)snprintf(v.model, sizeof v.model, "%s", model);
    (void)snprintf(v.version, sizeof v.version, "%s", version);
    memset(v.root, (int)root, sizeof v.root);
    fix_ok(skf_registry_add_version(r, &v, "manifest", 8, NULL, channel, why));
}

#endif
