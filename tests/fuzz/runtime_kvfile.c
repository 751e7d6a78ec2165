/*
 * A file of keys and values (runtime/kv_file.c) that lies about itself: a good one with bytes overwritten, inserted or cut off, read by an engine
 * that then answers a prompt.  What is read is either refused with one line, or used, and then the answer ends.
 *
 * The input: u8, its lowest bit says whether digests are made good again, so that what they guard is reached; then changes, each u8 kind (0, 1
 * overwrite, 2 insert, 3 cut to), u24 place, u8 value.
 */
#include <sys/stat.h>

#include "base/digest.h"
#include "base/file.h"
#include "runtime/engine.h"
#include "tests/unit/runtime_tiny.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

enum { ROOM = 1 << 18, HEAD = 64, ENTRY = 168, TOKENS = 70 };
static const uint8_t model_name[SKF_DIGEST] = {7};
static struct skf_model *model;
static uint8_t *good;
static size_t good_n;
static char path[64];

static struct skf_engine *engine(void)
{
    struct skf_engine *e = NULL;
    if (skf_engine_open(model, &(struct skf_engine_opts){.threads = 1, .context = 128, .slots = 1}, &e, NULL) != SKF_OK)
        __builtin_trap();
    return e;
}

static void on_finish(void *ctx, const struct skf_finish *f) { *(bool *)ctx = true; }
static void answer(struct skf_engine *e, bool is_warm)
{
    static const struct skf_gen_events events = {NULL, on_finish};
    int32_t ids[TOKENS];
    bool is_over = false, is_busy = true;
    for (int i = 0; i < TOKENS; i++)
        ids[i] = i % 7;
    const struct skf_sampling s = {.max_tokens = 3};
    enum skf_err err = is_warm ? skf_engine_warm(e, ids, TOKENS, true, &events, &is_over, NULL, NULL)
                               : skf_engine_submit(e, ids, TOKENS, &s, &events, &is_over, NULL, NULL);
    while (err == SKF_OK && is_busy)
        err = skf_engine_step(e, &is_busy, NULL);
    if (err != SKF_OK || !is_over)
        __builtin_trap();
}

static void prepare(void)
{
    char name[256];
    if (good)
        return;
    (void)snprintf(path, sizeof path, "/tmp/skiff-fuzz-%d.kv", getpid());
    if (tiny_write(tiny_path(name, "fuzzkv"), &(struct tiny){.type = SKF_T_Q8_0}) != SKF_OK || skf_model_open(name, &model, NULL) != SKF_OK)
        __builtin_trap();
    (void)unlink(name);
    struct skf_engine *e = engine();
    answer(e, true);
    if (skf_engine_cache_save(e, path, model_name, NULL) != SKF_OK || skf_file_read(path, ROOM / 2, &good, &good_n, NULL) != SKF_OK)
        __builtin_trap();
    skf_engine_close(e);
}

static size_t change(uint8_t *file, size_t len, const uint8_t *p)
{
    size_t at = ((size_t)p[1] | (size_t)p[2] << 8 | (size_t)p[3] << 16) % (len + 1);
    if (at == len)
        return len;
    switch (p[0] & 3) {
    case 2:
        if (len == ROOM)
            return len;
        memmove(file + at + 1, file + at, len - at);
        file[at] = p[4];
        return len + 1;
    case 3:
        return at;
    default:
        file[at] = p[4];
        return len;
    }
}

static void make_good(uint8_t *file, size_t len)
{
    if (len < HEAD)
        return;
    size_t n = skf_le32(file + 44), page = skf_le32(file + 40), table = HEAD + ENTRY * n, data = (table + SKF_DIGEST + 4095) / 4096 * 4096;
    if (n > 100 || page > ROOM || data + n * page > len)
        return;
    for (size_t i = 0; i < n; i++)
        skf_sha256(file + data + i * page, page, file + HEAD + ENTRY * (i + 1) - SKF_DIGEST);
    skf_sha256(file, table, file + table);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static uint8_t file[ROOM];
    struct skf_why why = {{0}};
    uint32_t pages = 0;
    if (n == 0)
        return 0;
    prepare();
    memcpy(file, good, good_n);
    size_t len = good_n;
    for (size_t i = 1; i + 5 <= n && i < 5 * 64; i += 5)
        len = change(file, len, p + i);
    if (p[0] & 1)
        make_good(file, len);
    FILE *f = fopen(path, "we");
    if (!f || fwrite(file, 1, len, f) != len || fclose(f) != 0 || chmod(path, 0600) != 0)
        __builtin_trap();
    struct skf_engine *e = engine();
    enum skf_err err = skf_engine_cache_load(e, path, model_name, &pages, &why);
    if ((err != SKF_OK) != (why.text[0] != 0) || pages > 100)
        __builtin_trap();
    if (pages > 0)
        answer(e, false);
    skf_engine_close(e);
    (void)unlink(path);
    return 0;
}
