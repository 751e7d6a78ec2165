/*
 * runtime/ over a version in the store: the same numbers as from the file it was made of, its matrices read where LMDB has them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "runtime/engine.h"
#include "runtime/llama_priv.h"
#include "store/store.h"
#include "tests/unit/runtime_tiny.h"

enum { N_IDS = 70 };

static void put_version(struct skf_store *s, const struct skf_model *m)
{
    struct skf_cut cut = {0};
    assert_int_equal(skf_cut_make(m, 1, NULL, &cut, NULL), SKF_OK);
    struct skf_store_chunk *list = skf_calloc(cut.n, sizeof *list);
    assert_non_null(list);
    for (uint64_t i = 0; i < cut.n; i++) {
        uint8_t *bytes = skf_alloc(cut.chunks[i].length);
        assert_non_null(bytes);
        assert_int_equal(skf_source_read(skf_model_source(m), cut.chunks[i].offset, bytes, cut.chunks[i].length), SKF_OK);
        struct skf_store_put put = {cut.chunks[i].digest, bytes, cut.chunks[i].length};
        assert_int_equal(skf_store_put(s, &put, 1, NULL), SKF_OK);
        memcpy(list[i].digest, cut.chunks[i].digest, SKF_DIGEST);
        list[i].length = cut.chunks[i].length;
        skf_free(bytes);
    }
    struct skf_store_version v = {.model = "tiny", .version = "1", .size = cut.size, .manifest = "m", .manifest_len = 1,
                                  .chunks = list, .n_chunks = cut.n};
    memcpy(v.root, cut.root, SKF_DIGEST);
    assert_int_equal(skf_store_add_version(s, &v, NULL), SKF_OK);
    skf_free(list);
    skf_cut_free(&cut);
}

static void logprobs_by(const struct skf_model *m, const struct skf_engine_opts *o, double *out)
{
    struct skf_engine *e = NULL;
    struct skf_engine_opts opts = *o;
    opts.threads = 2;
    opts.slots = 1;
    int32_t ids[N_IDS];
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (i * 97) % TINY_VOCAB;
    assert_int_equal(skf_engine_open(m, &opts, &e, NULL), SKF_OK);
    assert_int_equal(skf_engine_logprobs(e, ids, N_IDS, out, NULL), SKF_OK);
    skf_engine_close(e);
}

static void logprobs(const struct skf_model *m, double *out) { logprobs_by(m, &(struct skf_engine_opts){0}, out); }

/* The body's digest as the file says it. */
static void kept_digest(const char *dir, char hex[SKF_HEX])
{
    char path[700], name[SKF_HEX];
    uint8_t root[SKF_DIGEST] = {5}, *p;
    size_t n;
    skf_hex(root, SKF_DIGEST, name);
    (void)snprintf(path, sizeof path, "%s/layout/%s.skl", dir, name);
    assert_int_equal(skf_file_read(path, 1 << 20, &p, &n, NULL), SKF_OK);
    skf_hex(p + 64, SKF_DIGEST, hex);
    skf_free(p);
}

static void test_a_kept_layout(void **state)
{
    /* Layouts outlive programs: bytes that change want another SKF_LANES_FORMAT (and then another digest here). */
    static const struct {
        enum skf_type type;
        const char *digest;
    } kinds[] = {{SKF_T_Q4_0, "dac8309d64109800b2b748722617d16f123390a0d687fdcbe94392a9b88320f3"}, {SKF_T_Q4_1, "7d5af0c118f0fb716f3d888930c88947b59145f904d875bbcd5fdcd7d62b8cb7"}, {SKF_T_Q5_1, "88a684abd7aeee3e622b73733236566177725ced932e3eeb959748083114906a"}, {SKF_T_Q8_0, "5f30f34ccc4c1af3bb4913ce7d89d7ac5f20502b4278b5ab874ed8dfa60898e7"}};
    for (size_t i = 0; i < SKF_COUNT(kinds); i++) {
        char path[256], dir[300], digest[SKF_HEX];
        double want[N_IDS], got[N_IDS];
        struct skf_model *m = NULL;
        uint64_t bytes, again;
        struct skf_engine_kept kept = {dir, {5}};
        assert_int_equal(tiny_write(tiny_path(path, "kept"), &(struct tiny){.type = kinds[i].type}), SKF_OK);
        (void)snprintf(dir, sizeof dir, "%s.store", path);
        assert_int_equal(skf_mkdirs(dir, 0700, NULL), SKF_OK);
        assert_int_equal(skf_model_open(path, &m, NULL), SKF_OK);
        logprobs_by(m, &(struct skf_engine_opts){.repack = SKF_REPACK_OFF}, want);
        logprobs_by(m, &(struct skf_engine_opts){.kept = &kept, .repack = SKF_REPACK_SHARED}, got); /* there is none */
        assert_memory_equal(got, want, (N_IDS - 1) * sizeof *got);
        assert_int_equal(skf_engine_lay_out(m, &kept, SKF_REPACK_OFF, 2, &bytes, NULL), SKF_OK);
        assert_int_equal(bytes, 0);
        assert_int_equal(skf_engine_lay_out(m, &kept, SKF_REPACK_ON, 2, &bytes, NULL), SKF_OK);
        assert_true(bytes > 10000);
        kept_digest(dir, digest);
        if (strcmp(digest, kinds[i].digest) != 0)
            fail_msg("type %d is laid out to %s", (int)kinds[i].type, digest);
        assert_int_equal(skf_engine_lay_out(m, &kept, SKF_REPACK_ON, 1, &again, NULL), SKF_OK); /* there already */
        const enum skf_repack hows[] = {SKF_REPACK_SHARED, SKF_REPACK_ON, SKF_REPACK_AUTO};
        for (size_t k = 0; k < SKF_COUNT(hows); k++) {
            logprobs_by(m, &(struct skf_engine_opts){.kept = &kept, .repack = hows[k]}, got);
            assert_memory_equal(got, want, (N_IDS - 1) * sizeof *got);
        }
        skf_model_close(m);
        (void)unlink(path);
        assert_true(snprintf(path, sizeof path, "rm -rf '%s'", dir) < (int)sizeof path && system(path) == 0);
    }
    (void)state;
}

static void test_a_version_in_the_store(void **state)
{
    char path[256], dir[300];
    double want[N_IDS], got[N_IDS];
    struct skf_model *file = NULL, *stored = NULL;
    struct skf_store *s = NULL;
    struct skf_view *view = NULL;
    struct skf_store_opts opts = {.mode = SKF_STORE_WRITE, .map_size = 64u << 20}; /* qemu-user cannot map the default */
    assert_int_equal(tiny_write(tiny_path(path, "store"), &(struct tiny){.type = SKF_T_Q4_1}), SKF_OK);
    (void)snprintf(dir, sizeof dir, "%s.store", path);
    assert_int_equal(skf_mkdirs(dir, 0700, NULL), SKF_OK);
    assert_int_equal(skf_model_open(path, &file, NULL), SKF_OK);
    (void)unlink(path);
    assert_int_equal(skf_store_open(dir, &opts, &s, NULL), SKF_OK);
    put_version(s, file);
    assert_int_equal(skf_view_open(s, "tiny", "1", &view, NULL), SKF_OK);
    struct skf_source src = skf_view_source(view);
    assert_int_equal(skf_model_open_source(&src, "tiny 1", &stored, NULL), SKF_OK);
    logprobs(file, want);
    logprobs(stored, got);
    assert_memory_equal(got, want, (N_IDS - 1) * sizeof *got);

    /* And in place: each row's address is one that the view gives. */
    size_t n;
    const struct skf_tensor *t = skf_model_tensors(stored, &n);
    for (size_t i = 0; i < n; i++) {
        struct skf_kept *kept = NULL;
        struct skf_weight w;
        assert_int_equal(skf_weight_resolve(skf_model_source(stored), &t[i], &kept, &w, NULL), SKF_OK);
        for (uint32_t r = 0; r < w.rows; r++) {
            const uint8_t *p;
            uint64_t len;
            assert_int_equal(src.span(src.ctx, t[i].offset + r * w.row_bytes, &p, &len), SKF_OK);
            assert_ptr_equal(skf_weight_row(&w, r), p);
        }
        skf_kept_free(kept);
    }
    skf_model_close(stored);
    skf_view_close(view);
    skf_store_close(s);
    skf_model_close(file);
    assert_true(snprintf(path, sizeof path, "rm -rf '%s'", dir) < (int)sizeof path && system(path) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_version_in_the_store), cmocka_unit_test(test_a_kept_layout)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
