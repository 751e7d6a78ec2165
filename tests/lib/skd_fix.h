/*
 * What the delta's tests share: two small versions of a model between which every coding is needed, a scratch folder, and the
 * check that nothing was left behind.
 */
#ifndef SKF_TESTS_SKD_FIX_H
#define SKF_TESTS_SKD_FIX_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <dirent.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "delta/delta.h"
#include "tests/lib/gguf_make.h"

#define FIX __attribute__((unused)) static

static uint64_t fix_state = 88172645463325252u;
FIX uint64_t fix_next(void) /* xorshift64 */
{
    fix_state ^= fix_state << 13;
    fix_state ^= fix_state >> 7;
    return fix_state ^= fix_state << 17;
}

/* The call must succeed; what it says otherwise is shown. `call` uses `why`. */
#define fix_ok(call)                                                                                                   \
    do {                                                                                                               \
        struct skf_why fix_why = {{0}}, *why = &fix_why;                                                               \
        (void)why;                                                                                                     \
        enum skf_err fix_e = (call);                                                                                   \
        if (fix_e != SKF_OK)                                                                                           \
            fail_msg("%s: %s", skf_err_name(fix_e), fix_why.text);                                                     \
    } while (0)
/* The call must fail so, with a line that says why. */
#define fix_err(want, call)                                                                                            \
    do {                                                                                                               \
        struct skf_why fix_why = {{0}}, *why = &fix_why;                                                               \
        enum skf_err fix_e = (call);                                                                                   \
        if (fix_e != (want) || !fix_why.text[0])                                                                       \
            fail_msg("%s instead of %s: %s", skf_err_name(fix_e), skf_err_name(want), fix_why.text);                   \
    } while (0)

FIX char fix_dir[64];
FIX int fix_setup(void **state)
{
    const char *base = getenv("SKF_TMP");
    (void)snprintf(fix_dir, sizeof fix_dir, "%.40s/delta-XXXXXX", base && strlen(base) <= 40 ? base : "/tmp");
    return mkdtemp(fix_dir) ? 0 : -1;
}
FIX const char *fix_path(const char *name)
{
    static char paths[8][400];
    static unsigned k;
    char *p = paths[k++ % 8];
    (void)snprintf(p, sizeof paths[0], "%s/%s", fix_dir, name);
    return p;
}
FIX int fix_teardown(void **state)
{
    DIR *d = opendir(fix_dir);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.')
            (void)unlink(fix_path(e->d_name));
    if (d)
        (void)closedir(d);
    return rmdir(fix_dir);
}
/* Files in the folder whose name begins so: 0 after a refusal, that the temporary is gone too. */
FIX unsigned fix_left(const char *prefix)
{
    unsigned n = 0;
    DIR *d = opendir(fix_dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    (void)closedir(d);
    return n;
}
FIX void fix_write(const char *name, const void *p, size_t n)
{
    fix_ok(skf_file_write(fix_path(name), p, n, 0600, why));
}
FIX void fix_same(const char *name, const void *p, size_t n)
{
    uint8_t *got;
    size_t len;
    fix_ok(skf_file_read(fix_path(name), 1u << 30, &got, &len, why));
    assert_int_equal(len, n);
    if (n)
        assert_memory_equal(got, p, n);
    skf_free(got);
}

struct fix_tensor {
    const char *name;
    enum skf_type type;
    uint64_t row, rows;
    uint64_t seed;     /* of its bytes */
    unsigned per_mille; /* of its bytes that the second version changes by a little */
};

/* A GGUF file of these tensors; `is_new` for the second version. */
FIX struct skf_buf fix_gguf(const struct fix_tensor *t, size_t n, bool is_new)
{
    struct skf_buf b = SKF_BUF_INIT(64u << 20);
    uint64_t at = 0;
    put_head(&b, 3, n, 0);
    for (size_t i = 0; i < n; i++) {
        const struct skf_type_info *info = skf_type_info((uint32_t)t[i].type);
        put_tensor(&b, t[i].name, t[i].row, t[i].rows, (uint32_t)t[i].type, at);
        at += (t[i].row / info->block * info->block_bytes * t[i].rows + 31) / 32 * 32;
    }
    put_pad(&b, 32);
    for (size_t i = 0; i < n; i++) {
        const struct skf_type_info *info = skf_type_info((uint32_t)t[i].type);
        uint64_t bytes = t[i].row / info->block * info->block_bytes * t[i].rows, start = b.len;
        fix_state = t[i].seed * 0x9e3779b97f4a7c15u | 1;
        assert_int_equal(skf_buf_reserve(&b, bytes), SKF_OK);
        for (uint64_t k = 0; k < bytes; k++)
            assert_int_equal(skf_buf_u8(&b, t[i].seed ? (uint8_t)(fix_next() >> 20) : (uint8_t)(k / 37)), SKF_OK);
        for (uint64_t k = 0; is_new && k < bytes; k++)
            if (fix_next() % 1000 < t[i].per_mille)
                b.data[start + k] = (uint8_t)(b.data[start + k] + fix_next() % 3 - 1);
        put_pad(&b, 32);
    }
    return b;
}

static const struct fix_tensor fix_old_tensors[] = {
    {"norm", SKF_T_F32, 64, 3, 1, 0},       {"embd", SKF_T_BF16, 1024, 540, 2, 0}, {"q8", SKF_T_Q8_0, 256, 200, 3, 0},
    {"q4", SKF_T_Q4_1, 256, 300, 4, 0},     {"iq", SKF_T_IQ2_XXS, 256, 400, 5, 0}, {"grown", SKF_T_F16, 128, 90, 6, 0},
    {"gone", SKF_T_F32, 100, 3, 7, 0},
};
static const struct fix_tensor fix_new_tensors[] = { /* moved, changed, grown, added */
    {"q8", SKF_T_Q8_0, 256, 200, 3, 10},    {"norm", SKF_T_F32, 64, 3, 1, 0},      {"embd", SKF_T_BF16, 1024, 540, 2, 5},
    {"q4", SKF_T_Q4_1, 256, 300, 4, 30},    {"grown", SKF_T_F16, 128, 99, 6, 20},  {"iq", SKF_T_IQ2_XXS, 256, 400, 5, 4},
    {"noise", SKF_T_I8, 256, 40, 8, 0},     {"plain", SKF_T_I8, 256, 100, 0, 0},
};

/* The same in small, for what is done a thousand times. */
static const struct fix_tensor fix_small_old[] = {
    {"a", SKF_T_BF16, 256, 20, 1, 0}, {"b", SKF_T_Q4_1, 256, 30, 2, 0}, {"c", SKF_T_IQ2_XXS, 256, 40, 3, 0}};
static const struct fix_tensor fix_small_new[] = {{"b", SKF_T_Q4_1, 256, 30, 2, 20}, {"a", SKF_T_BF16, 256, 20, 1, 0},
                                                  {"c", SKF_T_IQ2_XXS, 256, 40, 3, 5}, {"d", SKF_T_I8, 256, 9, 5, 0}};

struct fix_pair {
    struct skf_buf old_bytes, new_bytes;
    struct skf_source old_source, new_source;
    struct skf_model *old, *neu;
};
FIX void fix_open(struct fix_pair *p)
{
    p->old_source = skf_source_of(p->old_bytes.data, p->old_bytes.len);
    p->new_source = skf_source_of(p->new_bytes.data, p->new_bytes.len);
    fix_ok(skf_model_open_source(&p->old_source, "old", &p->old, why));
    fix_ok(skf_model_open_source(&p->new_source, "new", &p->neu, why));
}
FIX void fix_close(struct fix_pair *p)
{
    skf_model_close(p->old);
    skf_model_close(p->neu);
    skf_buf_free(&p->old_bytes);
    skf_buf_free(&p->new_bytes);
}
/* Both versions, in memory and as files. */
FIX void fix_models(struct fix_pair *p)
{
    p->old_bytes = fix_gguf(fix_old_tensors, sizeof fix_old_tensors / sizeof fix_old_tensors[0], false);
    p->new_bytes = fix_gguf(fix_new_tensors, sizeof fix_new_tensors / sizeof fix_new_tensors[0], true);
    fix_open(p);
    fix_write("old", p->old_bytes.data, p->old_bytes.len);
    fix_write("new", p->new_bytes.data, p->new_bytes.len);
}
FIX void fix_small_models(struct fix_pair *p)
{
    p->old_bytes = fix_gguf(fix_small_old, sizeof fix_small_old / sizeof fix_small_old[0], false);
    p->new_bytes = fix_gguf(fix_small_new, sizeof fix_small_new / sizeof fix_small_new[0], true);
    fix_open(p);
    fix_write("small-old", p->old_bytes.data, p->old_bytes.len);
}
FIX struct skf_delta_stats fix_build(const struct fix_pair *p, const char *name, unsigned jobs)
{
    struct skf_delta_opts o = {.jobs = jobs};
    struct skf_delta_stats s;
    fix_ok(skf_delta_build(p->old, p->neu, fix_path(name), &o, &s, why));
    return s;
}
FIX enum skf_err fix_apply(const char *old, const char *skd, const char *out, struct skf_why *why)
{
    struct skf_delta_opts o = {.jobs = 2};
    struct skf_delta_stats s;
    return skf_delta_apply(fix_path(old), fix_path(skd), fix_path(out), &o, &s, why);
}
FIX void fix_read(const char *name, uint8_t **p, size_t *n)
{
    fix_ok(skf_file_read(fix_path(name), 1u << 30, p, n, why));
}

#endif
