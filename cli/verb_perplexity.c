/*
 * skiff perplexity: how well a model foretells a text.  Windows of tokens stand side by side, a last partial one is dropped; where the
 * file adds BOS each window begins with it and holds one text token fewer, otherwise a window's first token is context only.  The
 * first token of a window is never scored.
 */
#include <math.h>

#include "base/alloc.h"
#include "base/file.h"
#include "cli/engine_arg.h"

#define TEXT_MAX (64u << 20)

struct perplexity {
    struct skf_engine_arg engine;
    const char *file;
    uint64_t window, windows;
    bool is_json;
    /* running */
    uint8_t *text;
    int32_t *ids, *one; /* the text's tokens; one window's */
    size_t n_ids;
    double *logprobs, sum;
    uint64_t scored, done;
};

static int report(const struct perplexity *p)
{
    double value = exp(-p->sum / (double)p->scored);
    if (!p->is_json) {
        (void)printf("perplexity %.4f over %llu tokens in %llu windows\n", value, (unsigned long long)p->scored,
                     (unsigned long long)p->done);
        return skf_cli_flush(SKF_EXIT_OK);
    }
    skf_json *o = skf_json_obj();
    enum skf_err e = skf_json_set(o, "perplexity", skf_json_real(value));
    if (e == SKF_OK)
        e = skf_json_set(o, "tokens", skf_json_int((int64_t)p->scored));
    if (e == SKF_OK)
        e = skf_json_set(o, "windows", skf_json_int((int64_t)p->done));
    if (e == SKF_OK)
        return skf_cli_print_json(o);
    skf_json_free(o);
    return skf_cli_fail(e, NULL);
}

static enum skf_err score(struct perplexity *p, struct skf_why *why)
{
    struct skf_progress progress = skf_cli_progress("perplexity");
    int32_t *bos = NULL;
    size_t n_bos = 0;
    enum skf_err e = skf_engine_tokenize(p->engine.e, (const char *)p->text, 0, true, &bos, &n_bos, why); /* BOS, if it is added */
    if (e != SKF_OK)
        return e;
    size_t step = p->window - n_bos, count = p->n_ids / step;
    if (p->windows)
        count = SKF_MIN(count, p->windows);
    if (count == 0)
        e = skf_fail(why, SKF_ERR_ARG, "%s has %zu tokens, a window takes %zu", p->file, p->n_ids, step);
    for (; e == SKF_OK && p->done < count; p->done++) {
        if (n_bos)
            p->one[0] = bos[0];
        memcpy(p->one + n_bos, p->ids + p->done * step, step * sizeof *p->ids);
        e = skf_engine_logprobs(p->engine.e, p->one, p->window, p->logprobs, why);
        for (size_t i = 0; e == SKF_OK && i + 1 < p->window; i++, p->scored++)
            p->sum += p->logprobs[i];
        if (e == SKF_OK && is_cancelled(&progress))
            e = skf_fail(why, SKF_ERR_CANCELLED, "stopped after %llu windows", (unsigned long long)p->done);
        skf_progress_tell(&progress, p->done + 1, count);
    }
    skf_free(bos);
    return e;
}

static int perplexity(struct perplexity *p)
{
    struct skf_why why = {{0}};
    size_t n = 0;
    int status = SKF_EXIT_OK;
    enum skf_err e = skf_file_read(p->file, TEXT_MAX, &p->text, &n, &why);
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    if (!is_engine_open("perplexity", &p->engine, 1, &status))
        return status;
    if (p->window > skf_engine_context(p->engine.e))
        return skf_engine_arg_fail(&p->engine, skf_fail(&why, SKF_ERR_LIMIT, "a window of %llu is over the model's context of %u",
                                                        (unsigned long long)p->window, skf_engine_context(p->engine.e)), &why);
    p->one = skf_calloc(p->window, sizeof *p->one);
    p->logprobs = skf_calloc(p->window, sizeof *p->logprobs);
    e = p->one && p->logprobs ? SKF_OK : skf_fail(&why, SKF_ERR_NOMEM, "no memory for a window");
    if (e == SKF_OK)
        e = skf_engine_tokenize(p->engine.e, (const char *)p->text, n, false, &p->ids, &p->n_ids, &why);
    if (e == SKF_OK)
        e = score(p, &why);
    skf_cli_progress_end();
    return e == SKF_OK ? report(p) : skf_engine_arg_fail(&p->engine, e, &why);
}

int skf_verb_perplexity(int argc, char **argv)
{
    struct perplexity p = {.window = 512};
    int status = SKF_EXIT_OK;
    const struct skf_opt opts[] = {
        SKF_ENGINE_OPTS(p.engine),
        {.name = "--file", .letter = 'f', .value = "TEXT", .help = "the text", .text = &p.file},
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
    skf_free(p.text);
    skf_free(p.ids);
    skf_free(p.one);
    skf_free(p.logprobs);
    return status;
}
