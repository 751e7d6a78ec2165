/* skiff merge: a LoRA adapter merged into new weights. */
#include "cli/cli.h"
#include "model/merge.h"

static enum skf_err put_stats(skf_json *o, const char *out, const struct skf_merge_stats *s)
{
    SKF_TRY(skf_json_set(o, "file", skf_json_str(out)));
    SKF_TRY(skf_json_set(o, "bytes", skf_json_int((int64_t)s->bytes)));
    SKF_TRY(skf_json_set(o, "tensors_merged", skf_json_int((int64_t)s->tensors_merged)));
    SKF_TRY(skf_json_set(o, "tensors_copied", skf_json_int((int64_t)s->tensors_copied)));
    return skf_json_set(o, "seconds", skf_json_real(s->seconds));
}

static int report(const char *out, const struct skf_merge_stats *s, bool is_json)
{
    char size[16];
    if (!is_json) {
        (void)printf("%s: %s, %llu tensors merged, %llu as they were, %.1f s\n", out, skf_human_bytes(s->bytes, size),
                     (unsigned long long)s->tensors_merged, (unsigned long long)s->tensors_copied, s->seconds);
        return SKF_EXIT_OK;
    }
    skf_json *o = skf_json_obj();
    enum skf_err e = o ? put_stats(o, out, s) : SKF_ERR_NOMEM;
    if (e == SKF_OK)
        return skf_cli_print_json(o);
    skf_json_free(o);
    return skf_cli_fail(e, NULL);
}

int skf_verb_merge(int argc, char **argv)
{
    bool is_json = false;
    const char *files[2] = {NULL, NULL}, *out = NULL;
    uint64_t jobs = 0;
    const struct skf_opt opts[] = {
        {.name = "--output", .letter = 'o', .value = "OUT.gguf", .help = "the file to write", .text = &out},
        {.name = "--jobs", .letter = 'j', .value = "N", .help = "threads (default: one a processor)", .number = &jobs},
        {.name = "--json", .help = "one JSON object", .flag = &is_json},
    };
    const struct skf_usage u = {.verb = "merge",
                                .args = "BASE.gguf LORA.gguf -o OUT.gguf",
                                .about = "Merges a LoRA adapter into its base, in the base's own tensor types, the same bytes on "
                                         "every machine.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts),
                                .positional = files,
                                .min_args = 2,
                                .max_args = 2};
    int status;
    struct skf_why why = {{0}};
    struct skf_merge_stats stats;
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    if (!out || jobs > 1024) {
        (void)fprintf(stderr, "skiff: merge: %s; `skiff merge --help` tells more\n",
                      out ? "--jobs: at most 1024" : "-o OUT.gguf is missing");
        return SKF_EXIT_USAGE;
    }
    struct skf_progress progress = skf_cli_progress("merging");
    enum skf_err e = skf_merge(files[0], files[1], out, (unsigned)jobs, &progress, &stats, &why);
    skf_cli_progress_end();
    return e == SKF_OK ? report(out, &stats, is_json) : skf_cli_fail(e, &why);
}
