/* skiff bench: how fast a model is read and written on this machine. */
#include "cli/engine_arg.h"

#define BATCHES 8u

struct bench {
    struct skf_engine_arg engine;
    uint64_t prompt, gen, depth; /* depth: positions before what is decoded */
    const char *batch;
    unsigned batches[BATCHES], n_batches; /* streams decoded together */
    bool is_json;
    uint64_t prefill_ns, decode_ns, batch_ns[BATCHES];
};

static double rate(uint64_t tokens, uint64_t ns) { return ns ? (double)tokens * 1e9 / (double)ns : 0.0; }

static double batch_rate(const struct bench *b, unsigned i) { return rate(b->gen * b->batches[i], b->batch_ns[i]); }

/* Sets a key, and keeps the first error. The value is taken. */
static void set(skf_json *o, const char *key, skf_json *take_v, enum skf_err *e)
{
    enum skf_err one = skf_json_set(o, key, take_v);
    *e = *e == SKF_OK ? one : *e;
}

static int report_json(const struct bench *b)
{
    enum skf_err e = SKF_OK;
    struct skf_engine_packed packed;
    skf_json *o = skf_json_obj(), *list = skf_json_arr();
    for (unsigned i = 0; i < b->n_batches; i++) {
        skf_json *row = skf_json_obj();
        set(row, "streams", skf_json_int(b->batches[i]), &e);
        set(row, "decode_tokens_per_s", skf_json_real(batch_rate(b, i)), &e);
        enum skf_err one = skf_json_push(list, row);
        e = e == SKF_OK ? one : e;
    }
    set(o, "prefill_tokens_per_s", skf_json_real(rate(b->prompt, b->prefill_ns)), &e);
    set(o, "decode_tokens_per_s", skf_json_real(rate(b->gen, b->decode_ns)), &e);
    set(o, "prefill_tokens", skf_json_int((int64_t)b->prompt), &e);
    set(o, "decode_tokens", skf_json_int((int64_t)b->gen), &e);
    set(o, "depth", skf_json_int((int64_t)b->depth), &e);
    set(o, "threads", skf_json_int(skf_engine_threads(b->engine.e)), &e);
    set(o, "isa", skf_json_str(skf_engine_isa(b->engine.e)), &e);
    skf_engine_packed(b->engine.e, &packed);
    set(o, "packed_matrices", skf_json_int(packed.matrices), &e);
    set(o, "packed_bytes", skf_json_int((int64_t)packed.bytes), &e);
    set(o, "packed_instead_of", skf_json_int((int64_t)packed.instead_of), &e);
    set(o, "read_bytes_per_token", skf_json_int((int64_t)packed.read), &e);
    if (b->n_batches)
        set(o, "batch", list, &e);
    else
        skf_json_free(list);
    if (e == SKF_OK)
        return skf_cli_print_json(o);
    skf_json_free(o);
    return skf_cli_fail(e, NULL);
}

static int report(const struct bench *b)
{
    unsigned threads = skf_engine_threads(b->engine.e);
    struct skf_engine_packed packed;
    char size[2][16];
    if (b->is_json)
        return report_json(b);
    if (b->prompt)
        (void)printf("prefill of %llu tokens: %.1f tokens/s\n", (unsigned long long)b->prompt, rate(b->prompt, b->prefill_ns));
    if (b->gen && b->depth)
        (void)printf("decoding of %llu behind %llu: %.1f tokens/s\n", (unsigned long long)b->gen, (unsigned long long)b->depth,
                     rate(b->gen, b->decode_ns));
    else if (b->gen)
        (void)printf("decoding of %llu: %.1f tokens/s\n", (unsigned long long)b->gen, rate(b->gen, b->decode_ns));
    for (unsigned i = 0; i < b->n_batches; i++)
        (void)printf("%u streams together: %.1f tokens/s\n", b->batches[i], batch_rate(b, i));
    skf_engine_packed(b->engine.e, &packed);
    if (packed.matrices)
        (void)printf("%u of %u matrices without their zeros: %s instead of %s\n", packed.matrices, packed.of,
                     skf_human_bytes(packed.bytes, size[0]), skf_human_bytes(packed.instead_of, size[1]));
    (void)printf("%u thread%s, %s\n", threads, threads == 1 ? "" : "s", skf_engine_isa(b->engine.e));
    return skf_cli_flush(SKF_EXIT_OK);
}

/* "1,8": false when it is no such list. */
static bool is_batch_list(struct bench *b, unsigned *most)
{
    *most = 1;
    for (const char *p = b->batch; p;) {
        char *end;
        unsigned long n = *p >= '1' && *p <= '9' ? strtoul(p, &end, 10) : 0;
        if (n < 1 || n > 64 || b->n_batches == BATCHES || (*end && *end != ','))
            return false;
        b->batches[b->n_batches++] = (unsigned)n;
        *most = SKF_MAX(*most, (unsigned)n);
        p = *end ? end + 1 : NULL;
    }
    return true;
}

static int bench(struct bench *b, unsigned slots)
{
    struct skf_why why = {{0}};
    int status = SKF_EXIT_OK;
    if (!is_engine_open("bench", &b->engine, slots, &status))
        return status;
    /* Once for the page cache and the processor's clock, then for the figures. */
    unsigned prompt = (unsigned)b->prompt, gen = (unsigned)b->gen;
    enum skf_err e = skf_engine_bench(b->engine.e, SKF_MIN(prompt, 64u), SKF_MIN(gen, 8u), 0, 1, &b->prefill_ns, &b->decode_ns, &why);
    if (e == SKF_OK)
        e = skf_engine_bench(b->engine.e, prompt, gen, (unsigned)b->depth, 1, &b->prefill_ns, &b->decode_ns, &why);
    for (unsigned i = 0; i < b->n_batches && e == SKF_OK; i++)
        e = skf_engine_bench(b->engine.e, 0, gen, (unsigned)b->depth, b->batches[i], NULL, &b->batch_ns[i], &why);
    return e == SKF_OK ? report(b) : skf_engine_arg_fail(&b->engine, e, &why);
}

int skf_verb_bench(int argc, char **argv)
{
    struct bench b = {.prompt = 512, .gen = 128};
    unsigned slots;
    int status = SKF_EXIT_OK;
    const struct skf_opt opts[] = {
        SKF_ENGINE_OPTS(b.engine),
        {.name = "--prompt", .letter = 'p', .value = "N", .help = "tokens to prefill (512; 0: none)", .number = &b.prompt},
        {.name = "--tokens", .letter = 'n', .value = "N", .help = "tokens to decode (128; 0: none)", .number = &b.gen},
        {.name = "--depth", .value = "N", .help = "decode behind so many positions (0)", .number = &b.depth},
        {.name = "--batch", .value = "1,8", .help = "also decode so many streams together", .text = &b.batch},
        {.name = "--json", .help = "one JSON object", .flag = &b.is_json},
    };
    const struct skf_usage u = {.verb = "bench", .args = "-m MODEL", .about = "Measures prefill and decoding, after a warm-up.",
                                .opts = opts, .n_opts = SKF_COUNT(opts)};
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    if (b.prompt > 1000000 || b.gen > 1000000 || b.depth > 1000000)
        return skf_cli_usage("bench", "-p, -n and --depth are at most 1000000");
    if (!is_batch_list(&b, &slots))
        return skf_cli_usage("bench", "--batch takes up to 8 numbers from 1 to 64, comma between");
    b.engine.context = SKF_MAX(b.prompt, b.gen + b.depth + 1);
    b.engine.context = SKF_MAX(b.engine.context, 64u);
    status = bench(&b, slots);
    skf_engine_arg_close(&b.engine);
    return status;
}
