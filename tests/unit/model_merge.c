/*
 * The merge on this machine against the digests it has on every other: a base of each type and an adapter made of a fixed noise
 * (tests/cli/merge.py holds the rule itself against a second implementation).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/digest.h"
#include "base/file.h"
#include "model/merge.h"
#include "model/model.h"

enum { ROWS = 48, COLUMNS = 512, RANK = 8 };

static const struct {
    enum skf_type type;
    const char *digest;
} cases[] = {
    {SKF_T_F32, "cc93a0fcc7b223f695e20f0448b06bd337c4ca86c44809cd5935e407397d6b94"},
    {SKF_T_F16, "40e1d7c3f8cca6724ac5b011591f74780bb676fba6ce626829b1b88995ac622d"},
    {SKF_T_BF16, "2c6c44a7343f52d786eb9bdc6fe41cdec0be32be9e4861fb4074c4c524b94665"},
    {SKF_T_Q8_0, "466ab3cdd12cef0c6a1d22c18e5c836f335b86198f29445b2634834510737297"},
    {SKF_T_Q4_0, "60cd21a8ff57d7b7a366dfb85579561ae396569a2f8ecd372a0cbfed5b203e55"},
    {SKF_T_Q4_1, "6bbf548205a7f96ffbe616a05b13c023d9b2a87566021d6950e5b58d7e5908bc"},
    {SKF_T_Q5_0, "f796b05bfdd2b1ec7b5ada133a371420ad0ab413cc8952c2ec9edd35aad75bbc"},
    {SKF_T_Q5_1, "a15bdd7d30617531ea56467615212d1c43849bc62f1c0f18fc09b761879a1e67"},
};

static char dir[64], base[96], lora[96], out[96];

/* Exact in float32: 16 signed bits times a power of two. */
static void fill(float *x, size_t n, uint32_t seed, float scale)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525 + 1013904223;
        x[i] = (float)((int)(seed >> 16) - 32768) * scale;
    }
}

static void put(struct skf_gguf_out *w, enum skf_type type, const float *x, uint64_t n)
{
    const struct skf_type_info *ti = skf_type_info((uint32_t)type);
    uint8_t *q = skf_alloc(n * sizeof *x);
    assert_non_null(q);
    assert_int_equal(skf_quantize(type, x, q, n), SKF_OK);
    assert_int_equal(skf_gguf_out_data(w, q, n / ti->block * ti->block_bytes, NULL), SKF_OK);
    skf_free(q);
}

static void describe(struct skf_gguf_out *w, const char *name, enum skf_type type, uint64_t columns, uint64_t rows)
{
    struct skf_tensor t = {.name = name, .type = type, .n_dims = 2, .dims = {columns, rows, 1, 1, 1, 1, 1, 1}};
    assert_int_equal(skf_gguf_out_tensor(w, &t), SKF_OK);
}

static void write_base(enum skf_type type)
{
    static float x[ROWS * COLUMNS];
    struct skf_gguf_out *w;
    assert_int_equal(skf_gguf_out_new(32, &w), SKF_OK);
    assert_int_equal(skf_gguf_out_str(w, "general.architecture", "llama"), SKF_OK);
    describe(w, "blk.0.attn_q.weight", type, COLUMNS, ROWS);
    describe(w, "blk.0.attn_k.weight", type, COLUMNS, ROWS);
    assert_int_equal(skf_gguf_out_begin(w, base, NULL), SKF_OK);
    for (uint32_t i = 0; i < 2; i++) {
        fill(x, ROWS * COLUMNS, 7 + i, 0x1p-16f);
        memset(x, 0, 64 * sizeof *x); /* blocks without a scale */
        put(w, type, x, ROWS * COLUMNS);
    }
    assert_int_equal(skf_gguf_out_commit(w, NULL), SKF_OK);
    skf_gguf_out_free(w);
}

static void write_lora(void)
{
    static float a[RANK * COLUMNS], b[ROWS * RANK];
    struct skf_gguf_out *w;
    assert_int_equal(skf_gguf_out_new(32, &w), SKF_OK);
    assert_int_equal(skf_gguf_out_str(w, "general.architecture", "llama"), SKF_OK);
    assert_int_equal(skf_gguf_out_str(w, "general.type", "adapter"), SKF_OK);
    assert_int_equal(skf_gguf_out_str(w, "adapter.type", "lora"), SKF_OK);
    describe(w, "blk.0.attn_q.weight.lora_a", SKF_T_F16, COLUMNS, RANK);
    describe(w, "blk.0.attn_q.weight.lora_b", SKF_T_F32, RANK, ROWS);
    assert_int_equal(skf_gguf_out_begin(w, lora, NULL), SKF_OK);
    fill(a, RANK * COLUMNS, 99, 0x1p-20f);
    fill(b, ROWS * RANK, 100, 0x1p-16f);
    put(w, SKF_T_F16, a, RANK * COLUMNS);
    put(w, SKF_T_F32, b, ROWS * RANK);
    assert_int_equal(skf_gguf_out_commit(w, NULL), SKF_OK);
    skf_gguf_out_free(w);
}

static int make_files(void **state)
{
    (void)snprintf(dir, sizeof dir, "/tmp/skf-merge-XXXXXX");
    assert_non_null(mkdtemp(dir));
    (void)snprintf(base, sizeof base, "%s/base.gguf", dir);
    (void)snprintf(lora, sizeof lora, "%s/lora.gguf", dir);
    (void)snprintf(out, sizeof out, "%s/out.gguf", dir);
    write_lora();
    return 0;
}

static int remove_files(void **state)
{
    (void)unlink(base);
    (void)unlink(lora);
    (void)unlink(out);
    return rmdir(dir);
}

static void merged_digest(unsigned jobs, char hex[SKF_HEX])
{
    struct skf_merge_stats stats;
    struct skf_why why = {{0}};
    uint8_t *p, digest[SKF_DIGEST];
    size_t n;
    if (skf_merge(base, lora, out, jobs, NULL, &stats, &why) != SKF_OK)
        fail_msg("%s", why.text);
    assert_true(stats.tensors_merged == 1 && stats.tensors_copied == 1);
    assert_int_equal(skf_file_read(out, 1 << 20, &p, &n, NULL), SKF_OK);
    assert_int_equal(n, stats.bytes);
    skf_sha256(p, n, digest);
    skf_hex(digest, SKF_DIGEST, hex);
    skf_free(p);
}

static void same_bytes_everywhere(void **state)
{
    bool is_good = true;
    for (size_t i = 0; i < SKF_COUNT(cases); i++) {
        char hex[SKF_HEX], again[SKF_HEX];
        write_base(cases[i].type);
        merged_digest(1, hex);
        merged_digest(4, again);
        assert_string_equal(hex, again);
        if (strcmp(hex, cases[i].digest) != 0) {
            print_error("%s: %s\n", skf_type_info((uint32_t)cases[i].type)->name, hex);
            is_good = false;
        }
    }
    assert_true(is_good);
}

static void can_be_stopped(void **state)
{
    atomic_bool stop = true;
    struct skf_progress progress = {.cancel = &stop};
    struct skf_merge_stats stats;
    struct skf_why why = {{0}};
    write_base(SKF_T_Q4_1);
    (void)unlink(out);
    assert_int_equal(skf_merge(base, lora, out, 2, &progress, &stats, &why), SKF_ERR_CANCELLED);
    assert_int_equal(access(out, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bytes_everywhere),
        cmocka_unit_test(can_be_stopped),
    };
    return cmocka_run_group_tests_name("model_merge", tests, make_files, remove_files);
}
