/* skiff quantize: a model's weights in fewer bits. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/engine_arg.h"
#include "cli/quantize.h"

enum { MAX_RULES = 256 };

/* The options as they were given. */
struct asked {
    struct quantize_args a;
    const char *files[2], *type, *embedding, *output, *budget, *gain, *prune;
    const char *typed[MAX_RULES], *kept[MAX_RULES]; /* --tensor-type, --keep */
    size_t n_typed, n_kept;
    uint64_t jobs;
    bool is_global;
    /* made of them */
    struct skf_quantize_rule rules[2 * MAX_RULES];
    char *patterns[MAX_RULES];
    struct skf_prune pruning;
};

static int usage(const char *option, const char *what)
{
    (void)fprintf(stderr, "skiff: quantize: %s: %s; `skiff quantize --help` tells more\n", option, what);
    return SKF_EXIT_USAGE;
}

/* "50%", "0.5", or "2:4": so many of so many neighbours stay. */
static bool is_pruning(const char *s, bool is_global, struct skf_prune *p)
{
    char *end;
    *p = (struct skf_prune){.is_global = is_global};
    if (!strchr(s, ':'))
        return is_cli_share(s, &p->share);
    unsigned long keep = strtoul(s, &end, 10);
    if (*s < '0' || *s > '9' || *end != ':' || end[1] < '0' || end[1] > '9')
        return false;
    unsigned long of = strtoul(end + 1, &end, 10);
    p->keep = (unsigned)keep;
    p->of = (unsigned)of;
    return *end == 0 && of >= 2 && of <= 64 && keep < of;
}

/* Rules of --tensor-type PATTERN=TYPE, then of --keep PATTERN, which therefore wins. NULL, or the option that is wrong. */
static const char *make_rules(struct asked *q, const char **what)
{
    for (size_t i = 0; i < q->n_typed; i++) {
        const char *eq = strrchr(q->typed[i], '=');
        *what = "wants PATTERN=TYPE";
        if (!eq || eq == q->typed[i])
            return "--tensor-type";
        q->patterns[i] = skf_strdup(q->typed[i]);
        *what = q->patterns[i] ? "its type is not known or cannot be written" : "out of memory";
        const struct skf_quantize_kind *kind = skf_quantize_kind(eq + 1);
        if (!q->patterns[i] || !kind)
            return "--tensor-type";
        q->patterns[i][eq - q->typed[i]] = 0;
        q->rules[q->a.n_rules++] = (struct skf_quantize_rule){q->patterns[i], kind};
    }
    for (size_t i = 0; i < q->n_kept; i++)
        q->rules[q->a.n_rules++] = (struct skf_quantize_rule){q->kept[i], NULL};
    q->a.rules = q->rules;
    return NULL;
}

static const char *take_types(struct asked *q, const char **what)
{
    const struct {
        const char *option, *given;
        const struct skf_quantize_kind **kind;
    } types[] = {{"--type", q->type, &q->a.kind},
                 {"--embedding-type", q->embedding, &q->a.embedding},
                 {"--output-type", q->output, &q->a.output}};
    *what = "not known or cannot be written; f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k to q6_k, q3_k_m, q4_k_s, q4_k_m, "
            "q5_k_m, iq4_nl, tq1_0, tq2_0, mxfp4, int8 are";
    for (size_t i = 0; i < SKF_COUNT(types); i++) {
        *types[i].kind = types[i].given ? skf_quantize_kind(types[i].given) : NULL;
        if (types[i].given && !*types[i].kind)
            return types[i].option;
    }
    q->a.has_type = q->type;
    if (q->type)
        q->a.type = q->a.kind->type;
    return NULL;
}

static const char *take_shares(struct asked *q, const char **what)
{
    struct quantize_args *a = &q->a;
    *what = "not a share such as 0.2%";
    if (q->budget && !is_cli_share(q->budget, &a->budget))
        return "--budget";
    if (q->gain && (!is_cli_share(q->gain, &a->gain) || a->gain == 0))
        return "--gain";
    *what = "not a share such as 50%, nor such as 2:4";
    if (q->prune && !is_pruning(q->prune, q->is_global, &q->pruning))
        return "--prune";
    a->prune = q->prune ? &q->pruning : NULL;
    return NULL;
}

/* An option that goes with --base only, or without it only. */
static const char *misplaced(const struct asked *q, const char **what)
{
    const struct quantize_args *a = &q->a;
    const struct {
        const char *option;
        bool is_given, wants_base;
    } all[] = {
        {"--budget", q->budget, true}, {"--gain", q->gain, true}, {"--bytes", a->bytes, true}, {"--method", a->method, true},
        {"--text", a->text, true}, {"--prune", q->prune, false}, {"--imatrix", a->imatrix, false}, {"--observer", a->observer, false},
        {"--save-imatrix", a->save_imatrix, false},
        {"--tensor-type and --keep", a->n_rules, false}, {"--embedding-type", q->embedding, false},
        {"--output-type", q->output, false}, {"--plan", a->is_plan, false},
    };
    *what = a->base ? "does not go with --base" : "goes with --base OLD only";
    for (size_t i = 0; i < SKF_COUNT(all); i++)
        if (all[i].is_given && all[i].wants_base != (a->base != NULL))
            return all[i].option;
    return NULL;
}

/* Checks and takes over what was given. NULL, or the option that is wrong. */
static const char *take(struct asked *q, const char **what)
{
    struct quantize_args *a = &q->a;
    const char *(*const steps[])(struct asked *, const char **) = {take_types, make_rules, take_shares};
    for (size_t i = 0; i < SKF_COUNT(steps); i++) {
        const char *bad = steps[i](q, what);
        if (bad)
            return bad;
    }
    *what = "missing";
    if (!q->files[1] && !a->is_plan)
        return "OUT";
    *what = "missing; --type q4_1, for example";
    if (!q->type && !a->base)
        return "--type T";
    *what = "minmax or average, with --calibrate TEXT";
    if (a->observer && ((strcmp(a->observer, "minmax") != 0 && strcmp(a->observer, "average") != 0) || !a->calibrate))
        return "--observer";
    *what = "goes with --calibrate TEXT";
    if (a->save_imatrix && !a->calibrate)
        return "--save-imatrix";
    *what = "an importance matrix is read or made, not both";
    if (a->imatrix && a->calibrate && !a->observer)
        return "--imatrix and --calibrate";
    *what = "at most 1024";
    if (q->jobs > 1024)
        return "--jobs";
    *what = "at most 256 where a text is run through the model";
    if ((a->text || a->calibrate) && q->jobs > SKF_ENGINE_THREADS)
        return "--jobs";
    return misplaced(q, what);
}

/* Neither of the files that are written is one that is read, nor both one. */
static bool has_free_outputs(const struct quantize_args *a)
{
    const char *const sources[] = {a->in, a->base, a->imatrix, a->calibrate, a->text, a->is_plan ? NULL : a->out};
    if (a->out && a->save_imatrix && strcmp(a->out, a->save_imatrix) == 0) {
        (void)usage("--save-imatrix", "is where the model goes too");
        return false;
    }
    return (a->is_plan || is_cli_output_free("quantize", a->out, sources, SKF_COUNT(sources) - 1)) &&
           is_cli_output_free("quantize", a->save_imatrix, sources, SKF_COUNT(sources));
}

static int run(const struct quantize_args *a)
{
    struct skf_why why = {{0}};
    if (!has_free_outputs(a))
        return SKF_EXIT_USAGE;
    if (!a->is_plan)
        skf_draft_sweep_of(a->out, NULL); /* as large as a model, each */
    skf_json *report = skf_json_obj();
    enum skf_err e = SKF_ERR_NOMEM;
    if (report && !a->base)
        e = skf_cli_quantize_plain(a, report, &why);
    else if (report)
        e = a->calibrate ? skf_cli_quantize_calibrated(a, report, &why) : skf_cli_requantize(a, report, &why);
    skf_cli_progress_end();
    if (e == SKF_OK && (a->is_json || (a->base && a->calibrate)))
        return skf_cli_print_json(report);
    skf_json_free(report);
    return e == SKF_OK ? SKF_EXIT_OK : skf_cli_fail(e, &why);
}

static bool is_parsed(struct asked *q, int argc, char **argv, int *status)
{
    struct quantize_args *a = &q->a;
    const struct skf_opt opts[] = {
        {.name = "--type", .letter = 't', .value = "T", .help = "of matrices: q8_0, q4_1, q4_k_m, int8, ...", .text = &q->type},
        {.name = "--embedding-type", .value = "T", .help = "of token_embd.weight", .text = &q->embedding},
        {.name = "--output-type", .value = "T", .help = "of output.weight", .text = &q->output},
        {.name = "--tensor-type", .value = "PATTERN=T", .help = "of matrices named so (* and ?); may be repeated", .list = q->typed,
         .list_max = MAX_RULES, .list_n = &q->n_typed},
        {.name = "--keep", .value = "PATTERN", .help = "leave such tensors as they are; may be repeated", .list = q->kept,
         .list_max = MAX_RULES, .list_n = &q->n_kept},
        {.name = "--imatrix", .value = "FILE", .help = "weigh errors by an importance matrix of llama.cpp", .text = &a->imatrix},
        {.name = "--calibrate", .value = "TEXT", .help = "weigh errors by what this text asks of the model", .text = &a->calibrate},
        {.name = "--save-imatrix", .value = "FILE", .help = "with --calibrate: keep it, as llama.cpp does", .text = &a->save_imatrix},
        {.name = "--observer", .value = "O", .help = "with --calibrate: record activation scales, minmax or average", .text = &a->observer},
        {.name = "--prune", .value = "SHARE", .help = "make the smallest weights zero: 50%, or 2:4", .text = &q->prune},
        {.name = "--prune-global", .help = "one threshold for all tensors", .flag = &q->is_global},
        {.name = "--plan", .help = "only tell what each tensor would become", .flag = &a->is_plan},
        {.name = "--base", .value = "OLD", .help = "write on this version's grid, so that the delta is small", .text = &a->base},
        {.name = "--budget", .value = "SHARE", .help = "with --base: how much worse than plainly quantized at most, as 0.2%", .text = &q->budget},
        {.name = "--bytes", .value = "N", .help = "with --base: the delta's most bytes", .number = &a->bytes, .is_positive = true},
        {.name = "--gain", .value = "SHARE", .help = "with --base: how much of the change's gain must be kept, as 90%", .text = &q->gain},
        {.name = "--method", .value = "M", .help = "with --base, of float files: sample, uniform, sign, topk, lowrank", .text = &a->method},
        {.name = "--text", .value = "FILE", .help = "with --base: the text on which quality is measured", .text = &a->text},
        {.name = "--seed", .value = "N", .help = "of stochastic rounding (0)", .number = &a->seed},
        {.name = "--jobs", .letter = 'j', .value = "N", .help = "threads (one a processor)", .number = &q->jobs},
        {.name = "--json", .help = "one JSON object", .flag = &a->is_json},
    };
    const struct skf_usage u = {.verb = "quantize",
                                .args = "IN OUT --type T",
                                .about = "Writes a model's weights in fewer bits.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts),
                                .positional = q->files,
                                .min_args = 1,
                                .max_args = 2};
    return is_cli_parsed(&u, argc, argv, status);
}

int skf_verb_quantize(int argc, char **argv)
{
    struct asked *q = skf_calloc(1, sizeof *q);
    int status = SKF_EXIT_OK;
    if (!q)
        return skf_cli_fail(SKF_ERR_NOMEM, NULL);
    q->a.budget = -1;
    if (is_parsed(q, argc, argv, &status)) {
        const char *what, *bad = take(q, &what);
        q->a.in = q->files[0];
        q->a.out = q->files[1];
        q->a.jobs = (unsigned)q->jobs;
        q->a.progress = skf_cli_progress("quantizing");
        status = bad ? usage(bad, what) : run(&q->a);
    }
    for (size_t i = 0; i < MAX_RULES; i++)
        skf_free(q->patterns[i]);
    skf_free(q);
    return status;
}
