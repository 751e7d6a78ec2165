/* Chunks, contents put together from them, and manifests: what is damaged or lies is found. */
#include "proto/msg.h"
#include "tests/lib/distributor_fix.h"

static struct skf_chunks *chunks_in(const char *dir, char a[80], char b[80])
{
    struct skf_chunks *c;
    (void)snprintf(a, 80, "%s/chunks", dir);
    (void)snprintf(b, 80, "%s/content", dir);
    fix_ok(skf_chunks_open(a, b, &c, why));
    return c;
}

static void put_all(struct skf_chunks *c, const struct fix_content *f)
{
    for (uint64_t i = 0; i < f->cut.n; i++)
        fix_ok(skf_chunks_put(c, f->cut.chunks[i].digest, f->bytes + f->cut.chunks[i].offset, f->cut.chunks[i].length,
                              why));
}

static void test_content(void **state)
{
    char dir[64], a[80], b[80], path[256], hex[SKF_HEX];
    struct skf_chunks *c = chunks_in(fix_dir(dir), a, b);
    struct fix_content f;
    Skiff__V1__Manifest *m;
    struct skf_model *model;
    fix_content(&f, "m", "1", 5, 2500000);
    fix_ok(skf_manifest_read(f.manifest, f.manifest_len, &m, why));
    struct skf_chunk_list l = skf_manifest_chunks(m);
    fix_err(SKF_ERR_DIGEST, skf_chunks_put(c, f.cut.chunks[1].digest, f.bytes, f.cut.chunks[0].length, why));
    assert_false(has_chunk(c, f.cut.chunks[1].digest));
    fix_err(SKF_ERR_NOT_FOUND, skf_chunks_content(c, &l, NULL, &model, why));
    put_all(c, &f);
    put_all(c, &f);
    fix_ok(skf_chunks_content(c, &l, NULL, &model, why));
    assert_int_equal(skf_model_source(model)->size, f.n);
    uint8_t *all = skf_alloc(f.n);
    fix_ok(skf_source_read(skf_model_source(model), 0, all, f.n));
    assert_memory_equal(all, f.bytes, f.n);
    skf_chunks_trim(c, 0); /* the file goes, the open model stays whole */
    fix_ok(skf_source_read(skf_model_source(model), 0, all, f.n));
    assert_memory_equal(all, f.bytes, f.n);
    skf_free(all);
    skf_model_close(model);
    /* A chunk that a disk has changed. */
    skf_hex(f.cut.chunks[2].digest, SKF_DIGEST, hex);
    (void)snprintf(path, sizeof path, "%s/%.2s/%s", a, hex, hex);
    fix_ok(skf_file_write(path, "x", 1, 0600, why));
    fix_err(SKF_ERR_DIGEST, skf_chunks_content(c, &l, NULL, &model, why));
    assert_int_equal(rmdir(b), 0); /* and nothing half made is left */
    skf_manifest_free(m);
    fix_content_free(&f);
    skf_chunks_close(c);
    fix_remove(dir);
}

static void test_empty(void **state)
{
    char dir[64], a[80], b[80];
    uint8_t root[SKF_DIGEST];
    struct skf_chunks *c = chunks_in(fix_dir(dir), a, b);
    struct skf_chunk_list none = {NULL, NULL, 0, 0, {0}};
    struct skf_model *model;
    struct skf_cut cut;
    fix_ok(skf_chunks_content(c, &none, NULL, &model, why));
    fix_ok(skf_cut_make(model, 1, NULL, &cut, why));
    skf_empty_root(root);
    assert_memory_equal(cut.root, root, SKF_DIGEST);
    skf_cut_free(&cut);
    skf_model_close(model);
    skf_chunks_close(c);
    fix_remove(dir);
}

/* Packs the manifest again after `spoil` had its way, and expects it to be refused. */
static void refuse(const struct fix_content *f, enum skf_err want, void (*spoil)(Skiff__V1__Manifest *m))
{
    Skiff__V1__Manifest *m, *again = NULL;
    uint8_t *p;
    size_t n;
    fix_ok(skf_manifest_read(f->manifest, f->manifest_len, &m, why));
    Skiff__V1__Manifest copy = *m;
    spoil(&copy);
    fix_ok(skf_msg_pack(&copy.base, &p, &n));
    fix_err(want, skf_manifest_read(p, n, &again, why));
    assert_null(again);
    skf_free(p);
    skf_manifest_free(m);
}

static uint32_t some_lengths[3];
static Skiff__V1__ManifestFile *no_files[1];
static Skiff__V1__ManifestFile bad_file;
static Skiff__V1__ManifestTensor bad_tensor, *bad_tensors[1] = {&bad_tensor};

static void spoil_format(Skiff__V1__Manifest *m)
{
    m->format = 2;
}
static void spoil_model(Skiff__V1__Manifest *m)
{
    m->model = (char *)(uintptr_t) "../m";
}
static void spoil_version(Skiff__V1__Manifest *m)
{
    m->version = (char *)(uintptr_t) "";
}
static void spoil_root(Skiff__V1__Manifest *m)
{
    m->root.len = 31;
}
static void spoil_size(Skiff__V1__Manifest *m)
{
    m->size++;
}
static void spoil_digests(Skiff__V1__Manifest *m)
{
    m->chunk_digests.len -= 32;
}
static void spoil_order(Skiff__V1__Manifest *m)
{
    memcpy(some_lengths, m->chunk_lengths, sizeof some_lengths);
    some_lengths[0]--;
    some_lengths[2]++;
    m->chunk_lengths = some_lengths;
}
static void spoil_chunk(Skiff__V1__Manifest *m)
{
    memcpy(some_lengths, m->chunk_lengths, sizeof some_lengths);
    some_lengths[0] = (1u << 20) + 1;
    m->chunk_lengths = some_lengths;
}
static void spoil_files(Skiff__V1__Manifest *m)
{
    m->n_files = 0;
    m->files = no_files;
}
static void spoil_file(Skiff__V1__Manifest *m)
{
    skiff__v1__manifest_file__init(&bad_file);
    bad_file.name = (char *)(uintptr_t) "a/b";
    bad_file.size = m->size;
    no_files[0] = &bad_file;
    m->files = no_files;
}
static void spoil_tensor(Skiff__V1__Manifest *m)
{
    skiff__v1__manifest_tensor__init(&bad_tensor);
    bad_tensor.name = (char *)(uintptr_t) "t";
    bad_tensor.offset = UINT64_MAX - 1;
    bad_tensor.bytes = 4;
    m->n_tensors = 1;
    m->tensors = bad_tensors;
}

static void test_manifest(void **state)
{
    struct fix_content f;
    Skiff__V1__Manifest *m;
    fix_content(&f, "m", "1", 6, 2500000);
    fix_ok(skf_manifest_read(f.manifest, f.manifest_len, &m, why));
    assert_string_equal(m->model, "m");
    assert_string_equal(m->file_format, "bytes");
    assert_string_equal(m->files[0]->name, "model.bin");
    assert_memory_equal(m->root.data, f.cut.root, SKF_DIGEST);
    skf_manifest_free(m);
    refuse(&f, SKF_ERR_UNSUPPORTED, spoil_format);
    refuse(&f, SKF_ERR_FORMAT, spoil_model);
    refuse(&f, SKF_ERR_FORMAT, spoil_version);
    refuse(&f, SKF_ERR_FORMAT, spoil_root);
    refuse(&f, SKF_ERR_FORMAT, spoil_size);
    refuse(&f, SKF_ERR_FORMAT, spoil_digests);
    refuse(&f, SKF_ERR_DIGEST, spoil_order);
    refuse(&f, SKF_ERR_FORMAT, spoil_chunk);
    refuse(&f, SKF_ERR_FORMAT, spoil_files);
    refuse(&f, SKF_ERR_FORMAT, spoil_file);
    refuse(&f, SKF_ERR_FORMAT, spoil_tensor);
    for (size_t n = 0; n < f.manifest_len; n += 7) { /* cut short anywhere */
        m = NULL;
        if (skf_manifest_read(f.manifest, n, &m, NULL) == SKF_OK)
            fail_msg("%zu of %zu bytes were taken for a manifest", n, f.manifest_len);
    }
    fix_content_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_manifest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
