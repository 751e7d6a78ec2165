/*
 * Generations of a worker: from the gateway's question to the engine's requests, and what those say back.  A question may want several
 * answers: the first is computed alone until its prompt is, the others then begin with its pages.
 */
#include "base/alloc.h"
#include "base/digest.h"
#include "base/util.h"
#include "proto/msg.h"
#include "runtime/tools_priv.h"
#include "runtime/worker_priv.h"

enum { ANSWERS_MAX = 16 };

/* One answer in the making. */
struct worker_answer {
    uint32_t choice;
    bool has_tools;
    struct skf_tool_parser tools;
    bool has_chance;
    struct skf_chance chance, top[20]; /* of the token that is told of next */
    size_t n_top;
    /* Of the first answer, until the others are asked for. */
    Skiff__V1__Generate *asked;
    int32_t *ids;
    size_t n_ids;
    uint64_t seed, deadline_ns;
};

void skf_worker_answer_free(struct worker_answer *a)
{
    if (!a)
        return;
    if (a->asked)
        skf_msg_free(&a->asked->base);
    skf_tool_parser_free(&a->tools);
    skf_free(a->ids);
    skf_free(a);
}

/* ---- what the engine says ---------------------------------------------------------------------------------------------------------- */
static void on_chance(void *ctx, const struct skf_chance *picked, const struct skf_chance *top, size_t n_top)
{
    struct worker_gen *gen = ctx;
    struct worker_answer *a = gen->answer;
    a->has_chance = !is_engine_stop(gen->conn->w->engine, picked->id);
    a->chance = *picked;
    a->n_top = SKF_MIN(n_top, SKF_COUNT(a->top));
    memcpy(a->top, top, a->n_top * sizeof *top);
}

static void fill_chance(const struct skf_engine *e, const struct skf_chance *from, Skiff__V1__Chance *to)
{
    size_t n = 0;
    skiff__v1__chance__init(to);
    to->text.data = (uint8_t *)(uintptr_t)skf_engine_token(e, from->id, &n);
    to->text.len = n;
    to->logprob = from->logprob;
}

/* The token's frame; its chances go with its first piece. */
static void say_piece(struct worker_gen *gen, int32_t id, const struct skf_tool_piece *p)
{
    struct worker_answer *a = gen->answer;
    struct worker *w = gen->conn->w;
    Skiff__V1__Token t = SKIFF__V1__TOKEN__INIT;
    Skiff__V1__Chance all[1 + SKF_COUNT(a->top)], *top[SKF_COUNT(a->top)];
    t.id = gen->id;
    t.token = id;
    t.choice = a->choice;
    t.call = p->call;
    t.call_name = (char *)(uintptr_t)(p->name ? p->name : "");
    if (a->has_chance) {
        fill_chance(w->engine, &a->chance, &all[0]);
        t.chance = &all[0];
        t.n_top = a->n_top;
        t.top = top;
        for (size_t i = 0; i < a->n_top; i++) {
            fill_chance(w->engine, &a->top[i], &all[i + 1]);
            top[i] = &all[i + 1];
        }
        a->has_chance = false;
    }
    pthread_mutex_lock(&w->lock);
    skf_worker_say_token_(gen->conn, &t, p->text, p->n);
    pthread_mutex_unlock(&w->lock);
}

struct piece_to {
    struct worker_gen *gen;
    int32_t id;
    bool is_said;
};

static void on_piece(void *ctx, const struct skf_tool_piece *p)
{
    struct piece_to *to = ctx;
    say_piece(to->gen, to->is_said ? -1 : to->id, p);
    to->is_said = true;
}

static void ask_others(struct worker_gen *first);

static void on_token(void *ctx, int32_t id, const char *text, size_t n)
{
    struct worker_gen *gen = ctx;
    struct worker_answer *a = gen->answer;
    const struct skf_tool_piece whole = {0, NULL, text, n}, none = {0, NULL, "", 0};
    if (a->asked)
        ask_others(gen);
    if (!a->has_tools) {
        say_piece(gen, id, &whole);
        return;
    }
    struct piece_to to = {gen, id, false};
    enum skf_err e = skf_tool_feed(&a->tools, text, n, false, on_piece, &to);
    if (e != SKF_OK)
        skf_log(SKF_LOG_WARN, "a call of a tool is lost: %s", skf_err_name(e));
    if (!to.is_said)
        say_piece(gen, id, &none);
}

static void on_finish(void *ctx, const struct skf_finish *f)
{
    struct worker_gen *gen = ctx;
    struct worker_answer *a = gen->answer;
    struct worker *w = gen->conn->w;
    struct piece_to to = {gen, -1, true};
    bool is_more = false;
    if (a->has_tools && skf_tool_feed(&a->tools, "", 0, true, on_piece, &to) != SKF_OK)
        skf_log(SKF_LOG_WARN, "the end of an answer with tools is lost");
    pthread_mutex_lock(&w->lock);
    for (const struct worker_gen *g = w->gens; g; g = g->next)
        is_more |= g != gen && g->conn == gen->conn && g->id == gen->id;
    skf_worker_say_finished_(gen->conn, gen->id, a->choice, is_more, f);
    skf_worker_gen_free_(w, gen);
    pthread_mutex_unlock(&w->lock);
}

static const struct skf_gen_events events = {on_token, on_finish};

/* ---- what is asked ------------------------------------------------------------------------------------------------------------------ */
/* The prompt's tokens: the conversation through the model's template, or the text as it is. */
static enum skf_err prompt_of(struct worker *w, const Skiff__V1__Generate *g, int32_t **ids, size_t *n, struct skf_why *why)
{
    if (!g->is_chat)
        return skf_engine_tokenize(w->engine, g->prompt, strlen(g->prompt), true, ids, n, why);
    bool has_tools = g->tools[0] != 0;
    struct skf_chat *msgs = skf_calloc(g->n_messages + 1, sizeof *msgs);
    struct skf_chat_more *more = skf_calloc(g->n_messages + 1, sizeof *more);
    enum skf_err e = msgs && more ? SKF_OK : skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    for (size_t i = 0; e == SKF_OK && i < g->n_messages; i++) {
        const Skiff__V1__ChatMessage *m = g->messages[i];
        msgs[i] = (struct skf_chat){m->role, m->content};
        more[i] = (struct skf_chat_more){m->tool_calls, m->tool_call_id, m->name};
        has_tools |= m->tool_calls[0] || m->tool_call_id[0];
    }
    if (e == SKF_OK && has_tools)
        e = skf_engine_chat_tools(w->engine, msgs, more, g->n_messages, g->tools, ids, n, why);
    else if (e == SKF_OK)
        e = skf_engine_chat(w->engine, msgs, g->n_messages, ids, n, why);
    skf_free(msgs);
    skf_free(more);
    return e;
}

/* The text of the grammar of calls (runtime/tools_priv.h). The gateway has seen to it that the name is a plain word. */
static enum skf_err tool_grammar(const struct worker *w, const Skiff__V1__Generate *g, struct skf_buf *b)
{
    SKF_TRY(skf_buf_printf(b, "{\"form\":\"%s\",\"required\":%s,\"parallel\":%s", skf_engine_tool_form(w->engine),
                           g->tool_choice ? "true" : "false", g->is_one_call ? "false" : "true"));
    if (g->tool_name[0])
        SKF_TRY(skf_buf_printf(b, ",\"name\":\"%s\"", g->tool_name));
    SKF_TRY(skf_buf_str(b, ",\"tools\":"));
    SKF_TRY(skf_buf_str(b, g->tools));
    return skf_buf_u8(b, '}');
}

static enum skf_err submit(struct worker_gen *gen, const Skiff__V1__Generate *g, const struct worker_answer *of, struct skf_why *why)
{
    const Skiff__V1__Sampling *in = g->sampling;
    struct skf_buf grammar = SKF_BUF_INIT(2u << 20);
    struct skf_bias *bias = skf_calloc((in ? in->n_logit_bias : 0) + 1, sizeof *bias);
    struct skf_sampling s = {.temperature = 1};
    struct worker_conn *c = gen->conn;
    const uint64_t id = gen->id; /* once the engine has it, gen and g may be gone */
    uint64_t handle = 0;
    int32_t *told = NULL;
    enum skf_err e = bias ? SKF_OK : skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    if (in)
        s = (struct skf_sampling){.temperature = in->temperature,
                                  .top_k = in->top_k,
                                  .top_p = in->top_p,
                                  .repetition_penalty = in->repetition_penalty,
                                  .max_tokens = in->max_tokens,
                                  .stop = (const char *const *)in->stop,
                                  .n_stop = in->n_stop,
                                  .presence_penalty = in->presence_penalty,
                                  .frequency_penalty = in->frequency_penalty,
                                  .min_p = in->min_p,
                                  .bias = bias,
                                  .n_bias = in->n_logit_bias,
                                  .chance = in->logprobs ? on_chance : NULL,
                                  .top_logprobs = in->top_logprobs};
    for (size_t i = 0; e == SKF_OK && i < s.n_bias; i++)
        bias[i] = (struct skf_bias){in->logit_bias[i]->token, in->logit_bias[i]->add};
    s.seed = of->seed + gen->answer->choice;
    s.form = g->tools[0] ? SKF_FORM_TOOLS : (enum skf_form)SKF_MIN(g->form, (uint32_t)SKF_FORM_OBJECT);
    s.grammar = g->grammar;
    s.grammar_len = strlen(g->grammar);
    if (e == SKF_OK && g->tools[0]) {
        e = tool_grammar(gen->conn->w, g, &grammar);
        s.grammar = (const char *)grammar.data;
        s.grammar_len = grammar.len;
    }
    s.adapter = skf_worker_adapter_of(c->w, g);
    if (e == SKF_OK && g->prediction[0]) { /* no harm is done when there is no memory for it */
        (void)!skf_engine_tokenize(c->w->engine, g->prediction, strlen(g->prediction), false, &told, &s.n_told, NULL);
        s.told = told;
    }
    const struct skf_terms terms = {.priority = g->is_batch ? SKF_BATCH : SKF_INTERACTIVE, .deadline_ns = of->deadline_ns};
    if (e == SKF_OK)
        e = skf_engine_submit_on(c->w->engine, of->ids, of->n_ids, &s, &terms, &events, gen, &handle, why);
    skf_buf_free(&grammar);
    skf_free(bias);
    skf_free(told);
    if (e == SKF_OK)
        skf_worker_gen_note(c, gen, id, handle);
    return e;
}

static void fail(struct worker_gen *gen, size_t n_ids, enum skf_err e, const char *text)
{
    struct skf_engine_load l;
    skf_engine_load(gen->conn->w->engine, &l);
    const struct skf_finish f = {
        .reason = "error", .err = e, .text = text[0] ? text : skf_err_name(e), .prompt_tokens = (unsigned)n_ids, .retry_ns = l.expected_ns};
    on_finish(gen, &f);
}

static struct worker_gen *gen_new(struct worker_conn *c, const Skiff__V1__Generate *g, uint32_t choice)
{
    struct worker_gen *gen = skf_calloc(1, sizeof *gen);
    struct worker_answer *a = skf_calloc(1, sizeof *a);
    if (!gen || !a) {
        skf_free(gen);
        skf_free(a);
        return NULL;
    }
    *gen = (struct worker_gen){.conn = c, .id = g->id, .answer = a};
    a->choice = choice;
    a->has_tools = g->tools[0] != 0;
    skf_tool_parser_init(&a->tools, strcmp(skf_engine_tool_form(c->w->engine), "llama") == 0 ? SKF_TOOL_LLAMA : SKF_TOOL_HERMES);
    return gen;
}

/* The prompt is computed: the other answers share it. From the stepping thread. */
static void ask_others(struct worker_gen *first)
{
    struct worker_answer *a = first->answer;
    struct worker_conn *c = first->conn;
    Skiff__V1__Generate *g = a->asked;
    uint32_t n = SKF_MIN(g->n, (uint32_t)ANSWERS_MAX);
    struct worker_gen *all[ANSWERS_MAX] = {NULL};
    a->asked = NULL;
    pthread_mutex_lock(&c->w->lock);
    for (uint32_t i = 1; i < n && !c->dead && !c->w->hurry; i++) { /* all at once, so that none counts as the last */
        all[i] = gen_new(c, g, i);
        if (!all[i])
            continue;
        all[i]->next = c->w->gens;
        c->w->gens = all[i];
        c->w->n_gens++;
        c->refs++;
    }
    pthread_mutex_unlock(&c->w->lock);
    for (uint32_t i = 1; i < n; i++) {
        struct skf_why why = {{0}};
        if (!all[i])
            continue;
        enum skf_err e = submit(all[i], g, a, &why);
        if (e != SKF_OK)
            fail(all[i], a->n_ids, e, why.text);
    }
    skf_msg_free(&g->base);
}

void skf_worker_refuse(struct worker_conn *c, uint64_t id, enum skf_err e, const char *text)
{
    const struct skf_finish f = {.reason = "error", .err = e, .text = text[0] ? text : skf_err_name(e)};
    pthread_mutex_lock(&c->w->lock);
    skf_worker_say_finished_(c, id, 0, false, &f);
    pthread_mutex_unlock(&c->w->lock);
}

static void say_started(struct worker_conn *c, uint64_t id, size_t n)
{
    Skiff__V1__FromWorker m = SKIFF__V1__FROM_WORKER__INIT;
    Skiff__V1__Started started = SKIFF__V1__STARTED__INIT;
    started.id = id;
    started.prompt_tokens = (uint32_t)n;
    m.kind_case = SKIFF__V1__FROM_WORKER__KIND_STARTED;
    m.started = &started;
    pthread_mutex_lock(&c->w->lock);
    skf_worker_say_(c, &m);
    pthread_mutex_unlock(&c->w->lock);
}

void skf_worker_generate(struct worker_conn *c, Skiff__V1__ToWorker *m)
{
    Skiff__V1__Generate *g = m->generate;
    struct skf_why why = {{0}};
    struct worker_gen *gen = NULL;
    struct worker_answer first = {.deadline_ns = g->timeout_ms ? skf_now_ns() + g->timeout_ms * 1000000ull : 0};
    enum skf_err e = prompt_of(c->w, g, &first.ids, &first.n_ids, &why);
    if (e == SKF_OK && !(gen = gen_new(c, g, 0)))
        e = skf_fail(&why, SKF_ERR_NOMEM, "out of memory");
    if (gen && (e = skf_worker_gen_take(c, gen, &why)) != SKF_OK) {
        skf_worker_answer_free(gen->answer);
        skf_free(gen);
    }
    if (e != SKF_OK) {
        skf_worker_refuse(c, g->id, e, why.text);
        skf_free(first.ids);
        return;
    }
    say_started(c, g->id, first.n_ids);
    first.seed = g->sampling ? g->sampling->seed : 0;
    if ((!g->sampling || !g->sampling->has_seed) && skf_random(&first.seed, sizeof first.seed) != SKF_OK)
        first.seed = skf_now_ns();
    bool is_many = g->n > 1;
    if (is_many) { /* before the engine has it: it may answer at once */
        struct worker_answer *a = gen->answer;
        a->ids = first.ids;
        a->n_ids = first.n_ids;
        a->seed = first.seed;
        a->deadline_ns = first.deadline_ns;
        a->asked = g;
        m->generate = NULL;
        m->kind_case = SKIFF__V1__TO_WORKER__KIND__NOT_SET;
    }
    e = submit(gen, g, &first, &why);
    if (e != SKF_OK)
        fail(gen, first.n_ids, e, why.text);
    if (!is_many)
        skf_free(first.ids);
}
