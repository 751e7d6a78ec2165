/* skiff apply: the new model from the old one and a delta, whole or not at all. */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/diff.h"

static int print_json(const struct skf_delta_stats *s)
{
    skf_json *j = skf_json_obj();
    enum skf_err e = skf_delta_json(s, j);
    if (e == SKF_OK)
        return skf_cli_print_json(j);
    skf_json_free(j);
    return skf_cli_fail(e, NULL);
}

struct want {
    const char *out, *also, *files[2];
    uint64_t jobs, share;
    bool is_json, is_in_place;
};

/* What is wrong with the options taken together; NULL when nothing is. */
static const char *wrong_with(const struct want *w)
{
    if (w->is_in_place && w->out)
        return "--in-place and -o NEW say different things";
    if (!w->is_in_place && !w->out)
        return "-o NEW is missing";
    if (w->is_in_place && w->also)
        return "--in-place takes deltas of one version; write to another file with --also";
    if (w->jobs > 1024)
        return "--jobs: at most 1024";
    if (w->share < 1 || w->share > 100)
        return "--share: 1 to 100";
    if (w->is_in_place)
        return is_cli_same_file(w->files[0], w->files[1]) ? "the delta would overwrite itself" : NULL;
    if (is_cli_inside(w->out, w->files[0]) || (w->also && is_cli_inside(w->out, w->also)))
        return "the new model stands in the folder of an old one; write it beside";
    return is_cli_same_file(w->out, w->files[0]) || is_cli_same_file(w->out, w->files[1]) || (w->also && is_cli_same_file(w->out, w->also))
               ? "the new model would overwrite the old one or the delta (--in-place replaces the old one)"
               : NULL;
}

static int apply(const struct want *w)
{
    struct skf_why why = {{0}};
    struct skf_delta_stats stats;
    struct skf_delta_opts o = {.jobs = (unsigned)w->jobs, .progress = skf_cli_progress("apply"), .is_kept = true, .also_path = w->also};
    o.progress.share = (unsigned)w->share;
    enum skf_err e = w->is_in_place ? SKF_OK : skf_cli_whole(w->files[0], &why);
    if (e == SKF_OK && w->also)
        e = skf_cli_whole(w->also, &why);
    if (e == SKF_OK)
        e = w->is_in_place ? skf_delta_apply_in_place(w->files[0], w->files[1], &o, &stats, &why)
            : is_delta_of_folder(w->files[0], w->out) ? skf_delta_apply_folder(w->files[0], w->files[1], w->out, &o, &stats, &why)
                                                      : skf_delta_apply(w->files[0], w->files[1], w->out, &o, &stats, &why);
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    skf_cli_progress_end();
    if (w->is_json)
        return print_json(&stats);
    char bytes[16];
    (void)printf("%s: %s, %.1f s\n", w->is_in_place ? w->files[0] : w->out, skf_human_bytes(stats.bytes, bytes),
                 stats.seconds);
    return SKF_EXIT_OK;
}

int skf_verb_apply(int argc, char **argv)
{
    struct want w = {.share = 100};
    const struct skf_opt opts[] = {
        {.name = "--output", .letter = 'o', .value = "NEW", .help = "where the new model goes", .text = &w.out},
        {.name = "--also", .value = "OTHER", .help = "another version that the delta takes from, as it was given to diff", .text = &w.also},
        {.name = "--in-place", .help = "the new model takes the old one's place, through a journal", .flag = &w.is_in_place},
        {.name = "--jobs", .letter = 'j', .value = "N", .help = "threads (one a processor)", .number = &w.jobs},
        {.name = "--share", .value = "PERCENT", .help = "of each processor's time, at most (100)", .number = &w.share},
        {.name = "--json", .help = "one JSON object on standard output", .flag = &w.is_json},
    };
    const struct skf_usage u = {.verb = "apply",
                                .args = "OLD FILE.skd -o NEW",
                                .about = "Makes NEW of OLD and a delta. NEW is written whole or not at all; what a run that was ended early "
                                         "has done, the same command goes on with.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts),
                                .positional = w.files,
                                .min_args = 2,
                                .max_args = 2};
    int status;
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    const char *wrong = wrong_with(&w);
    return wrong ? skf_cli_usage("apply", wrong) : apply(&w);
}
