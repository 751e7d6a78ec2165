/*
 * No memory and no disk under the model readers, the writer and the merge: every allocation and every lasting step made to fail in
 * turn.  What must hold: an error of that kind, nothing leaked, and a file that stood at the output's name stands unchanged with
 * nothing beside it.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "model/merge.h"
#include "model/model.h"
#include "tests/lib/gguf_make.h"

static char dir[64], base_path[96], adapter_path[96], out_path[96];

static void save(const char *path, struct skf_buf *b)
{
    assert_int_equal(skf_file_write(path, b->data, b->len, 0644, NULL), SKF_OK);
    skf_buf_free(b);
}

static void put_kv(struct skf_buf *b, const char *key, const char *value)
{
    put_text(b, key);
    put_u32(b, SKF_GGUF_STRING);
    put_text(b, value);
}

static void put_floats(struct skf_buf *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        union {
            float f;
            uint32_t u;
        } v = {.f = (float)((int)(i * 7 % 31) - 15) / 64.0f};
        put_u32(b, v.u);
    }
}

static int make_files(void **state)
{
    struct skf_buf b = SKF_BUF_INIT(1 << 20);
    (void)snprintf(dir, sizeof dir, "%s/skf-model-XXXXXX", "/tmp");
    assert_non_null(mkdtemp(dir));
    (void)snprintf(base_path, sizeof base_path, "%s/base.gguf", dir);
    (void)snprintf(adapter_path, sizeof adapter_path, "%s/lora.gguf", dir);
    (void)snprintf(out_path, sizeof out_path, "%s/out.gguf", dir);
    put_head(&b, 3, 2, 1);
    put_kv(&b, "general.architecture", "llama");
    put_tensor(&b, "norm", 64, 0, SKF_T_F32, 0);
    put_tensor(&b, "w", 64, 32, SKF_T_Q4_1, 256);
    put_pad(&b, 32);
    put_floats(&b, 64);
    for (int i = 0; i < 64; i++) { /* 64 blocks: scale 1/8, minimum -1 */
        put_u32(&b, 0xBC003000);
        put_data(&b, 16);
    }
    save(base_path, &b);
    put_head(&b, 3, 2, 3);
    put_kv(&b, "general.architecture", "llama");
    put_kv(&b, "general.type", "adapter");
    put_kv(&b, "adapter.type", "lora");
    put_tensor(&b, "w.lora_a", 64, 4, SKF_T_F32, 0);
    put_tensor(&b, "w.lora_b", 4, 32, SKF_T_F32, 1024);
    put_pad(&b, 32);
    put_floats(&b, 64 * 4 + 4 * 32);
    save(adapter_path, &b);
    assert_int_equal(skf_file_write(out_path, "before", 6, 0644, NULL), SKF_OK);
    return 0;
}

static int remove_files(void **state)
{
    (void)unlink(base_path);
    (void)unlink(adapter_path);
    (void)unlink(out_path);
    return rmdir(dir); /* fails when something was left beside them */
}

static unsigned files_in_dir(void)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    (void)closedir(d);
    return n;
}

static void output_is_untouched(void)
{
    uint8_t *data;
    size_t n;
    assert_int_equal(skf_file_read(out_path, 1 << 20, &data, &n, NULL), SKF_OK);
    assert_true(n == 6 && memcmp(data, "before", 6) == 0);
    skf_free(data);
    assert_int_equal(files_in_dir(), 3);
}

/* ---- what is made to fail ------------------------------------------------------------------------------------------------------ */
static enum skf_err open_and_cut(const char *path)
{
    struct skf_model *m = NULL;
    struct skf_cut cut = {0};
    struct skf_why why = {{0}};
    enum skf_err e = skf_model_open(path, &m, &why);
    if (e == SKF_OK)
        e = skf_cut_make(m, 2, NULL, &cut, &why);
    assert_true(e == SKF_OK || why.text[0]);
    skf_cut_free(&cut);
    skf_model_close(m);
    return e;
}

static enum skf_err open_gguf(void) { return open_and_cut(base_path); }

static enum skf_err open_in_pieces(void)
{
    struct skf_map map;
    struct skf_model *m = NULL;
    struct skf_why why = {{0}};
    enum skf_err e = skf_map_open(base_path, &map, &why);
    if (e != SKF_OK)
        return e;
    struct pieces p = {map.data, map.size, 50};
    struct skf_source src = {map.size, span_of_pieces, &p, NULL};
    struct skf_cut cut = {0};
    e = skf_model_open_source(&src, "pieces", &m, &why);
    if (e == SKF_OK)
        e = skf_cut_make(m, 1, NULL, &cut, &why);
    assert_true(e == SKF_OK || why.text[0]);
    skf_cut_free(&cut);
    skf_model_close(m);
    skf_map_close(&map);
    return e;
}

static enum skf_err open_safetensors(void)
{
    static const char json[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                               "\"b\":{\"dtype\":\"I8\",\"shape\":[4,2],\"data_offsets\":[8,16]}}";
    uint8_t file[8 + sizeof json - 1 + 16] = {sizeof json - 1};
    struct skf_model *m = NULL;
    struct skf_why why = {{0}};
    memcpy(file + 8, json, sizeof json - 1);
    struct skf_source src = skf_source_of(file, sizeof file);
    enum skf_err e = skf_model_open_source(&src, "st", &m, &why);
    assert_true(e == SKF_OK || why.text[0]);
    skf_model_close(m);
    return e;
}

static enum skf_err merge(void)
{
    struct skf_merge_stats stats;
    struct skf_why why = {{0}};
    enum skf_err e = skf_merge(base_path, adapter_path, out_path, 2, NULL, &stats, &why);
    assert_true(e == SKF_OK || why.text[0]);
    return e;
}

static enum skf_err copy(void)
{
    struct skf_model *m = NULL;
    struct skf_gguf_out *w = NULL;
    struct skf_why why = {{0}};
    enum skf_err e;
    SKF_GO(e, skf_model_open(base_path, &m, &why));
    const struct skf_gguf *g = skf_model_gguf(m);
    SKF_GO(e, skf_gguf_out_new(g->alignment, &w));
    SKF_GO(e, skf_gguf_out_kv(w, &g->kv[0]));
    SKF_GO(e, skf_gguf_out_u32(w, "general.file_type", 3));
    SKF_GO(e, skf_gguf_out_str(w, "general.name", "copy"));
    for (uint64_t i = 0; i < g->n_tensors; i++)
        SKF_GO(e, skf_gguf_out_tensor(w, &g->tensors[i]));
    SKF_GO(e, skf_gguf_out_begin(w, out_path, &why));
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        const uint8_t *p;
        SKF_GO(e, skf_source_view(skf_model_source(m), g->tensors[i].offset, g->tensors[i].bytes, NULL, &p));
        SKF_GO(e, skf_gguf_out_data(w, p, g->tensors[i].bytes, &why));
    }
    e = skf_gguf_out_commit(w, &why);
out:
    skf_gguf_out_free(w);
    skf_model_close(m);
    return e;
}

static void each_allocation_fails(enum skf_err (*work)(void))
{
    unsigned long n = 1;
    for (;; n++) {
        skf_alloc_fail_at(n);
        enum skf_err e = work();
        bool is_reached = skf_alloc_count() >= n;
        skf_alloc_fail_at(0);
        if (!is_reached) {
            assert_int_equal(e, SKF_OK);
            break;
        }
        if (e != SKF_ERR_NOMEM)
            fail_msg("allocation %lu failing gave %s", n, skf_err_name(e));
        output_is_untouched();
        assert_true(n < 1000);
    }
    assert_true(n > 2); /* there were some */
    assert_int_equal(skf_file_write(out_path, "before", 6, 0644, NULL), SKF_OK);
}

static void no_memory_to_open(void **state)
{
    each_allocation_fails(open_gguf);
    each_allocation_fails(open_in_pieces);
    each_allocation_fails(open_safetensors);
}
static void no_memory_to_merge(void **state) { each_allocation_fails(merge); }
static void no_memory_to_write(void **state) { each_allocation_fails(copy); }

static atomic_uint step, step_to_fail;
static int fail_with;

static int hook(void *ctx, const char *what, const char *path)
{
    if (strcmp(what, "unlink") == 0 || strcmp(what, "dirsync") == 0)
        return 0; /* after these nothing can be taken back */
    return atomic_fetch_add(&step, 1) + 1 == atomic_load(&step_to_fail) ? fail_with : 0;
}

static void each_step_fails(enum skf_err (*work)(void), int sys, enum skf_err want)
{
    fail_with = sys;
    unsigned n = 1;
    for (;; n++) {
        atomic_store(&step, 0);
        atomic_store(&step_to_fail, n);
        skf_file_hook(hook, NULL);
        enum skf_err e = work();
        bool is_reached = atomic_load(&step) >= n;
        skf_file_hook(NULL, NULL);
        if (!is_reached) {
            assert_int_equal(e, SKF_OK);
            break;
        }
        assert_int_equal(e, want);
        output_is_untouched();
    }
    assert_true(n > 4);
    assert_int_equal(skf_file_write(out_path, "before", 6, 0644, NULL), SKF_OK);
}

static void no_disk(void **state)
{
    each_step_fails(merge, ENOSPC, SKF_ERR_FULL);
    each_step_fails(merge, EIO, SKF_ERR_IO);
    each_step_fails(copy, ENOSPC, SKF_ERR_FULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_memory_to_open),
        cmocka_unit_test(no_memory_to_merge),
        cmocka_unit_test(no_memory_to_write),
        cmocka_unit_test(no_disk),
    };
    return cmocka_run_group_tests_name("model_faults", tests, make_files, remove_files);
}
