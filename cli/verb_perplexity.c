/* skiff perplexity: how well a model foretells a text, in windows of tokens (windows.h). */
#include "cli/engine_arg.h"
#include "cli/windows.h"

struct perplexity {
    struct skf_engine_arg engine;
    const char *file;
    uint64_t window, windows;
    bool is_json;
};

static int report(const struct perplexity *p, const struct skf_windows *w, double value)
{
    if (!p->is_json) {
        (void)printf("perplexity %.4f over %llu tokens in %zu windows\n", value, (unsigned long long)skf_windows_scored(w), w->n);
        return skf_cli_flush(SKF_EXIT_OK);
    }
    skf_json *o = skf_json_obj();
    enum skf_err e = skf_json_set(o, "perplexity", skf_json_real(value));
    if (e == SKF_OK)
        e = skf_json_set(o, "tokens", skf_json_int((int64_t)skf_windows_scored(w)));
    if (e == SKF_OK)
        e = skf_json_set(o, "windows", skf_json_int((int64_t)w->n));
    if (e == SKF_OK)
        return skf_cli_print_json(o);
    skf_json_free(o);
    return skf_cli_fail(e, NULL);
}

static int perplexity(struct perplexity *p)
{
    struct skf_why why = {{0}};
    struct skf_windows w = {0};
    double value = 0;
    int status = SKF_EXIT_OK;
    if (!is_engine_open("perplexity", &p->engine, 1, &status))
        return status;
    enum skf_err e = SKF_OK;
    if (p->window > skf_engine_context(p->engine.e))
        e = skf_fail(&why, SKF_ERR_LIMIT, "%s: a window of %llu is over the model's context of %u", p->engine.model,
                     (unsigned long long)p->window, skf_engine_context(p->engine.e));
    if (e == SKF_OK)
        e = skf_windows_make(p->engine.e, p->file, (size_t)p->window, (size_t)p->windows, &w, &why);
    if (e == SKF_OK) {
        struct skf_progress progress = skf_cli_progress("perplexity");
        e = skf_windows_measure(&w, p->engine.e, &progress, &value, &why);
        if (e != SKF_OK && e != SKF_ERR_CANCELLED)
            e = skf_fail_prefix(&why, e, "%s", p->engine.model);
    }
    skf_cli_progress_end();
    status = e == SKF_OK ? report(p, &w, value) : skf_cli_fail(e, &why);
    skf_windows_free(&w);
    return status;
}

int skf_verb_perplexity(int argc, char **argv)
{
    struct perplexity p = {.window = 512};
    int status = SKF_EXIT_OK;
    const struct skf_opt opts[] = {
        SKF_ENGINE_OPTS(p.engine),
        {.name = "--file", .letter = 'f', .value = "TEXT", .help = "the text, of at most 64 MiB", .text = &p.file},
        {.name = "--window", .value = "N", .help = "tokens of a window (512)", .number = &p.window},
        {.name = "--windows", .value = "N", .help = "stop after N windows (0: all)", .number = &p.windows},
        {.name = "--json", .help = "one JSON object with perplexity, tokens", .flag = &p.is_json},
    };
    const struct skf_usage u = {.verb = "perplexity", .args = "-m MODEL -f TEXT",
                                .about = "Says how well a model foretells a text.", .opts = opts, .n_opts = SKF_COUNT(opts)};
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    if (!p.file)
        return skf_cli_usage("perplexity", "-f TEXT is missing");
    if (p.window < 3 || p.window > 1u << 20)
        return skf_cli_usage("perplexity", "--window is 3 to 1048576");
    p.engine.context = p.window;
    status = perplexity(&p);
    skf_engine_arg_close(&p.engine);
    return status;
}
