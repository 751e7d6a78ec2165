/* skiff bench: how fast a model is read and written on this machine. */
#include "cli/engine_arg.h"

struct bench {
    struct skf_engine_arg engine;
    uint64_t prompt, gen;
    bool is_json;
};

static double rate(uint64_t tokens, uint64_t ns) { return ns ? (double)tokens * 1e9 / (double)ns : 0.0; }

static int report(const struct bench *b, uint64_t prefill_ns, uint64_t decode_ns)
{
    const struct skf_engine *e = b->engine.e;
    double prefill = rate(b->prompt, prefill_ns), decode = rate(b->gen, decode_ns);
    if (!b->is_json) {
        (void)printf("prefill of %llu tokens: %.1f tokens/s\ndecoding of %llu: %.1f tokens/s\n%u thread%s, %s\n",
                     (unsigned long long)b->prompt, prefill, (unsigned long long)b->gen, decode, skf_engine_threads(e),
                     skf_engine_threads(e) == 1 ? "" : "s", skf_engine_isa(e));
        return fflush(stdout) ? SKF_EXIT_FAILED : SKF_EXIT_OK;
    }
    struct {
        const char *key;
        skf_json *value;
    } fields[] = {
        {"prefill_tokens_per_s", skf_json_real(prefill)}, {"decode_tokens_per_s", skf_json_real(decode)},
        {"prefill_tokens", skf_json_int((int64_t)b->prompt)}, {"decode_tokens", skf_json_int((int64_t)b->gen)},
        {"threads", skf_json_int(skf_engine_threads(e))}, {"isa", skf_json_str(skf_engine_isa(e))},
    };
    skf_json *o = skf_json_obj();
    enum skf_err err = SKF_OK;
    for (size_t i = 0; i < SKF_COUNT(fields); i++) {
        enum skf_err one = skf_json_set(o, fields[i].key, fields[i].value);
        err = err == SKF_OK ? one : err;
    }
    if (err == SKF_OK)
        return skf_cli_print_json(o);
    skf_json_free(o);
    return skf_cli_fail(err, NULL);
}

static int bench(struct bench *b)
{
    struct skf_why why = {{0}};
    uint64_t prefill_ns = 0, decode_ns = 0;
    int status = SKF_EXIT_OK;
    if (!is_engine_open("bench", &b->engine, 1, &status))
        return status;
    /* Once for the page cache and the processor's clock, then for the figures. */
    unsigned warm_prompt = (unsigned)SKF_MIN(b->prompt, 64u), warm_gen = (unsigned)SKF_MIN(b->gen, 8u);
    enum skf_err e = skf_engine_bench(b->engine.e, warm_prompt, warm_gen, &prefill_ns, &decode_ns, &why);
    if (e == SKF_OK)
        e = skf_engine_bench(b->engine.e, (unsigned)b->prompt, (unsigned)b->gen, &prefill_ns, &decode_ns, &why);
    return e == SKF_OK ? report(b, prefill_ns, decode_ns) : skf_engine_arg_fail(&b->engine, e, &why);
}

int skf_verb_bench(int argc, char **argv)
{
    struct bench b = {.prompt = 512, .gen = 128};
    int status = SKF_EXIT_OK;
    const struct skf_opt opts[] = {
        SKF_ENGINE_OPTS(b.engine),
        {.name = "--prompt", .letter = 'p', .value = "N", .help = "tokens to prefill (512; 0: none)", .number = &b.prompt},
        {.name = "--tokens", .letter = 'n', .value = "N", .help = "tokens to decode from an empty context (128; 0: none)",
         .number = &b.gen},
        {.name = "--json", .help = "one JSON object", .flag = &b.is_json},
    };
    const struct skf_usage u = {.verb = "bench", .args = "-m MODEL", .about = "Measures prefill and decoding, after a warm-up.",
                                .opts = opts, .n_opts = SKF_COUNT(opts)};
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    if (b.prompt > 1000000 || b.gen > 1000000)
        return skf_cli_usage("bench", "-p and -n are at most 1000000");
    b.engine.context = SKF_MAX(b.prompt, b.gen + 1);
    b.engine.context = SKF_MAX(b.engine.context, 64u);
    status = bench(&b);
    skf_engine_arg_close(&b.engine);
    return status;
}
