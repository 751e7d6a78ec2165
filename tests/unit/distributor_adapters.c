/* Adapters in the registry and at the encoder: kept with their version, used where that is less, never in the way of a delta. */
#include "tests/lib/distributor_fix.h"

#include "tests/lib/lora_make.h"

#include "distributor/adapters.h"
#include "model/merge.h"

static char dir[64], base_path[96], lora_path[96], merged_path[96], skd_path[96];
static struct skf_chunks *chunks;
static struct skf_model *base, *merged;
static struct skf_reg_adapter real; /* of the pair, its pieces in the chunk folder */

/* ---- the registry ---------------------------------------------------------------------------------------------- */
static void pieces(struct skf_reg_adapter *a, uint64_t size, unsigned seed)
{
    *a = (struct skf_reg_adapter){.size = size, .n = (size + SKF_ADAPTER_PIECE - 1) / SKF_ADAPTER_PIECE};
    memset(a->from, 1, SKF_DIGEST);
    memset(a->to, 2, SKF_DIGEST);
    a->digests = skf_alloc(a->n * SKF_DIGEST);
    assert_non_null(a->digests);
    for (size_t i = 0; i < a->n * SKF_DIGEST; i++)
        a->digests[i] = (uint8_t)(seed + i);
}

static enum skf_err add(struct skf_registry *r, const struct skf_reg_adapter *a, struct skf_why *why)
{
    struct skf_reg_version v = {.model = "m", .version = "2", .size = 1, .n_chunks = 1};
    memset(v.root, 2, sizeof v.root);
    return skf_registry_add_version(r, &v, "x", 1, a, "stable", why);
}

static void test_registry(void **state)
{
    char path[96];
    struct skf_reg_adapter a, got;
    struct skf_reg_version v;
    (void)snprintf(path, sizeof path, "%s/registry", dir);
    struct skf_registry *r = fix_registry(path);
    pieces(&a, 3 * SKF_ADAPTER_PIECE + 7, 3);
    assert_int_equal(skf_reg_adapter_length(&a, 2), SKF_ADAPTER_PIECE);
    assert_int_equal(skf_reg_adapter_length(&a, 3), 7);
    a.size = 0; /* what makes no sense is refused, and nothing of the version is there */
    fix_err(SKF_ERR_ARG, add(r, &a, why));
    a.size = SKF_ADAPTER_PIECE;
    fix_err(SKF_ERR_ARG, add(r, &a, why));
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_version(r, "m", "2", &v, why));
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_adapter(r, a.from, a.to, &got, why));
    a.size = 3 * SKF_ADAPTER_PIECE + 7;
    fix_ok(add(r, &a, why));
    skf_registry_close(r);
    r = fix_registry(path);
    fix_ok(skf_registry_adapter(r, a.from, a.to, &got, why));
    assert_int_equal(got.size, a.size);
    assert_int_equal(got.n, 4);
    assert_memory_equal(got.digests, a.digests, 4 * SKF_DIGEST);
    assert_string_equal(got.said, "");
    skf_reg_adapter_clear(&got);
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_adapter(r, a.to, a.from, &got, why));
    char text[600];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    memcpy(text, "tensor \n:\xff:", 11);
    fix_ok(skf_registry_adapter_said(r, a.from, a.to, text, why));
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_adapter_said(r, a.to, a.from, text, why));
    fix_ok(skf_registry_adapter(r, a.from, a.to, &got, why));
    assert_int_equal(strlen(got.said), SKF_ADAPTER_SAID - 1);
    assert_memory_equal(got.said, "tensor ?:?:x", 12);
    skf_reg_adapter_clear(&got);
    skf_reg_adapter_clear(&a);
    pieces(&a, 100, 9); /* another one takes its place, and nothing is known of it yet */
    fix_ok(add(r, &a, why));
    fix_ok(skf_registry_adapter(r, a.from, a.to, &got, why));
    assert_int_equal(got.n, 1);
    assert_string_equal(got.said, "");
    skf_reg_adapter_clear(&got);
    skf_reg_adapter_clear(&a);
    skf_registry_close(r);
}

/* ---- what a publisher says ------------------------------------------------------------------------------------- */
static void test_take(void **state)
{
    char path[96];
    uint8_t digests[3 * SKF_DIGEST] = {5};
    struct skf_reg_version v;
    struct skf_reg_adapter got;
    Skiff__V1__PublishAdapter a = SKIFF__V1__PUBLISH_ADAPTER__INIT;
    (void)snprintf(path, sizeof path, "%s/registry-take", dir);
    struct skf_registry *r = fix_registry(path);
    fix_version(r, "m", "1", 1, NULL);
    fix_version(r, "m", "2", 2, NULL);
    fix_version(r, "other", "3", 3, NULL);
    fix_ok(skf_registry_version(r, "m", "2", &v, why));
    a.base_version = (char *)(uintptr_t)"1";
    a.size = 2 * SKF_ADAPTER_PIECE + 1;
    a.digests = (ProtobufCBinaryData){sizeof digests, digests};
    fix_ok(skf_adapters_take(r, &a, &v, &got, why));
    assert_int_equal(got.n, 3);
    assert_int_equal(got.from[0], 1);
    assert_int_equal(got.to[0], 2);
    skf_reg_adapter_clear(&got);
    static const struct {
        const char *base;
        uint64_t size;
        enum skf_err e;
    } bad[] = {
        {"1", 2 * SKF_ADAPTER_PIECE, SKF_ERR_FORMAT},     {"1", 3 * SKF_ADAPTER_PIECE + 1, SKF_ERR_FORMAT},
        {"1", 0, SKF_ERR_LIMIT},                          {"1", (uint64_t)SKF_ADAPTER_MAX + 1, SKF_ERR_LIMIT},
        {"1", UINT64_MAX, SKF_ERR_LIMIT},                 {"", 2 * SKF_ADAPTER_PIECE + 1, SKF_ERR_ARG},
        {"a/b", 2 * SKF_ADAPTER_PIECE + 1, SKF_ERR_ARG},  {"3", 2 * SKF_ADAPTER_PIECE + 1, SKF_ERR_NOT_FOUND},
        {"2", 2 * SKF_ADAPTER_PIECE + 1, SKF_ERR_ARG},
    };
    for (size_t i = 0; i < SKF_COUNT(bad); i++) {
        struct skf_why said = {{0}};
        a.base_version = (char *)(uintptr_t)bad[i].base;
        a.size = bad[i].size;
        assert_int_equal(skf_adapters_take(r, &a, &v, &got, &said), bad[i].e);
        assert_memory_equal(said.text, "adapter: ", 9);
        assert_null(got.digests);
    }
    skf_registry_close(r);
}

/* ---- the encoder ----------------------------------------------------------------------------------------------- */
/* The record of these bytes, which are put into the chunk folder. */
static void put_bytes(struct skf_reg_adapter *a, const uint8_t *p, size_t n)
{
    pieces(a, n, 0);
    for (uint64_t i = 0; i < a->n; i++) {
        uint32_t length = skf_reg_adapter_length(a, i);
        skf_sha256(p + i * SKF_ADAPTER_PIECE, length, a->digests + i * SKF_DIGEST);
        fix_ok(skf_chunks_put(chunks, a->digests + i * SKF_DIGEST, p + i * SKF_ADAPTER_PIECE, length, why));
    }
}

static enum skf_err try(const struct skf_reg_adapter *a, const struct skf_model *neu, char *said, bool *is_made,
                        struct skf_why *why)
{
    struct skf_delta_opts opts = {.jobs = 1};
    said[0] = 0;
    (void)unlink(skd_path);
    return skf_adapters_try(chunks, a, base, neu, skd_path, &opts, said, is_made, why);
}

static void test_used(void **state)
{
    char said[SKF_ADAPTER_SAID], out[96];
    bool is_made;
    struct skf_delta_stats stats, plain;
    struct skf_delta_opts opts = {.jobs = 1};
    fix_ok(try(&real, merged, said, &is_made, why));
    assert_true(is_made);
    (void)snprintf(out, sizeof out, "%s/out", dir);
    fix_ok(skf_delta_apply(base_path, skd_path, out, &opts, &stats, why));
    assert_true(stats.coding_chunks[SKF_CODE_ADAPTER] > 0);
    struct stat st;
    assert_int_equal(stat(skd_path, &st), 0);
    fix_ok(skf_delta_build(base, merged, NULL, &opts, &plain, why));
    assert_memory_equal(stats.result_root, plain.result_root, SKF_DIGEST);
    assert_true((uint64_t)st.st_size < plain.bytes);
}

static void expect_unused(const struct skf_reg_adapter *a, const struct skf_model *neu, const char *because)
{
    char said[SKF_ADAPTER_SAID];
    bool is_made = true;
    fix_ok(try(a, neu, said, &is_made, why));
    assert_false(is_made);
    if (!strstr(said, because) || strncmp(said, "/", 1) == 0)
        fail_msg("'%s' where '%s' was expected", said, because);
}

static void test_unused(void **state)
{
    struct skf_reg_adapter a;
    uint8_t *p;
    size_t n;
    char path[96];
    expect_unused(&real, base, "nothing is smaller"); /* the version is the base, unchanged */
    put_bytes(&a, (const uint8_t *)"no adapter", 10);
    expect_unused(&a, merged, "not a GGUF file");
    skf_reg_adapter_clear(&a);
    fix_ok(skf_file_read(base_path, 64 << 20, &p, &n, why));
    put_bytes(&a, p, n);
    skf_free(p);
    expect_unused(&a, merged, "not an adapter");
    skf_reg_adapter_clear(&a);
    fix_ok(skf_file_read(lora_path, 64 << 20, &p, &n, why));
    memset(p + n - 64, 0x7c, 64); /* halves that are no numbers */
    put_bytes(&a, p, n);
    expect_unused(&a, merged, "not finite");
    skf_reg_adapter_clear(&a);
    put_bytes(&a, p, n / 2);
    expect_unused(&a, merged, "");
    skf_free(p);
    /* A piece that is damaged, one that is gone. */
    char hex[SKF_HEX];
    skf_hex(a.digests, SKF_DIGEST, hex);
    (void)snprintf(path, sizeof path, "%s/chunks/%.2s", dir, hex);
    skf_chunks_trim(chunks, 0);
    char file[200];
    (void)snprintf(file, sizeof file, "%s/%s", path, hex);
    fix_ok(skf_file_write(file, "damage", 6, 0600, why));
    struct skf_delta_opts opts = {.jobs = 1};
    char said[SKF_ADAPTER_SAID] = "";
    bool is_made = true;
    fix_ok(skf_adapters_try(chunks, &a, base, merged, skd_path, &opts, said, &is_made, why));
    assert_true(!is_made && strstr(said, "damaged"));
    assert_int_equal(unlink(file), 0);
    fix_ok(skf_adapters_try(chunks, &a, base, merged, skd_path, &opts, said, &is_made, why));
    assert_true(!is_made && said[0]);
    skf_reg_adapter_clear(&a);
}

static void test_cancel(void **state)
{
    char said[SKF_ADAPTER_SAID] = "";
    bool is_made = true;
    atomic_bool cancel = true;
    struct skf_delta_opts opts = {.jobs = 1, .progress = {.cancel = &cancel}};
    fix_err(SKF_ERR_CANCELLED, skf_adapters_try(chunks, &real, base, merged, skd_path, &opts, said, &is_made, why));
    assert_false(is_made);
}

static int setup(void **state)
{
    char a[96], b[96];
    struct skf_merge_stats stats;
    uint8_t *p;
    size_t n;
    fix_dir(dir);
    (void)snprintf(base_path, sizeof base_path, "%s/base.gguf", dir);
    (void)snprintf(lora_path, sizeof lora_path, "%s/lora.gguf", dir);
    (void)snprintf(merged_path, sizeof merged_path, "%s/merged.gguf", dir);
    (void)snprintf(skd_path, sizeof skd_path, "%s/d.skd", dir);
    (void)snprintf(a, sizeof a, "%s/chunks", dir);
    (void)snprintf(b, sizeof b, "%s/content", dir);
    lora_files(base_path, lora_path);
    fix_ok(skf_merge(base_path, lora_path, merged_path, 1, NULL, &stats, why));
    fix_ok(skf_model_open(base_path, &base, why));
    fix_ok(skf_model_open(merged_path, &merged, why));
    fix_ok(skf_chunks_open(a, b, &chunks, why));
    fix_ok(skf_file_read(lora_path, 64 << 20, &p, &n, why));
    put_bytes(&real, p, n);
    skf_free(p);
    return 0;
}

static int teardown(void **state)
{
    skf_reg_adapter_clear(&real);
    skf_chunks_close(chunks);
    skf_model_close(base);
    skf_model_close(merged);
    fix_remove(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registry), cmocka_unit_test(test_take),   cmocka_unit_test(test_used),
        cmocka_unit_test(test_unused),   cmocka_unit_test(test_cancel),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
