/* Several tokens of a sequence in one step: what is guessed joins the batch, what comes true is said (speculate_priv.h). */
#include "runtime/engine_priv.h"

/* How many of the tokens that the client says will come can be guesses: those before the first that is none, and not more than the context holds. */
static uint32_t told_of(const struct skf_engine *e, const struct skf_sampling *s)
{
    uint32_t n = 0;
    while (n < s->n_told && n < e->context && s->told[n] >= 0 && (uint32_t)s->told[n] < e->llama->n_vocab)
        n++;
    return n;
}

enum skf_err skf_ahead_init(const struct skf_engine *e, struct skf_request *r, const struct skf_sampling *s, struct skf_why *why)
{
    return e->max_ahead ? skf_guess_init(&r->guess, r->ids, r->n_ids, s->told, told_of(e, s), why) : SKF_OK;
}

static bool is_decoding(const struct skf_request *r) { return r && r->n_done >= r->n_ids; }

static uint32_t ask_small(struct skf_engine *e, uint32_t sequences, uint32_t left)
{
    struct skf_small_ask asks[SKF_SLOTS_MAX];
    uint32_t n = 0, asked = 0, got = 0;
    const double cost = skf_ahead_cost(&e->ahead, sequences) + skf_ahead_share(&e->ahead, sequences, skf_small_ns(e->small));
    for (uint32_t i = 0; i < e->n_slots; i++) {
        struct skf_request *r = e->slots[i].r;
        if (!is_decoding(r) || r->guess.n_ahead > 0)
            continue;
        uint32_t most = SKF_MIN(SKF_MIN(e->max_ahead, left - asked), r->max_tokens - r->n_made - 1);
        uint32_t wish = skf_guess_wish(&r->guess, most, cost);
        if (wish == 0)
            continue;
        asks[n++] = (struct skf_small_ask){i, r->handle, &r->guess, &r->sampler, wish};
        asked += wish;
    }
    if (n > 0)
        skf_small_guess(e->small, asks, n);
    for (uint32_t i = 0; i < n; i++)
        got += asks[i].guess->n_ahead;
    return got;
}

uint32_t skf_ahead_guess(struct skf_engine *e)
{
    uint32_t sequences = 0, n = 0;
    for (uint32_t i = 0; i < e->n_slots; i++)
        sequences += is_decoding(e->slots[i].r);
    if (!e->max_ahead || sequences == 0)
        return 0;
    for (uint32_t i = 0; i < e->n_slots; i++) {
        struct skf_request *r = e->slots[i].r;
        if (is_decoding(r))
            n += skf_guess_make(&r->guess, SKF_MIN(SKF_MIN(e->max_ahead, SKF_DRAFTS - n), r->max_tokens - r->n_made - 1), skf_ahead_cost(&e->ahead, sequences));
    }
    return e->small && n < SKF_DRAFTS ? n + ask_small(e, sequences, SKF_DRAFTS - n) : n;
}

/* Where there is no memory for their keys and values there are none. */
void skf_ahead_batch(struct skf_engine *e, struct skf_slot *s, uint32_t *m, uint32_t *n_want)
{
    struct skf_request *r = s->r;
    uint32_t n = r->guess.n_ahead, i = 0;
    for (; i < n && skf_kv_place(&s->kv, r->n_done + i, r->guess.next[i], NULL) == SKF_OK; i++) {
        e->items[*m] = (struct skf_item){r->guess.next[i], r->n_done + i, &s->kv, r->lora};
        e->want[*n_want] = (*m)++;
        e->wanted_by[(*n_want)++] = s;
    }
    r->guess.drafted -= n - i;
    r->guess.n_ahead = i;
}

uint32_t skf_ahead_advance(struct skf_engine *e, uint32_t first, uint32_t n_want)
{
    struct skf_slot *s = e->wanted_by[first];
    uint32_t n = 1, i = 0;
    while (first + n < n_want && e->wanted_by[first + n] == s)
        n++;
    while (s->r && i < n) {
        int32_t id = skf_engine_pick(e, s->r, e->logits + (size_t)(first + i++) * e->llama->n_vocab);
        if (!is_engine_going_on(e, s, id) || !is_guess_right(&s->r->guess, id))
            break;
        s->r->n_done++; /* what was just said is computed already */
    }
    return n;
}
