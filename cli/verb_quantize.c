/* skiff quantize: a model's weights in fewer bits. */
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/quantize.h"

static int usage(const char *what)
{
    (void)fprintf(stderr, "skiff: quantize: %s; `skiff quantize --help` tells more\n", what);
    return SKF_EXIT_USAGE;
}

/* "0.2%" or "0.002"; what is neither, or no share, is refused. */
static bool is_share(const char *s, double *v)
{
    char *end;
    *v = strtod(s, &end);
    if (end == s || !(*v >= 0))
        return false;
    if (*end == '%') {
        *v /= 100;
        end++;
    }
    return *end == 0 && *v <= 1;
}

static bool is_type_name(const char *s, enum skf_type *t)
{
    for (uint32_t i = 0; i <= SKF_T_Q1_0; i++) {
        const struct skf_type_info *ti = skf_type_info(i);
        if (ti && strcasecmp(ti->name, s) == 0) {
            *t = ti->type;
            return true;
        }
    }
    return false;
}

static int run(const struct quantize_args *a)
{
    struct skf_why why = {{0}};
    skf_json *report = skf_json_obj();
    enum skf_err e = report ? SKF_ERR_UNSUPPORTED : SKF_ERR_NOMEM;
    if (report && a->base)
        e = a->calibrate ? skf_cli_quantize_calibrated(a, report, &why) : skf_cli_requantize(a, report, &why);
    skf_cli_progress_end();
    if (e == SKF_OK)
        return skf_cli_print_json(report);
    skf_json_free(report);
    return skf_cli_fail(e, &why);
}

int skf_verb_quantize(int argc, char **argv)
{
    struct quantize_args a = {.budget = -1};
    const char *files[2] = {NULL, NULL}, *type = NULL, *budget = NULL, *gain = NULL;
    uint64_t jobs = 0;
    const struct skf_opt opts[] = {
        {.name = "--type", .letter = 't', .value = "T", .help = "of matrices: q8_0, q4_1, ...", .text = &type},
        {.name = "--base", .value = "OLD", .help = "write on this version's grid, so that the delta is small", .text = &a.base},
        {.name = "--budget", .value = "SHARE", .help = "with --base: how much worse than plainly quantized (0.2%)", .text = &budget},
        {.name = "--bytes", .value = "N", .help = "with --base: the delta's most bytes", .number = &a.bytes},
        {.name = "--gain", .value = "SHARE", .help = "with --base: how much of the change's gain must be kept (90%)", .text = &gain},
        {.name = "--method", .value = "M", .help = "with --base, of float files: uniform, sign, topk, lowrank", .text = &a.method},
        {.name = "--text", .value = "FILE", .help = "the text on which quality is measured", .text = &a.text},
        {.name = "--calibrate", .value = "TEXT", .help = "weigh errors by what this text asks of the model", .text = &a.calibrate},
        {.name = "--seed", .value = "N", .help = "of stochastic rounding (0)", .number = &a.seed},
        {.name = "--jobs", .letter = 'j', .value = "N", .help = "threads (default: one a processor)", .number = &jobs},
        {.name = "--json", .help = "one JSON object", .flag = &a.is_json},
    };
    const struct skf_usage u = {.verb = "quantize",
                                .args = "IN OUT --type T",
                                .about = "Writes a model's weights in fewer bits.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts),
                                .positional = files,
                                .min_args = 2,
                                .max_args = 2};
    int status;
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    if (jobs > 1024)
        return usage("--jobs: at most 1024");
    if (!type || !is_type_name(type, &a.type))
        return usage(type ? "--type: not known" : "--type T is missing");
    if (budget && !is_share(budget, &a.budget))
        return usage("--budget: not a share such as 0.2%");
    if (gain && !is_share(gain, &a.gain))
        return usage("--gain: not a share such as 90%");
    a.in = files[0];
    a.out = files[1];
    a.jobs = (unsigned)jobs;
    a.progress = skf_cli_progress("quantizing");
    return run(&a);
}
