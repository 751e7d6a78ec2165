/* skiff diff: the exact delta between two models, and what it is made of. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/diff.h"
#include "model/adapter.h"
#include "model/folder.h"

struct want {
    const char *out, *adapter, *also, *sort;
    uint64_t jobs, level, share;
    bool is_plan, is_explained, is_json;
};
struct diff { /* one, on its way */
    const struct want *w;
    struct skf_model *old, *neu, *also;
    struct skf_adapter *adapter;
    struct skf_explain *explain;
    struct skf_delta_stats stats;
    struct skf_diff_plan plan;
    char dir[64], path[80]; /* of a delta that is only planned */
};

static enum skf_err put_fields(const struct diff *d, skf_json *j)
{
    const struct skf_delta_stats *s = &d->stats;
    SKF_TRY(skf_delta_json(s, j));
    skf_json *coding = skf_json_obj();
    SKF_TRY(skf_json_set(j, "coding", coding));
    for (int k = 0; k < SKF_CODE_COUNT; k++)
        SKF_TRY(skf_json_set(coding, skf_coding_name((enum skf_coding)k), skf_json_int((int64_t)s->coding_bytes[k])));
    SKF_TRY(skf_json_set(j, "side_bytes", skf_json_int((int64_t)s->side_bytes)));
    if (d->w->is_plan)
        SKF_TRY(skf_plan_json(&d->plan, j));
    return d->explain ? skf_explain_json(d->explain, j) : SKF_OK;
}

static int print_json(const struct diff *d)
{
    skf_json *j = skf_json_obj();
    enum skf_err e = put_fields(d, j);
    if (e == SKF_OK)
        return skf_cli_print_json(j);
    skf_json_free(j);
    return skf_cli_fail(e, NULL);
}

static int print_text(const struct diff *d)
{
    const struct want *w = d->w;
    uint64_t full = skf_model_source(d->neu)->size;
    char a[16], b[16];
    if (d->explain)
        skf_explain_print(d->explain);
    if (w->is_plan)
        skf_plan_print(&d->plan, &d->stats);
    (void)printf("%s%s%s for %s: %.1fx less, %.1f s\n", w->is_plan ? "" : w->out, w->is_plan ? "" : ": ",
                 skf_human_bytes(d->stats.bytes, a), skf_human_bytes(full, b), (double)full / (double)d->stats.bytes,
                 d->stats.seconds);
    return SKF_EXIT_OK;
}

/* A planned delta is made too, where temporary files go, to be looked at. */
static enum skf_err choose_path(struct diff *d, const char **path, struct skf_why *why)
{
    const char *tmp = getenv("TMPDIR");
    *path = d->w->out;
    if (!d->w->is_plan)
        return SKF_OK;
    (void)snprintf(d->dir, sizeof d->dir, "%.40s/skiff-plan-XXXXXX", tmp && tmp[0] && strlen(tmp) <= 40 ? tmp : "/tmp");
    if (!mkdtemp(d->dir)) {
        int sys = errno;
        return skf_fail_errno(why, sys, "%s", d->dir);
    }
    (void)snprintf(d->path, sizeof d->path, "%s/d.skd", d->dir);
    *path = d->path;
    return SKF_OK;
}

static enum skf_err make_plan(struct diff *d, double encode_seconds, struct skf_delta_opts *opts, struct skf_why *why)
{
    struct skf_delta_stats plain;
    d->plan.has_changes = memcmp(d->stats.source_root, d->stats.result_root, SKF_DIGEST) != 0;
    d->plan.adapter_chunks = d->stats.coding_chunks[SKF_CODE_ADAPTER];
    SKF_TRY(skf_delta_ways(d->old, d->neu, d->path, (int)d->w->level, encode_seconds, d->plan.ways, why));
    if (!d->adapter)
        return SKF_OK;
    double begun = skf_cpu_seconds();
    opts->adapter = NULL;
    SKF_TRY(skf_delta_build(d->old, d->neu, NULL, opts, &plain, why));
    d->plan.has_adapter = true;
    d->plan.without = d->plan.ways[SKF_WAY_SKIFF];
    d->plan.without.bytes = plain.bytes;
    d->plan.without.encode_seconds = skf_cpu_seconds() - begun;
    return SKF_OK;
}

static bool is_cut_short(const char *path, const struct skf_model *m)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size < skf_model_source(m)->size;
}

static enum skf_err open_side(const char *path, struct skf_model **m, struct skf_why *why)
{
    return is_folder(path) ? skf_model_open_folder(path, m, why) : skf_cli_model_open(path, m, why);
}

static enum skf_err run(struct diff *d, const char *old_path, const char *new_path, struct skf_why *why)
{
    const struct want *w = d->w;
    const char *path;
    struct skf_delta_opts opts = {.jobs = (unsigned)w->jobs, .level = (int)w->level, .progress = skf_cli_progress("diff")};
    opts.progress.share = (unsigned)w->share;
    SKF_TRY(open_side(old_path, &d->old, why));
    SKF_TRY(open_side(new_path, &d->neu, why));
    if (w->adapter)
        SKF_TRY(skf_adapter_open(w->adapter, d->old, old_path, &d->adapter, why));
    if (w->also)
        SKF_TRY(open_side(w->also, &d->also, why));
    opts.adapter = d->adapter;
    opts.also = d->also;
    SKF_TRY(choose_path(d, &path, why));
    double begun = skf_cpu_seconds();
    enum skf_err e = skf_delta_build(d->old, d->neu, path, &opts, &d->stats, why);
    if (e == SKF_ERR_IO && (is_cut_short(old_path, d->old) || is_cut_short(new_path, d->neu)))
        return skf_fail(why, e, "%s: became shorter while it was read", is_cut_short(old_path, d->old) ? old_path : new_path);
    SKF_TRY(e);
    double seconds = skf_cpu_seconds() - begun;
    if (w->is_explained)
        SKF_TRY(skf_explain_make(path, d->neu, w->sort, &d->explain, why));
    return w->is_plan ? make_plan(d, seconds, &opts, why) : SKF_OK;
}

static int diff(const char *old_path, const char *new_path, const struct want *w)
{
    struct diff d = {.w = w};
    struct skf_why why = {{0}};
    enum skf_err e = run(&d, old_path, new_path, &why);
    if (e == SKF_OK)
        skf_cli_progress_end();
    if (d.path[0]) /* before anything is printed: whoever reads that may stop listening */
        (void)unlink(d.path);
    if (d.dir[0])
        (void)rmdir(d.dir);
    int status = e != SKF_OK ? skf_cli_fail(e, &why) : w->is_json ? print_json(&d) : print_text(&d);
    skf_explain_free(d.explain);
    skf_adapter_close(d.adapter);
    skf_model_close(d.old);
    skf_model_close(d.neu);
    skf_model_close(d.also);
    return status;
}

/* The delta must not go over what it is made of. */
static const char *wrong_out(const struct want *w, const char *const files[2])
{
    const char *const made_of[] = {files[0], files[1], w->adapter, w->also};
    for (size_t i = 0; i < SKF_COUNT(made_of); i++) {
        if (made_of[i] && is_cli_same_file(w->out, made_of[i]))
            return "the delta would overwrite what it is made of";
        if (made_of[i] && is_cli_inside(w->out, made_of[i]))
            return "the delta stands in the folder that it is made of; write it beside";
    }
    return NULL;
}

/* What is wrong with the options taken together; NULL when nothing is. */
static const char *wrong_with(const struct want *w, const char *const files[2])
{
    if (!w->out && !w->is_plan)
        return "-o FILE.skd is missing";
    if (w->sort && !is_explain_sort(w->sort))
        return "--sort: file, sent, bytes, bits or name";
    if (w->sort && !w->is_explained)
        return "--sort orders the table of --explain, which is not asked for";
    if (w->share < 1 || w->share > 100)
        return "--share: 1 to 100";
    if (w->level > 19 || w->jobs > 1024)
        return w->level > 19 ? "--level: 1 to 19" : "--jobs: at most 1024";
    if (w->also && (w->adapter || w->is_plan))
        return w->adapter ? "--also and --adapter are two ways; a delta goes one of them" : "--plan tells of one version; leave --also out";
    return w->out ? wrong_out(w, files) : NULL;
}

int skf_verb_diff(int argc, char **argv)
{
    struct want w = {.share = 100};
    const char *files[2];
    const struct skf_opt opts[] = {
        {.name = "--output", .letter = 'o', .value = "FILE.skd", .help = "where the delta goes", .text = &w.out},
        {.name = "--adapter", .value = "LORA.gguf", .help = "NEW is OLD with this adapter merged, where it is", .text = &w.adapter},
        {.name = "--also", .value = "OTHER", .help = "another version that receivers have: what is nearer to it is made of it", .text = &w.also},
        {.name = "--jobs", .letter = 'j', .value = "N", .help = "threads (one a processor)", .number = &w.jobs},
        {.name = "--share", .value = "PERCENT", .help = "of each processor's time, at most (100)", .number = &w.share},
        {.name = "--level", .value = "N", .help = "zstd level, 1 to 19 (19 for bytes that are no tensors)", .number = &w.level,
         .is_positive = true},
        {.name = "--plan", .help = "only tell what this and other ways would cost, and why; writes no delta", .flag = &w.is_plan},
        {.name = "--explain", .help = "a table of what each tensor costs", .flag = &w.is_explained},
        {.name = "--sort", .value = "BY", .help = "its order: file, sent, bytes, bits or name", .text = &w.sort},
        {.name = "--json", .help = "one JSON object on standard output", .flag = &w.is_json},
    };
    const struct skf_usage u = {.verb = "diff",
                                .args = "OLD NEW -o FILE.skd",
                                .about = "Writes the exact delta that makes NEW of OLD, models or folders of a sharded one's files.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts),
                                .positional = files,
                                .min_args = 2,
                                .max_args = 2};
    int status;
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    const char *wrong = wrong_with(&w, files);
    return wrong ? skf_cli_usage("diff", wrong) : diff(files[0], files[1], &w);
}
