/* What follows from a sequence's logits: its next token, the text that it gives, whether that was the end (engine_priv.h). */
#include "runtime/engine_priv.h"

enum skf_err skf_request_ask(struct skf_engine *e, struct skf_request *r, const struct skf_sampling *s, struct skf_why *why)
{
    const struct skf_sampler_more more = {s->presence_penalty, s->frequency_penalty, s->min_p, s->bias, s->n_bias, r->max_tokens};
    for (size_t i = 0; i < s->n_bias; i++)
        if (s->bias[i].id < 0 || (uint32_t)s->bias[i].id >= e->llama->n_vocab)
            return skf_fail(why, SKF_ERR_ARG, "logit_bias: token %d is not one of this model's", s->bias[i].id);
    if (skf_sampler_more(&r->sampler, &more) != SKF_OK)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a request");
    r->chance = s->chance;
    r->top_logprobs = s->top_logprobs;
    if (s->form == SKF_FORM_FREE)
        return SKF_OK;
    r->grammars = e->grammars;
    SKF_TRY(skf_grammars_take(e->grammars, s->form, s->grammar ? s->grammar : "", s->grammar_len, &r->kept, why));
    enum skf_err err = skf_match_new(skf_kept_grammar(r->kept), skf_grammars_vocab(e->grammars), &r->match);
    return err == SKF_OK ? err : skf_fail(why, err, err == SKF_ERR_NOMEM ? "no memory for a grammar" :
                                          "the grammar can be read in too many ways where it begins");
}

void skf_request_unask(struct skf_request *r)
{
    skf_sampler_free(&r->sampler);
    skf_match_free(r->match);
    if (r->kept)
        skf_grammars_put(r->grammars, r->kept);
}

int32_t skf_engine_pick(struct skf_engine *e, struct skf_request *r, float *logits)
{
    const uint64_t *mask = NULL;
    const uint32_t n = e->llama->n_vocab;
    const uint64_t begun = skf_now_ns();
    if (!r->prefilled_ns)
        r->prefilled_ns = begun;
    r->pick_err = r->match ? skf_match_mask(r->match, &mask) : SKF_OK;
    if (r->pick_err != SKF_OK)
        return -1;
    if (r->chance) {
        skf_chances_of(logits, n, r->top_logprobs, &r->chances);
        memcpy(e->raw, logits, n * sizeof *logits);
    }
    int32_t id = skf_sampler_pick_of(&r->sampler, logits, n, mask, e->candidates);
    if (r->chance && id >= 0)
        r->picked = e->raw[id];
    r->sample_ns += skf_now_ns() - begun;
    return id;
}

static void tell_chance(const struct skf_request *r, int32_t id)
{
    struct skf_chance picked = {id, skf_chance(&r->chances, r->picked)}, top[SKF_TOP_MAX];
    for (uint32_t i = 0; i < r->chances.n_top; i++)
        top[i] = (struct skf_chance){r->chances.top[i].id, skf_chance(&r->chances, r->chances.top[i].logit)};
    r->chance(r->ctx, &picked, top, r->chances.n_top);
}

/* There is no token that could come next. */
static void finish_unpicked(struct skf_engine *e, struct skf_slot *s)
{
    enum skf_err err = s->r->pick_err;
    if (err == SKF_OK)
        skf_engine_finish_slot(e, s, "error", SKF_ERR_FORMAT, "the model's weights give no finite numbers");
    else
        skf_engine_finish_slot(e, s, "error", err, err == SKF_ERR_NOMEM ? "no memory for the grammar" :
                               "the grammar can be read in too many ways here, or nests too deep");
}

bool is_engine_going_on(struct skf_engine *e, struct skf_slot *s, int32_t id)
{
    struct skf_request *r = s->r;
    bool is_met = false;
    uint64_t begun = skf_now_ns();
    if (r->told_ns)
        r->gap_ns = SKF_MAX(r->gap_ns, begun - r->told_ns);
    r->told_ns = begun;
    if (id >= 0 && r->match)
        r->pick_err = skf_match_take(r->match, id);
    if (id < 0 || r->pick_err != SKF_OK) {
        finish_unpicked(e, s);
        return false;
    }
    skf_sampler_said(&r->sampler, id);
    r->last = id;
    r->n_made++;
    size_t n = 0;
    const char *text = skf_tokenizer_text(e->tk, id, &n);
    bool is_stop = is_tokenizer_stop(e->tk, id) || (r->match && is_match_over(r->match)), is_last = is_stop || r->n_made >= r->max_tokens;
    if (is_tokenizer_stop(e->tk, id) || is_tokenizer_control(e->tk, id))
        n = 0;
    enum skf_err err = skf_stream_add(&r->stream, text, n, is_last, &is_met);
    if (err != SKF_OK) {
        skf_engine_finish_slot(e, s, "error", err, "no memory for the text");
        return false;
    }
    uint64_t made = skf_now_ns();
    r->sample_ns += made - begun;
    if (r->chance)
        tell_chance(r, id);
    if (r->ev.token)
        r->ev.token(r->ctx, id, r->stream.ready.len ? (const char *)r->stream.ready.data : "", r->stream.ready.len);
    r->tell_ns += skf_now_ns() - made;
    if (is_stop || is_met)
        skf_engine_finish_slot(e, s, "stop", SKF_OK, NULL);
    else if (is_last)
        skf_engine_finish_slot(e, s, "length", SKF_OK, NULL);
    return s->r != NULL;
}

void skf_engine_advance(struct skf_engine *e, struct skf_slot *s, float *logits)
{
    (void)is_engine_going_on(e, s, skf_engine_pick(e, s->r, logits));
}
