/*
 * A chain of deltas made one (delta.h).  What the versions between are is decoded into files beside the output that only this process
 * needs (OUTPUT.N.part, swept like any draft), one at a time; the last one is coded against the base anew, so that nothing is sent
 * twice.  Every content on the way has the root that the deltas name, and so has the result.
 */
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "delta/delta.h"

struct link { /* a delta's ends */
    uint8_t source_root[SKF_DIGEST], result_root[SKF_DIGEST];
};

static enum skf_err read_link(const char *path, struct link *l, struct skf_why *why)
{
    struct skf_map m = {0};
    struct skf_skd *skd = NULL;
    uint64_t index;
    SKF_TRY(skf_map_open(path, &m, why));
    enum skf_err e = m.size < SKF_SKD_HEAD ? skf_fail(why, SKF_ERR_FORMAT, "not a delta (.skd)") : SKF_OK;
    if (e == SKF_OK)
        e = skf_skd_index_size(m.data, &index, why);
    if (e == SKF_OK && index > m.size)
        e = skf_fail(why, SKF_ERR_FORMAT, "damaged delta: cut short in its index");
    if (e == SKF_OK)
        e = skf_skd_parse(m.data, index, &skd, why);
    if (e == SKF_OK && skf_skd_info(skd)->also_size)
        e = skf_fail(why, SKF_ERR_UNSUPPORTED, "takes from another version too, and is no link of a chain");
    if (e == SKF_OK) {
        memcpy(l->source_root, skf_skd_info(skd)->source_root, SKF_DIGEST);
        memcpy(l->result_root, skf_skd_info(skd)->result_root, SKF_DIGEST);
    }
    skf_skd_free(skd);
    skf_map_close(&m);
    return e == SKF_OK ? e : skf_fail_prefix(why, e, "%s", path);
}

static enum skf_err does_not_join(const char *what, const uint8_t *wants, const char *before, const uint8_t *is,
                                  struct skf_why *why)
{
    char a[SKF_HEX], b[SKF_HEX];
    skf_hex(wants, SKF_DIGEST, a);
    skf_hex(is, SKF_DIGEST, b);
    return skf_fail(why, SKF_ERR_BASE, "%s: starts from %.12s, but %s is %.12s: name the deltas in the order of their versions",
                    what, a, before, b);
}

/* Each delta starts where the one before it ends, the first one at the base. */
static enum skf_err check_chain(const struct skf_model *base, const char *base_path, const char *const *skd, size_t n,
                                unsigned jobs, uint8_t last[SKF_DIGEST], struct skf_why *why)
{
    struct skf_cut cut = {0};
    struct link l;
    for (size_t i = 0; i < n; i++) {
        SKF_TRY(read_link(skd[i], &l, why));
        if (i && memcmp(l.source_root, last, SKF_DIGEST) != 0)
            return does_not_join(skd[i], l.source_root, skd[i - 1], last, why);
        memcpy(last, l.result_root, SKF_DIGEST);
        if (i)
            continue;
        SKF_TRY(skf_cut_make(base, jobs, NULL, &cut, why));
        bool is_base = memcmp(cut.root, l.source_root, SKF_DIGEST) == 0;
        uint8_t root[SKF_DIGEST];
        memcpy(root, cut.root, SKF_DIGEST);
        skf_cut_free(&cut);
        if (!is_base)
            return does_not_join(skd[0], l.source_root, base_path, root, why);
    }
    return SKF_OK;
}

static enum skf_err step_path(const char *out_path, size_t i, char path[PATH_MAX], struct skf_why *why)
{
    int w = snprintf(path, PATH_MAX, "%s.%zu.part", out_path, i);
    return w < 0 || w >= PATH_MAX ? skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", out_path) : SKF_OK;
}

/* The content after all deltas, in `path`; what stood between is removed. */
static enum skf_err apply_all(const char *base_path, const char *const *skd, size_t n, const char *out_path,
                              const struct skf_delta_opts *opts, char path[PATH_MAX], struct skf_why *why)
{
    char before[PATH_MAX] = "";
    for (size_t i = 0; i < n; i++) {
        struct skf_delta_stats s;
        enum skf_err e = step_path(out_path, i + 1, path, why);
        if (e == SKF_OK)
            e = skf_delta_apply(i ? before : base_path, skd[i], path, opts, &s, why);
        if (i)
            (void)unlink(before);
        SKF_TRY(e);
        memcpy(before, path, PATH_MAX);
    }
    return SKF_OK;
}

enum skf_err skf_delta_compose(const char *base_path, const char *const *skd, size_t n, const char *out_path,
                               const struct skf_delta_opts *opts, struct skf_delta_stats *stats, struct skf_why *why)
{
    uint64_t begun = skf_now_ns();
    struct skf_model *base = NULL, *last = NULL;
    uint8_t root[SKF_DIGEST];
    char path[PATH_MAX] = "";
    enum skf_err e;
    *stats = (struct skf_delta_stats){0};
    if (n == 0)
        return skf_fail(why, SKF_ERR_ARG, "no deltas to compose");
    SKF_GO(e, skf_model_open(base_path, &base, why));
    SKF_GO(e, check_chain(base, base_path, skd, n, opts ? opts->jobs : 0, root, why));
    SKF_GO(e, apply_all(base_path, skd, n, out_path, opts, path, why));
    SKF_GO(e, skf_model_open(path, &last, why));
    SKF_GO(e, skf_delta_build(base, last, out_path, opts, stats, why));
    if (memcmp(stats->result_root, root, SKF_DIGEST) != 0) { /* each chunk had its digest when it was made */
        (void)unlink(out_path);
        e = skf_fail(why, SKF_ERR_INTERNAL, "%s: comes to another content than the chain", out_path);
    }
out:
    skf_model_close(base);
    skf_model_close(last);
    if (path[0])
        (void)unlink(path);
    stats->seconds = (double)(skf_now_ns() - begun) / 1e9;
    return e;
}
