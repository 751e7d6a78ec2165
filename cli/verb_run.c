/* skiff run: one prompt, one answer. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "cli/engine_arg.h"

#define PROMPT_MAX (16u << 20)

struct run {
    struct skf_engine_arg engine;
    const char *prompt, *file, *system;
    uint64_t n, seed, top_k;
    double temperature, top_p, penalty;
    bool is_raw, is_json, is_tokenize;
    const char *stops[16];
    size_t n_stops;
    /* what comes of it */
    uint8_t *file_text;
    size_t prompt_len;
    struct skf_buf text;
    skf_json *ids;
    enum skf_err err;
    struct skf_why why;
    char reason[16];
    struct skf_finish finish;
    bool is_done;
};

static enum skf_err push_id(skf_json *list, int32_t id) { return skf_json_push(list, skf_json_int(id)); }

static void on_token(void *ctx, int32_t id, const char *text, size_t n)
{
    struct run *r = ctx;
    if (!r->is_json) {
        if (n > 0 && (fwrite(text, 1, n, stdout) != n || fflush(stdout) != 0) && r->err == SKF_OK)
            r->err = skf_fail(&r->why, SKF_ERR_IO, "standard output: cannot be written");
        return;
    }
    enum skf_err e = push_id(r->ids, id);
    if (e == SKF_OK)
        e = skf_buf_put(&r->text, text, n);
    if (e != SKF_OK && r->err == SKF_OK)
        r->err = skf_fail(&r->why, e, "no memory for the answer");
}

static void on_finish(void *ctx, const struct skf_finish *f)
{
    struct run *r = ctx;
    r->finish = *f;
    (void)snprintf(r->reason, sizeof r->reason, "%s", f->reason);
    if (f->err != SKF_OK && r->err == SKF_OK)
        r->err = skf_fail(&r->why, f->err, "%s: %s", r->engine.model, f->text);
    r->is_done = true;
}

/* The tokens of the prompt as it is, or of the model's chat form of it. */
static enum skf_err prompt_ids(struct run *r, int32_t **ids, size_t *n_ids)
{
    struct skf_chat msgs[2];
    size_t count = 0;
    if (r->is_raw || r->is_tokenize)
        return skf_engine_tokenize(r->engine.e, r->prompt, r->prompt_len, !r->is_tokenize, ids, n_ids, &r->why);
    if (strlen(r->prompt) != r->prompt_len)
        return skf_fail(&r->why, SKF_ERR_ARG, "the prompt holds a NUL byte; only --raw takes that");
    if (r->system)
        msgs[count++] = (struct skf_chat){"system", r->system};
    msgs[count++] = (struct skf_chat){"user", r->prompt};
    enum skf_err e = skf_engine_chat(r->engine.e, msgs, count, ids, n_ids, &r->why);
    return e == SKF_OK ? e : skf_fail_prefix(&r->why, e, "%s: chat template", r->engine.model);
}

static int print_tokens(struct run *r, const int32_t *ids, size_t n)
{
    if (!r->is_json) {
        for (size_t i = 0; i < n; i++)
            (void)printf(i ? " %d" : "%d", ids[i]);
        (void)puts("");
        return skf_cli_flush(SKF_EXIT_OK);
    }
    enum skf_err e = SKF_OK;
    for (size_t i = 0; i < n && e == SKF_OK; i++)
        e = push_id(r->ids, ids[i]);
    skf_json *o = skf_json_obj();
    if (e == SKF_OK)
        e = skf_json_set(o, "token_ids", skf_json_ref(r->ids));
    if (e == SKF_OK)
        return skf_cli_print_json(o);
    skf_json_free(o);
    return skf_cli_fail(e, NULL);
}

static int print_result(struct run *r)
{
    struct {
        const char *key;
        skf_json *value;
    } fields[] = {
        {"token_ids", skf_json_ref(r->ids)},
        {"text", skf_json_strn(r->text.data ? (const char *)r->text.data : "", r->text.len)},
        {"finish_reason", skf_json_str(r->reason)},
        {"prompt_tokens", skf_json_int(r->finish.prompt_tokens)},
        {"completion_tokens", skf_json_int(r->finish.completion_tokens)},
        {"drafted_tokens", skf_json_int(r->finish.drafted_tokens)},
        {"accepted_tokens", skf_json_int(r->finish.accepted_tokens)},
        {"prefill_seconds", skf_json_real((double)r->finish.prefill_ns / 1e9)},
        {"decode_seconds", skf_json_real((double)r->finish.decode_ns / 1e9)},
        {"isa", skf_json_str(skf_engine_isa(r->engine.e))},
        {"threads", skf_json_int(skf_engine_threads(r->engine.e))},
    };
    skf_json *o = skf_json_obj();
    enum skf_err e = SKF_OK;
    for (size_t i = 0; i < SKF_COUNT(fields); i++) { /* each is taken, also after one failed */
        enum skf_err one = skf_json_set(o, fields[i].key, fields[i].value);
        e = e == SKF_OK ? one : e;
    }
    if (e == SKF_OK)
        return skf_cli_print_json(o);
    skf_json_free(o);
    return skf_cli_fail(e, NULL);
}

static enum skf_err generate(struct run *r, const int32_t *ids, size_t n)
{
    struct skf_sampling s = {.temperature = (float)r->temperature,
                             .top_k = (unsigned)SKF_MIN(r->top_k, UINT32_MAX),
                             .top_p = (float)r->top_p,
                             .repetition_penalty = (float)r->penalty,
                             .seed = r->seed,
                             .max_tokens = (unsigned)SKF_MIN(r->n, UINT32_MAX),
                             .stop = r->stops,
                             .n_stop = r->n_stops,
                             .adapter = r->engine.adapter ? SKF_ENGINE_ADAPTER : NULL};
    const struct skf_gen_events ev = {on_token, on_finish};
    struct skf_progress p = skf_cli_progress("run");
    uint64_t handle;
    SKF_TRY(skf_engine_submit(r->engine.e, ids, n, &s, &ev, r, &handle, &r->why));
    while (!r->is_done) {
        bool is_busy;
        SKF_TRY(skf_engine_step(r->engine.e, &is_busy, &r->why));
        if (is_cancelled(&p) || r->err != SKF_OK)
            skf_engine_cancel(r->engine.e, handle);
    }
    return r->err;
}

static int run(struct run *r)
{
    int32_t *ids = NULL;
    size_t n_ids = 0;
    int status = SKF_EXIT_OK;
    if (!is_engine_open("run", &r->engine, 1, &status))
        return status;
    enum skf_err e = prompt_ids(r, &ids, &n_ids);
    if (e == SKF_OK && r->is_tokenize) {
        status = print_tokens(r, ids, n_ids);
    } else if (e == SKF_OK) {
        e = generate(r, ids, n_ids);
        if (!r->is_json)
            (void)puts("");
        if (e == SKF_OK && r->is_json)
            status = print_result(r);
    }
    skf_free(ids);
    return e == SKF_OK ? status : skf_cli_fail(e, &r->why);
}

int skf_verb_run(int argc, char **argv)
{
    struct run r = {.n = 256, .top_p = 1, .penalty = 1, .engine.speculate = 8, .text = SKF_BUF_INIT(64u << 20)};
    int status = SKF_EXIT_OK;
    const struct skf_opt opts[] = {
        SKF_ENGINE_OPTS(r.engine),
        {.name = "--prompt", .letter = 'p', .value = "TEXT", .help = "what to answer", .text = &r.prompt},
        {.name = "--file", .letter = 'f', .value = "FILE", .help = "take the prompt from a file", .text = &r.file},
        {.name = "--system", .value = "TEXT", .help = "the system's message", .text = &r.system},
        {.name = "--tokens", .letter = 'n', .value = "N", .help = "most tokens of the answer (256; 0: what the context holds)",
         .number = &r.n},
        {.name = "--temp", .value = "T", .help = "temperature; 0 (the default) always takes the likeliest", .real = &r.temperature},
        {.name = "--top-k", .value = "N", .help = "draw from the N likeliest (0: all)", .number = &r.top_k},
        {.name = "--top-p", .value = "P", .help = "draw from the likeliest that come to P (1: all)", .real = &r.top_p},
        {.name = "--repeat-penalty", .value = "F", .help = "make what was said lately less likely (1: off)", .real = &r.penalty},
        {.name = "--seed", .value = "S", .help = "of the random numbers (0)", .number = &r.seed},
        {.name = "--stop", .value = "TEXT", .help = "ends the answer; may be repeated", .list = r.stops,
         .list_max = SKF_COUNT(r.stops), .list_n = &r.n_stops},
        {.name = "--context", .value = "N", .help = "tokens of prompt and answer (the model's, at most 4096)",
         .number = &r.engine.context},
        {.name = "--speculate", .value = "N", .help = "most tokens guessed ahead in one step, at most 16 (8; 0: none); changes the time alone",
         .number = &r.engine.speculate},
        {.name = "--draft", .value = "MODEL", .help = "a small GGUF model of the same tokens, that guesses where nothing can be looked up", .text = &r.engine.draft},
        {.name = "--raw", .help = "take the prompt as it is, without the chat template", .flag = &r.is_raw},
        {.name = "--tokenize", .help = "print the prompt's token ids (no template, no BOS) and stop", .flag = &r.is_tokenize},
        {.name = "--json", .help = "one JSON object with token_ids, text, finish_reason", .flag = &r.is_json},
    };
    const struct skf_usage u = {.verb = "run", .args = "-m MODEL -p PROMPT",
                                .about = "Answers one prompt with a model; the answer is printed as it comes.",
                                .opts = opts, .n_opts = SKF_COUNT(opts)};
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    if (r.engine.speculate > 16)
        return skf_cli_usage("run", "--speculate: at most 16");
    if (!r.prompt == !r.file)
        return skf_cli_usage("run", "give one of -p PROMPT and -f FILE");
    if (r.temperature < 0 || r.top_p < 0 || r.top_p > 1 || r.penalty < 0)
        return skf_cli_usage("run", "--temp and --repeat-penalty are not negative, --top-p is 0 to 1");
    if (r.file) {
        enum skf_err e = skf_file_read(r.file, PROMPT_MAX, &r.file_text, &r.prompt_len, &r.why);
        if (e != SKF_OK)
            return skf_cli_fail(e, &r.why);
        r.prompt = (const char *)r.file_text;
    } else {
        r.prompt_len = strlen(r.prompt);
    }
    r.ids = skf_json_arr();
    status = run(&r);
    skf_engine_arg_close(&r.engine);
    skf_json_free(r.ids);
    skf_buf_free(&r.text);
    skf_free(r.file_text);
    return status;
}
