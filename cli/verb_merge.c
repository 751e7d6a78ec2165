/* skiff merge: a LoRA adapter merged into new weights. */
#include <stdlib.h>

#include "base/file.h"
#include "cli/calibrate_merge.h"
#include "cli/cli.h"
#include "cli/engine_arg.h"
#include "model/merge.h"

/* The options as they were given. */
struct asked {
    const char *files[2], *out, *calibrate, *text, *gain;
    double share; /* of --gain */
    uint64_t jobs, bytes;
    bool is_json;
};

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

static int merge(const struct asked *q)
{
    struct skf_why why = {{0}};
    struct skf_merge_stats stats;
    struct skf_progress progress = skf_cli_progress("merging");
    enum skf_err e = skf_cli_whole(q->files[0], &why);
    if (e == SKF_OK)
        e = skf_merge(q->files[0], q->files[1], q->out, (unsigned)q->jobs, &progress, &stats, &why);
    skf_cli_progress_end();
    return e == SKF_OK ? report(q->out, &stats, q->is_json) : skf_cli_fail(e, &why);
}

static long long number(const skf_json *o, const char *key) { return (long long)skf_json_i64(skf_json_get(o, key), 0); }

static void print_calibrated(const struct asked *q, const skf_json *o)
{
    char size[16];
    (void)printf("%s: an update of %s, %lld codes and %lld scales in %lld tensors", q->out,
                 skf_human_bytes((uint64_t)number(o, "delta_bytes"), size), number(o, "codes_changed"), number(o, "scales_changed"),
                 number(o, "tensors_changed"));
    if (skf_json_get(o, "gain"))
        (void)printf(", %.1f%% of the gain: perplexity %.4f, base %.4f, unquantized %.4f", 100 * skf_json_f64(skf_json_get(o, "gain"), 0),
                     skf_json_f64(skf_json_get(o, "perplexity"), 0), skf_json_f64(skf_json_get(o, "base_perplexity"), 0),
                     skf_json_f64(skf_json_get(o, "target_perplexity"), 0));
    (void)printf("\n");
}

/* Weighed by a text, within a bound of bytes or of gain. */
static int merge_calibrated(const struct asked *q)
{
    struct skf_why why = {{0}};
    const struct calibrate_ask ask = {.base = q->files[0], .out = q->out, .calibrate = q->calibrate, .text = q->text,
                                      .bytes = q->bytes, .gain = q->share, .jobs = (unsigned)q->jobs,
                                      .progress = skf_cli_progress("merging")};
    skf_json *o = skf_json_obj();
    enum skf_err e = o ? skf_cli_merge_calibrated(&ask, q->files[1], o, &why) : SKF_ERR_NOMEM;
    skf_cli_progress_end();
    if (e == SKF_OK && q->is_json)
        return skf_cli_print_json(o);
    if (e == SKF_OK)
        print_calibrated(q, o);
    skf_json_free(o);
    return e == SKF_OK ? skf_cli_flush(SKF_EXIT_OK) : skf_cli_fail(e, &why);
}

/* NULL, or what is wrong. */
static const char *check(struct asked *q)
{
    if (!q->out)
        return "-o OUT.gguf is missing";
    if (q->jobs > 1024)
        return "--jobs: at most 1024";
    if (q->calibrate && q->jobs > SKF_ENGINE_THREADS)
        return "--jobs: at most 256 with --calibrate, which runs the model";
    if (!q->calibrate && (q->bytes || q->gain || q->text))
        return q->bytes ? "--bytes goes with --calibrate TEXT" : q->gain ? "--gain goes with --calibrate TEXT"
                                                                         : "--text goes with --calibrate TEXT";
    if (q->gain && !(is_cli_share(q->gain, &q->share) && q->share > 0))
        return "--gain: not a share such as 90%";
    return NULL;
}

int skf_verb_merge(int argc, char **argv)
{
    struct asked q = {0};
    const struct skf_opt opts[] = {
        {.name = "--output", .letter = 'o', .value = "OUT.gguf", .help = "the file to write", .text = &q.out},
        {.name = "--calibrate", .value = "TEXT", .help = "keep what matters on this text, in few changes", .text = &q.calibrate},
        {.name = "--bytes", .value = "N", .help = "with --calibrate: the delta's most bytes", .number = &q.bytes, .is_positive = true},
        {.name = "--gain", .value = "SHARE", .help = "with --calibrate: how much of the gain must be kept, as 90%", .text = &q.gain},
        {.name = "--text", .value = "FILE", .help = "with --calibrate: the text on which quality is measured", .text = &q.text},
        {.name = "--jobs", .letter = 'j', .value = "N", .help = "threads (one a processor)", .number = &q.jobs},
        {.name = "--json", .help = "one JSON object", .flag = &q.is_json},
    };
    const struct skf_usage u = {.verb = "merge",
                                .args = "BASE.gguf LORA.gguf -o OUT.gguf",
                                .about = "Merges a LoRA adapter into its base, in the base's own tensor types, the same bytes on "
                                         "every machine.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts),
                                .positional = q.files,
                                .min_args = 2,
                                .max_args = 2};
    int status;
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    const char *wrong = check(&q);
    if (wrong)
        return skf_cli_usage("merge", wrong);
    const char *const sources[] = {q.files[0], q.files[1], q.calibrate, q.text};
    if (!is_cli_output_free("merge", q.out, sources, SKF_COUNT(sources)))
        return SKF_EXIT_USAGE;
    skf_draft_sweep_of(q.out, NULL); /* as large as a model, each */
    return q.calibrate ? merge_calibrated(&q) : merge(&q);
}
