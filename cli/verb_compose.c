/* skiff compose: a chain of deltas made one. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "cli/cli.h"
#include "cli/diff.h"

enum { CHAIN = 4096 }; /* deltas at most */

struct want {
    const char *out, *const *files; /* the base, and the deltas */
    size_t n;
    uint64_t jobs, level;
    bool is_json;
};

static int print_json(const struct skf_delta_stats *s, uint64_t parts)
{
    skf_json *j = skf_json_obj();
    enum skf_err e = skf_delta_json(s, j);
    if (e == SKF_OK)
        e = skf_json_set(j, "parts_bytes", skf_json_int((int64_t)parts));
    if (e == SKF_OK)
        return skf_cli_print_json(j);
    skf_json_free(j);
    return skf_cli_fail(e, NULL);
}

/* What is wrong with the files named, or NULL; *parts: bytes of the deltas. */
static const char *check_files(const char *out, const char *const *files, size_t n, uint64_t *parts)
{
    struct stat o, f;
    bool has_out = stat(out, &o) == 0;
    *parts = 0;
    for (size_t i = 0; i < n; i++) {
        if (stat(files[i], &f) != 0)
            continue; /* told by whoever opens it */
        if (has_out && o.st_dev == f.st_dev && o.st_ino == f.st_ino)
            return "the composed delta would overwrite what it is made of";
        *parts += i ? (uint64_t)f.st_size : 0;
    }
    return NULL;
}

/* What is wrong with what was asked for, or NULL. */
static const char *wrong_with(const struct want *w, uint64_t *parts)
{
    if (!w->out)
        return "-o FILE.skd is missing";
    if (w->level > 19)
        return "--level: 1 to 19";
    if (w->jobs > 1024)
        return "--jobs: at most 1024";
    if (w->n < 3)
        return "a chain has two deltas or more: BASE FIRST.skd NEXT.skd...; one by itself is what it is";
    return check_files(w->out, w->files, w->n, parts);
}

static int compose(const struct want *w, uint64_t parts)
{
    struct skf_why why = {{0}};
    struct skf_delta_stats stats;
    struct skf_delta_opts o = {.jobs = (unsigned)w->jobs, .level = (int)w->level, .progress = skf_cli_progress("compose")};
    enum skf_err e = skf_cli_whole(w->files[0], &why);
    if (e == SKF_OK) {
        skf_draft_sweep_of(w->out, NULL); /* versions between, of a run that was killed */
        e = skf_delta_compose(w->files[0], w->files + 1, w->n - 1, w->out, &o, &stats, &why);
    }
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    skf_cli_progress_end();
    if (w->is_json)
        return print_json(&stats, parts);
    char a[16], b[16];
    (void)printf("%s: %s in place of %s in %zu deltas, %.1f s\n", w->out, skf_human_bytes(stats.bytes, a), skf_human_bytes(parts, b),
                 w->n - 1, stats.seconds);
    return SKF_EXIT_OK;
}

int skf_verb_compose(int argc, char **argv)
{
    static const char *files[CHAIN + 1];
    struct want w = {.files = files};
    uint64_t parts = 0;
    const struct skf_opt opts[] = {
        {.name = "--output", .letter = 'o', .value = "FILE.skd", .help = "where the delta from BASE to the last version goes", .text = &w.out},
        {.name = "--jobs", .letter = 'j', .value = "N", .help = "threads (one a processor)", .number = &w.jobs},
        {.name = "--level", .value = "N", .help = "zstd level of bytes that are no tensors, 1 to 19 (19)", .number = &w.level,
         .is_positive = true},
        {.name = "--json", .help = "one JSON object on standard output", .flag = &w.is_json},
    };
    const struct skf_usage u = {.verb = "compose",
                                .args = "BASE FIRST.skd NEXT.skd... -o FILE.skd",
                                .about = "Makes one delta of a chain: FIRST.skd starts at BASE, each other where the one before it ends. The "
                                         "versions between take room beside FILE.skd, two of them at most, while it works.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts),
                                .positional = files,
                                .min_args = 2,
                                .max_args = CHAIN + 1,
                                .n_args = &w.n};
    int status;
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    const char *wrong = wrong_with(&w, &parts);
    return wrong ? skf_cli_usage("compose", wrong) : compose(&w, parts);
}
