/*
 * A removal that ends early: the process killed, or memory or the disk gone, at every step of it.  What must hold after the registry is
 * opened anew and its leftovers are seen to: the version is there with all of its files, or gone with all that only it needed; what another
 * version needs is there in any case.
 */
#include <errno.h>
#include <sys/wait.h>

#include "distributor/centre_priv.h"
#include "tests/lib/distributor_fix.h"

static char dir[64];
static struct fix_content kept, goes; /* they begin alike */
static uint8_t piece[SKF_DIGEST];
static unsigned steps, fail_step;
static bool is_killing;

static int hook(void *ctx, const char *step, const char *path)
{
    if (++steps != fail_step)
        return 0;
    if (is_killing)
        _exit(7);
    return EIO;
}

/* As much of a centre as a removal needs. */
static enum skf_err open_centre(struct skf_centre *c, struct skf_why *why)
{
    char a[96], b[96];
    (void)snprintf(c->deltas, sizeof c->deltas, "%s/deltas/", dir);
    (void)snprintf(a, sizeof a, "%s/registry", dir);
    SKF_TRY(skf_registry_open(a, &c->registry, why));
    (void)snprintf(a, sizeof a, "%s/chunks", dir);
    (void)snprintf(b, sizeof b, "%s/content", dir);
    return skf_chunks_open(a, b, &c->chunks, why);
}

static void close_centre(struct skf_centre *c)
{
    skf_chunks_close(c->chunks);
    skf_registry_close(c->registry);
}

static void delta_path(const struct skf_centre *c, char path[PATH_MAX])
{
    fix_ok(skf_delta_file(c->deltas, kept.cut.root, goes.cut.root, path, PATH_MAX));
}

static void put(struct skf_centre *c, const struct fix_content *f)
{
    for (uint64_t i = 0; i < f->cut.n; i++)
        fix_ok(skf_chunks_put(c->chunks, f->cut.chunks[i].digest, f->bytes + f->cut.chunks[i].offset, f->cut.chunks[i].length,
                              why));
}

/* Both versions, a delta and an adapter from the one to the other. */
static void fill(void)
{
    static struct skf_centre c;
    char path[PATH_MAX];
    struct skf_reg_delta d = {.bytes = 5, .index_size = 1};
    struct skf_reg_adapter a = {.size = 5, .digests = piece, .n = 1};
    fix_remove(dir);
    fix_ok(skf_mkdirs(dir, 0700, why));
    c = (struct skf_centre){.registry = NULL};
    fix_ok(open_centre(&c, why));
    fix_ok(skf_mkdirs(c.deltas, 0700, why));
    put(&c, &kept);
    put(&c, &goes);
    fix_ok(skf_chunks_put(c.chunks, piece, "piece", 5, why));
    memcpy(d.from, kept.cut.root, SKF_DIGEST);
    memcpy(d.to, goes.cut.root, SKF_DIGEST);
    memcpy(a.from, kept.cut.root, SKF_DIGEST);
    memcpy(a.to, goes.cut.root, SKF_DIGEST);
    fix_publish(c.registry, &kept, "stable");
    fix_ok(skf_registry_add_version(c.registry, &goes.v, goes.manifest, goes.manifest_len, &a, NULL, why));
    fix_ok(skf_registry_add_delta(c.registry, &d, why));
    delta_path(&c, path);
    fix_ok(skf_file_write(path, "delta", 5, 0600, why));
    close_centre(&c);
}

static enum skf_err take_away(struct skf_why *why)
{
    static struct skf_centre c;
    struct skf_reg_leftover l = {.n = 0};
    Skiff__V1__Manifest *m = NULL;
    c = (struct skf_centre){.registry = NULL};
    enum skf_err e;
    SKF_GO(e, open_centre(&c, why));
    SKF_GO(e, skf_manifest_read(goes.manifest, goes.manifest_len, &m, why));
    SKF_GO(e, skf_registry_remove(c.registry, "m", "2", m->chunk_digests.data, m->n_chunk_lengths, false, &l, why));
    skf_centre_clear(&c);
out:
    skf_reg_leftover_clear(&l);
    skf_manifest_free(m);
    close_centre(&c);
    return e;
}

static bool has_all(struct skf_centre *c, const struct fix_content *f)
{
    bool has = true;
    for (uint64_t i = 0; i < f->cut.n; i++)
        has = has && has_chunk(c->chunks, f->cut.chunks[i].digest);
    return has;
}

/* Opened anew; true when the version is there. */
static bool expect_whole(void)
{
    static struct skf_centre c;
    char path[PATH_MAX];
    struct skf_reg_version v;
    struct skf_reg_delta d;
    struct skf_reg_adapter a;
    struct skf_reg_leftover l;
    c = (struct skf_centre){.registry = NULL};
    fix_ok(open_centre(&c, why));
    skf_centre_clear(&c);
    delta_path(&c, path);
    bool is_there = skf_registry_version(c.registry, "m", "2", &v, NULL) == SKF_OK;
    assert_true(has_all(&c, &kept));
    assert_int_equal(access(path, R_OK) == 0, is_there);
    assert_int_equal(has_chunk(c.chunks, piece), is_there);
    assert_int_equal(skf_registry_delta(c.registry, kept.cut.root, goes.cut.root, &d, NULL) == SKF_OK, is_there);
    assert_int_equal(skf_registry_adapter(c.registry, kept.cut.root, goes.cut.root, &a, NULL) == SKF_OK, is_there);
    skf_reg_adapter_clear(&a);
    for (uint64_t i = 1; i < goes.cut.n; i++)
        assert_int_equal(has_chunk(c.chunks, goes.cut.chunks[i].digest), is_there);
    assert_int_equal(skf_registry_leftover(c.registry, &l, NULL), SKF_ERR_NOT_FOUND);
    close_centre(&c);
    return is_there;
}

static void test_kill(void **state)
{
    is_killing = true;
    for (fail_step = 1;; fail_step++) {
        int status;
        fill();
        pid_t child = fork();
        if (child == 0) {
            steps = 0;
            skf_file_hook(hook, NULL);
            _exit(take_away(NULL) == SKF_OK ? 0 : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        bool is_there = expect_whole();
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            assert_false(is_there);
            break;
        }
        assert_int_equal(WEXITSTATUS(status), 7);
    }
    assert_true(fail_step > 3);
}

static void test_disk(void **state)
{
    is_killing = false;
    for (fail_step = 1;; fail_step++) {
        fill();
        steps = 0;
        skf_file_hook(hook, NULL);
        enum skf_err e = take_away(NULL);
        skf_file_hook(NULL, NULL);
        assert_int_equal(expect_whole(), e != SKF_OK);
        if (steps < fail_step)
            break;
    }
    assert_true(fail_step > 3);
}

static void test_memory(void **state)
{
    unsigned long at = 1;
    for (;; at += 1 + at / 8) {
        fill();
        skf_alloc_fail_at(at);
        enum skf_err e = take_away(NULL);
        bool is_over = skf_alloc_count() < at;
        skf_alloc_fail_at(0);
        assert_true(e == SKF_OK || e == SKF_ERR_NOMEM);
        assert_int_equal(expect_whole(), e != SKF_OK);
        if (is_over)
            break;
    }
    assert_true(at > 10);
}

static int setup(void **state)
{
    fix_dir(dir);
    fix_content(&kept, "m", "1", 3, 1100000);
    fix_content(&goes, "m", "2", 3, 2200000);
    assert_memory_equal(kept.cut.chunks[0].digest, goes.cut.chunks[0].digest, SKF_DIGEST);
    skf_sha256("piece", 5, piece);
    return 0;
}

static int teardown(void **state)
{
    fix_content_free(&kept);
    fix_content_free(&goes);
    fix_remove(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_disk),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
