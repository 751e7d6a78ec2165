/* skiff apply: the new model from the old one and a delta, whole or not at all. */
#include <stdio.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "delta/delta.h"

static bool is_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int print_json(const struct skf_delta_stats *s)
{
    char source[SKF_HEX], result[SKF_HEX];
    skf_hex(s->source_root, SKF_DIGEST, source);
    skf_hex(s->result_root, SKF_DIGEST, result);
    skf_json *j = skf_json_obj();
    const enum skf_err f[] = {skf_json_set(j, "bytes", skf_json_int((int64_t)s->bytes)),
                              skf_json_set(j, "source_root", skf_json_str(source)),
                              skf_json_set(j, "result_root", skf_json_str(result)),
                              skf_json_set(j, "seconds", skf_json_real(s->seconds)),
                              skf_json_set(j, "chunks", skf_json_int((int64_t)s->chunks))};
    for (size_t i = 0; i < SKF_COUNT(f); i++) {
        if (f[i] != SKF_OK) {
            skf_json_free(j);
            return skf_cli_fail(f[i], NULL);
        }
    }
    return skf_cli_print_json(j);
}

int skf_verb_apply(int argc, char **argv)
{
    const char *out = NULL, *files[2];
    uint64_t jobs = 0;
    bool is_json = false;
    const struct skf_opt opts[] = {
        {.name = "--output", .letter = 'o', .value = "NEW", .help = "where the new model goes", .text = &out},
        {.name = "--jobs", .letter = 'j', .value = "N", .help = "threads (one a processor)", .number = &jobs},
        {.name = "--json", .help = "one JSON object on standard output", .flag = &is_json},
    };
    const struct skf_usage u = {.verb = "apply",
                                .args = "OLD FILE.skd -o NEW",
                                .about = "Makes NEW of OLD and a delta. NEW is written whole or not at all.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts),
                                .positional = files,
                                .min_args = 2,
                                .max_args = 2};
    int status;
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    const char *wrong = NULL;
    if (!out)
        wrong = "-o NEW is missing";
    else if (jobs > 1024)
        wrong = "--jobs: at most 1024";
    else if (is_same_file(out, files[0]) || is_same_file(out, files[1]))
        wrong = "the new model would overwrite the old one or the delta";
    if (wrong) {
        (void)fprintf(stderr, "skiff: apply: %s\n", wrong);
        return SKF_EXIT_USAGE;
    }
    struct skf_why why = {{0}};
    struct skf_delta_stats stats;
    struct skf_delta_opts o = {.jobs = (unsigned)jobs, .progress = skf_cli_progress("apply")};
    enum skf_err e = skf_delta_apply(files[0], files[1], out, &o, &stats, &why);
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    skf_cli_progress_end();
    if (is_json)
        return print_json(&stats);
    char bytes[16];
    (void)printf("%s: %s, %.1f s\n", out, skf_human_bytes(stats.bytes, bytes), stats.seconds);
    return SKF_EXIT_OK;
}
