/* What follows from a sequence's logits: its next token, the text that it gives, whether that was the end (engine_priv.h). */
#include "runtime/engine_priv.h"

int32_t skf_engine_pick(struct skf_engine *e, struct skf_request *r, float *logits)
{
    uint64_t begun = skf_now_ns();
    if (!r->prefilled_ns)
        r->prefilled_ns = begun;
    int32_t id = skf_sampler_pick(&r->sampler, logits, e->llama->n_vocab, e->candidates);
    r->sample_ns += skf_now_ns() - begun;
    return id;
}

bool is_engine_going_on(struct skf_engine *e, struct skf_slot *s, int32_t id)
{
    struct skf_request *r = s->r;
    bool is_met = false;
    uint64_t begun = skf_now_ns();
    if (r->told_ns)
        r->gap_ns = SKF_MAX(r->gap_ns, begun - r->told_ns);
    r->told_ns = begun;
    if (id < 0) {
        skf_engine_finish_slot(e, s, "error", SKF_ERR_FORMAT, "the model's weights give no finite numbers");
        return false;
    }
    skf_sampler_said(&r->sampler, id);
    r->last = id;
    r->n_made++;
    size_t n = 0;
    const char *text = skf_tokenizer_text(e->tk, id, &n);
    bool is_stop = is_tokenizer_stop(e->tk, id), is_last = is_stop || r->n_made >= r->max_tokens;
    if (is_stop || is_tokenizer_control(e->tk, id))
        n = 0;
    enum skf_err err = skf_stream_add(&r->stream, text, n, is_last, &is_met);
    if (err != SKF_OK) {
        skf_engine_finish_slot(e, s, "error", err, "no memory for the text");
        return false;
    }
    uint64_t made = skf_now_ns();
    r->sample_ns += made - begun;
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
