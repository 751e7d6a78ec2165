/*
 * No memory and no disk under the distributor: every allocation and every lasting step made to fail in turn, and the
 * process killed at every step.  What must hold: an error, nothing leaked, no chunk under a name that its bytes do not
 * have, no part of a version or token visible, and the same call succeeding afterwards.
 */
#include <dirent.h>
#include <errno.h>
#include <sys/wait.h>

#include "distributor/enrol.h"
#include "distributor/manifest.h"
#include "tests/lib/distributor_fix.h"

static char dir[64], chunk_dir[96], content_dir[96];
static struct fix_content content;
static unsigned steps, fail_step;
static bool is_killing;

static int hook(void *ctx, const char *step, const char *path)
{
    if (++steps != fail_step || strcmp(step, "unlink") == 0)
        return 0;
    if (is_killing)
        _exit(7);
    return ENOSPC;
}

static enum skf_err put_chunk(struct skf_why *why)
{
    struct skf_chunks *c;
    SKF_TRY(skf_chunks_open(chunk_dir, content_dir, &c, why));
    enum skf_err e = skf_chunks_put(c, content.cut.chunks[0].digest, content.bytes, content.cut.chunks[0].length, why);
    skf_chunks_close(c);
    return e;
}

static bool is_chunk_there(void)
{
    struct skf_chunks *c;
    fix_ok(skf_chunks_open(chunk_dir, content_dir, &c, why));
    bool is = has_chunk(c, content.cut.chunks[0].digest);
    skf_chunks_close(c);
    return is;
}

/* Files of the first chunk's folder that bear a digest's name. */
static void expect_whole(void)
{
    char path[200], hex[SKF_HEX];
    uint8_t *p, is[SKF_DIGEST];
    size_t n;
    skf_hex(content.cut.chunks[0].digest, SKF_DIGEST, hex);
    (void)snprintf(path, sizeof path, "%s/%.2s/%s", chunk_dir, hex, hex);
    if (!is_chunk_there())
        return;
    fix_ok(skf_file_read(path, 4 << 20, &p, &n, why));
    skf_sha256(p, n, is);
    assert_memory_equal(is, content.cut.chunks[0].digest, SKF_DIGEST);
    skf_free(p);
}

static void fresh(void)
{
    fix_remove(chunk_dir);
    fix_remove(content_dir);
}

static void test_disk(void **state)
{
    is_killing = false;
    for (fail_step = 1;; fail_step++) {
        fresh();
        steps = 0;
        skf_file_hook(hook, NULL);
        struct skf_why said = {{0}};
        enum skf_err e = put_chunk(&said);
        skf_file_hook(NULL, NULL);
        if (steps < fail_step)
            break;
        assert_int_equal(e, SKF_ERR_FULL);
        assert_true(said.text[0]);
        expect_whole();
        fix_ok(put_chunk(why));
        assert_true(is_chunk_there());
    }
    assert_true(fail_step > 3);
}

static void test_kill(void **state)
{
    is_killing = true;
    for (fail_step = 1;; fail_step++) {
        int status;
        fresh();
        pid_t child = fork();
        if (child == 0) {
            steps = 0;
            skf_file_hook(hook, NULL);
            _exit(put_chunk(NULL) == SKF_OK ? 0 : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        expect_whole();
        fix_ok(put_chunk(why));
        if (WEXITSTATUS(status) == 0)
            break;
        assert_int_equal(WEXITSTATUS(status), 7);
    }
    assert_true(fail_step > 3);
}

/* Tokens: after a failure the old file stands. */
static void test_tokens(void **state)
{
    char token[SKF_TOKEN], other[SKF_TOKEN];
    is_killing = false;
    fix_ok(skf_enrol_token(dir, "box", token, why));
    for (fail_step = 1;; fail_step++) {
        struct skf_why said = {{0}};
        steps = 0;
        skf_file_hook(hook, NULL);
        enum skf_err e = skf_enrol_token(dir, "other", other, &said);
        skf_file_hook(NULL, NULL);
        if (e == SKF_OK)
            break;
        assert_int_equal(e, SKF_ERR_FULL);
        fix_ok(skf_enrol_use(dir, "box", token, "request", true, why));
    }
    fix_ok(skf_enrol_use(dir, "other", other, "request", false, why));
}

static enum skf_err publish(struct skf_registry *r, struct skf_why *why)
{
    Skiff__V1__Manifest *m;
    struct skf_reg_version v;
    uint8_t digest[SKF_DIGEST] = {1};
    struct skf_reg_adapter a = {.size = 4, .digests = digest, .n = 1};
    memcpy(a.to, content.v.root, SKF_DIGEST);
    SKF_TRY(skf_manifest_read(content.manifest, content.manifest_len, &m, why));
    skf_manifest_version(m, &v);
    skf_manifest_free(m);
    return skf_registry_add_version(r, &v, content.manifest, content.manifest_len, &a, "stable", why);
}

static enum skf_err take_none(void *ctx, struct skf_reg_device *d)
{
    return SKF_OK;
}

static enum skf_err use(const char *path, struct skf_why *why)
{
    struct skf_registry *r;
    struct skf_reg_held held = {.model = "m", .version = "1", .slot = "active"};
    struct skf_reg_device d = {.name = "box", .held = &held, .n_held = 1};
    const struct skf_reg_device *list[] = {&d};
    struct skf_reg_pin pin = {.device = "box", .model = "m", .version = "1"};
    struct skf_reg_delta delta = {.bytes = 1};
    uint8_t *p = NULL, *made = NULL, none[SKF_DIGEST] = {0};
    size_t n;
    enum skf_err e;
    SKF_TRY(skf_registry_open(path, &r, why));
    struct skf_manifest_opts o = {.model = "m", .version = "1", .file = "f", .created = 1};
    SKF_GO(e, skf_manifest_make(content.model, &content.cut, &o, &made, &n, why));
    SKF_GO(e, publish(r, why));
    SKF_GO(e, skf_registry_pin(r, &pin, 1, why));
    SKF_GO(e, skf_registry_add_delta(r, &delta, why));
    SKF_GO(e, skf_registry_adapter_said(r, none, content.v.root, "used", why));
    SKF_GO(e, skf_registry_put_devices(r, list, 1, why));
    SKF_GO(e, skf_registry_each_device(r, take_none, NULL, why));
    e = skf_registry_manifest(r, "m", "1", &p, &n, why);
out:
    skf_free(p);
    skf_free(made);
    skf_registry_close(r);
    return e;
}

/* Leaks show under AddressSanitizer, which runs this too. */
static void test_memory(void **state)
{
    char path[96];
    unsigned long at = 1;
    for (;; at++) {
        (void)snprintf(path, sizeof path, "%s/registry-%lu", dir, at % 2);
        fix_remove(path);
        skf_alloc_fail_at(at);
        enum skf_err e = use(path, NULL);
        skf_alloc_fail_at(0);
        if (e == SKF_OK)
            break;
        if (e != SKF_ERR_NOMEM)
            fail_msg("allocation %lu: %s", at, skf_err_name(e));
        fix_ok(use(path, why));
    }
    assert_true(at > 10);
}

static int setup(void **state)
{
    fix_dir(dir);
    (void)snprintf(chunk_dir, sizeof chunk_dir, "%s/chunks", dir);
    (void)snprintf(content_dir, sizeof content_dir, "%s/content", dir);
    fix_content(&content, "m", "1", 3, 1200000);
    return 0;
}

static int teardown(void **state)
{
    fix_content_free(&content);
    fix_remove(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disk),
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
