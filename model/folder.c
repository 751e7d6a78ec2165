/* Folders as one content (folder.h). */
#include "model/folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "base/util.h"
#include "model/model_priv.h"

/*
 *   u64 n, {"__metadata__": {"skiff.folder": "BYTES NAME\n" for each *.safetensors file, in order},
 *           "/NAME": {"dtype": "U8", "shape": [BYTES], "data_offsets": [BEGIN, END]} for each other file, in order}, spaces, the other files
 */
#define KEY "skiff.folder"
#define PATH_MAX_HERE 4096
#define LENGTH 8u
#define JSON_DEPTH 4

struct part { /* a file */
    char name[256];
    struct skf_map map;
    bool is_set;     /* *.safetensors */
    uint64_t offset; /* in the content */
};
struct skf_folder {
    struct part *parts; /* in the order of the content */
    size_t n;
    char *head;
    uint64_t head_n;
    struct skf_source source;
};

bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_set_name(const char *name)
{
    size_t n = strlen(name), tail = strlen(".safetensors");
    return n > tail && strcmp(name + n - tail, ".safetensors") == 0;
}

/* What a file of a folder may be called. */
static bool is_file_name(const char *name, size_t n)
{
    return n > 0 && n <= SKF_FOLDER_NAME && name[0] != '.' && !memchr(name, '/', n) && !memchr(name, '\0', n) && is_clean_name(name, n);
}

static int by_place(const void *a, const void *b)
{
    const struct part *x = a, *y = b;
    if (x->is_set != y->is_set)
        return x->is_set ? 1 : -1;
    return strcmp(x->name, y->name);
}

/* ---- the folder ---------------------------------------------------------------------------------------------------------------- */
static enum skf_err add(struct skf_folder *f, const char *dir, const char *name, struct skf_why *why)
{
    char path[PATH_MAX_HERE];
    struct stat st;
    if (!is_file_name(name, strlen(name)))
        return skf_fail(why, SKF_ERR_FORMAT, "%s: holds a file whose name is not clean UTF-8, or of more than %d bytes", dir, SKF_FOLDER_NAME);
    SKF_TRY(skf_path(path, sizeof path, dir, name));
    if (stat(path, &st) != 0) {
        int sys = errno;
        return skf_fail_errno(why, sys, "%s", path);
    }
    if (!S_ISREG(st.st_mode))
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: is no file: of a folder its files are taken, and nothing beneath", path);
    if (f->n == SKF_FOLDER_FILES)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: more than %d files", dir, SKF_FOLDER_FILES);
    struct part *p = &f->parts[f->n++];
    (void)snprintf(p->name, sizeof p->name, "%s", name);
    p->is_set = is_set_name(name);
    return skf_map_open(path, &p->map, why);
}

static enum skf_err read_folder(struct skf_folder *f, const char *dir, struct skf_why *why)
{
    DIR *d = opendir(dir);
    enum skf_err e = SKF_OK;
    if (!d) {
        int sys = errno;
        return skf_fail_errno(why, sys, "%s", dir);
    }
    for (struct dirent *at = readdir(d); at && e == SKF_OK; at = readdir(d))
        if (at->d_name[0] != '.')
            e = add(f, dir, at->d_name, why);
    (void)closedir(d);
    if (e == SKF_OK && !f->n)
        e = skf_fail(why, SKF_ERR_FORMAT, "%s: no files stand in this folder", dir);
    if (f->n)
        qsort(f->parts, f->n, sizeof *f->parts, by_place);
    return e;
}

static enum skf_err put_entry(skf_json *root, const struct part *p, uint64_t begin)
{
    char key[260];
    (void)snprintf(key, sizeof key, "/%s", p->name);
    skf_json *entry = skf_json_obj(), *shape = skf_json_arr(), *range = skf_json_arr();
    enum skf_err e = skf_json_set(root, key, entry);
    SKF_GO(e, skf_json_set(entry, "dtype", skf_json_str("U8")));
    SKF_GO(e, skf_json_push(shape, skf_json_int((int64_t)p->map.size)));
    SKF_GO(e, skf_json_push(range, skf_json_int((int64_t)begin)));
    SKF_GO(e, skf_json_push(range, skf_json_int((int64_t)(begin + p->map.size))));
    skf_json *s = shape, *r = range;
    shape = range = NULL;
    e = skf_json_set(entry, "shape", s);
    enum skf_err e2 = skf_json_set(entry, "data_offsets", r);
    e = e != SKF_OK ? e : e2;
out:
    skf_json_free(shape);
    skf_json_free(range);
    return e;
}

static enum skf_err put_listing(struct skf_folder *f, skf_json *root)
{
    struct skf_buf set = SKF_BUF_INIT(SKF_FOLDER_HEAD);
    skf_json *meta = skf_json_obj();
    uint64_t at = 0;
    enum skf_err e = skf_json_set(root, "__metadata__", meta);
    for (size_t i = 0; i < f->n && e == SKF_OK; i++) {
        char line[288];
        int n = snprintf(line, sizeof line, "%llu %s\n", (unsigned long long)f->parts[i].map.size, f->parts[i].name);
        if (f->parts[i].is_set)
            e = skf_buf_put(&set, line, (size_t)n);
    }
    if (e == SKF_OK)
        e = skf_json_set(meta, KEY, skf_json_strn(set.len ? (const char *)set.data : "", set.len));
    for (size_t i = 0; i < f->n && e == SKF_OK && !f->parts[i].is_set; i++) {
        e = put_entry(root, &f->parts[i], at);
        at += f->parts[i].map.size;
    }
    skf_buf_free(&set);
    return e;
}

static enum skf_err make_head(struct skf_folder *f)
{
    skf_json *root = skf_json_obj();
    char *text = NULL;
    size_t n = 0;
    enum skf_err e = root ? put_listing(f, root) : SKF_ERR_NOMEM;
    SKF_GO(e, e);
    SKF_GO(e, skf_json_text(root, 0, &text, &n));
    size_t padded = (n + 7) / 8 * 8;
    if (padded > SKF_FOLDER_HEAD - LENGTH)
        SKF_GO(e, SKF_ERR_LIMIT);
    if (!(f->head = skf_alloc(LENGTH + padded)))
        SKF_GO(e, SKF_ERR_NOMEM);
    f->head_n = LENGTH + padded;
    for (unsigned i = 0; i < LENGTH; i++)
        f->head[i] = (char)(padded >> 8 * i);
    memcpy(f->head + LENGTH, text, n);
    memset(f->head + LENGTH + n, ' ', padded - n);
out:
    skf_json_free(root);
    skf_free(text);
    return e;
}

static enum skf_err span(void *ctx, uint64_t off, const uint8_t **p, uint64_t *len)
{
    const struct skf_folder *f = ctx;
    size_t lo = 0, hi = f->n;
    if (off < f->head_n) {
        *p = (const uint8_t *)f->head + off;
        *len = f->head_n - off;
        return SKF_OK;
    }
    while (hi - lo > 1) { /* the last file that begins at or before it: empty ones begin where the next does */
        size_t mid = lo + (hi - lo) / 2;
        if (f->parts[mid].offset <= off)
            lo = mid;
        else
            hi = mid;
    }
    const struct part *at = &f->parts[lo];
    if (off - at->offset >= at->map.size)
        return SKF_ERR_FORMAT;
    *p = at->map.data + (off - at->offset);
    *len = at->map.size - (off - at->offset);
    return SKF_OK;
}

enum skf_err skf_folder_open(const char *path, struct skf_folder **out, struct skf_why *why)
{
    struct skf_folder *f = skf_calloc(1, sizeof *f);
    *out = NULL;
    if (!f || !(f->parts = skf_calloc(SKF_FOLDER_FILES, sizeof *f->parts))) {
        skf_free(f);
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", path);
    }
    enum skf_err e = read_folder(f, path, why);
    if (e == SKF_OK && (e = make_head(f)) != SKF_OK)
        e = skf_fail(why, e, "%s: its list of files cannot be made: %s", path, skf_err_name(e));
    if (e != SKF_OK) {
        skf_folder_close(f);
        return e;
    }
    uint64_t at = f->head_n;
    for (size_t i = 0; i < f->n; i++) {
        f->parts[i].offset = at;
        at += f->parts[i].map.size;
    }
    f->source = (struct skf_source){at, span, f, NULL};
    *out = f;
    return SKF_OK;
}

void skf_folder_close(struct skf_folder *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->n; i++)
        skf_map_close(&f->parts[i].map);
    skf_free(f->parts);
    skf_free(f->head);
    skf_free(f);
}

const struct skf_source *skf_folder_source(const struct skf_folder *f) { return &f->source; }

/* ---- a content's files ----------------------------------------------------------------------------------------------------------- */
struct list {
    struct skf_folder_file *files;
    size_t n;
    uint64_t at, size;
};

static enum skf_err take(struct list *l, const char *name, size_t len, uint64_t bytes, struct skf_why *why)
{
    if (!is_file_name(name, len))
        return skf_fail(why, SKF_ERR_FORMAT, "the list of its files holds a name that is none of a file");
    if (l->n == SKF_FOLDER_FILES)
        return skf_fail(why, SKF_ERR_LIMIT, "more than %d files", SKF_FOLDER_FILES);
    if (bytes > l->size - l->at)
        return skf_fail(why, SKF_ERR_FORMAT, "'%.*s' lies past the end of the content", (int)SKF_MIN_NAME(len), name);
    for (size_t i = 0; i < l->n; i++)
        if (strlen(l->files[i].name) == len && memcmp(l->files[i].name, name, len) == 0)
            return skf_fail(why, SKF_ERR_FORMAT, "two files '%.*s'", (int)SKF_MIN_NAME(len), name);
    struct skf_folder_file *f = &l->files[l->n++];
    memcpy(f->name, name, len);
    f->name[len] = '\0';
    f->offset = l->at;
    f->bytes = bytes;
    l->at += bytes;
    return SKF_OK;
}

static enum skf_err take_others(struct list *l, const skf_json *root, struct skf_why *why)
{
    uint64_t begun = l->at;
    for (void *it = skf_json_iter(root); it; it = skf_json_next(root, it)) {
        const char *key = skf_json_iter_key(it);
        if (strcmp(key, "__metadata__") == 0)
            continue;
        const skf_json *range = skf_json_get(skf_json_iter_value(it), "data_offsets");
        int64_t begin = skf_json_i64(skf_json_at(range, 0), -1), end = skf_json_i64(skf_json_at(range, 1), -1);
        if (key[0] != '/' || skf_json_len(range) != 2 || begin < 0 || end < begin || (uint64_t)begin != l->at - begun)
            return skf_fail(why, SKF_ERR_FORMAT, "the list of its files is broken");
        SKF_TRY(take(l, key + 1, strlen(key + 1), (uint64_t)(end - begin), why));
    }
    return SKF_OK;
}

static enum skf_err take_set(struct list *l, const char *lines, struct skf_why *why)
{
    while (*lines) {
        char *name;
        const char *end = strchr(lines, '\n');
        if (!end || lines[0] < '0' || lines[0] > '9')
            return skf_fail(why, SKF_ERR_FORMAT, "the list of its files is broken");
        errno = 0;
        unsigned long long bytes = strtoull(lines, &name, 10);
        if (errno || name[0] != ' ' || name >= end)
            return skf_fail(why, SKF_ERR_FORMAT, "the list of its files is broken");
        SKF_TRY(take(l, name + 1, (size_t)(end - name - 1), bytes, why));
        lines = end + 1;
    }
    return SKF_OK;
}

enum skf_err skf_folder_list(const uint8_t *p, uint64_t n, uint64_t size, struct skf_folder_file **files, size_t *count,
                             struct skf_why *why)
{
    skf_json *root = NULL;
    *files = NULL;
    *count = 0;
    if (n < LENGTH + 2 || p[LENGTH] != '{')
        return SKF_OK;
    uint64_t json = skf_le64(p);
    if (json < 2 || json > SKF_MIN(n, (uint64_t)SKF_FOLDER_HEAD) - LENGTH || skf_json_parse(p + LENGTH, json, JSON_DEPTH, &root, NULL) != SKF_OK)
        return SKF_OK; /* a longer header, or what is no safetensors at all: none of ours */
    const char *set = skf_json_cstr(skf_json_get(skf_json_get(root, "__metadata__"), KEY));
    struct list l = {.at = LENGTH + json, .size = size};
    enum skf_err e = SKF_OK;
    if (!set)
        goto out;
    if (!(l.files = skf_calloc(SKF_FOLDER_FILES, sizeof *l.files)))
        SKF_GO(e, skf_fail(why, SKF_ERR_NOMEM, "out of memory"));
    SKF_GO(e, take_others(&l, root, why));
    SKF_GO(e, take_set(&l, set, why));
    if (!l.n || l.at != size)
        SKF_GO(e, skf_fail(why, SKF_ERR_FORMAT, "the list of its files leaves bytes out"));
    *files = l.files;
    *count = l.n;
    l.files = NULL;
out:
    skf_json_free(root);
    skf_free(l.files);
    return e;
}
