/* Steps (engine.h): which tokens are computed together, and what became of them. Everything here is the stepping thread's. */
#include "runtime/engine_priv.h"

static bool is_prefilling(const struct skf_request *r) { return r && r->n_done < r->n_ids; }
static bool is_decoding(const struct skf_request *r) { return r && r->n_done >= r->n_ids; }

/* A step in the making. */
struct batch {
    uint32_t m, n_want;         /* items; of these, those whose logits are wanted */
    uint32_t decoding, prompt, ahead; /* sequences that decode; tokens of prompts; tokens that are guessed */
};

/* Adds one sequence's part of the step. One that finds no memory ends; the others do not notice. */
static void batch_slot(struct skf_engine *e, struct skf_slot *s, uint32_t count, struct batch *b)
{
    struct skf_request *r = s->r;
    struct skf_why why = {{0}};
    uint32_t begun = b->m, done = r->n_done;
    bool is_prompt = is_prefilling(r);
    for (uint32_t i = 0; i < count; i++, b->m++) {
        int32_t token = is_prompt ? r->ids[r->n_done] : r->last;
        enum skf_err err = skf_kv_place(&s->kv, r->n_done, token, &why);
        if (err != SKF_OK) {
            b->m = begun;
            r->n_done = done;
            skf_engine_finish_slot(e, s, "error", err, why.text);
            return;
        }
        e->items[b->m] = (struct skf_item){token, r->n_done, &s->kv, r->lora};
        r->n_done++;
    }
    *(is_prompt ? &b->prompt : &b->decoding) += count;
    r->left_out = 0;
    if (is_decoding(r) && !r->is_warm) {
        e->want[b->n_want] = b->m - 1;
        e->wanted_by[b->n_want++] = s;
    }
}

static bool is_behind(const struct skf_request *r) { return r->priority == SKF_BATCH && r->left_out < SKF_PASSED_MAX; }

/* Of the prompts that have tokens left beside those that `count` gives them: the one that came first, or that with the fewest; batch ones only when there is no other.
 * n_slots: none. */
static uint32_t pick_prompt(const struct skf_engine *e, const uint32_t *count, bool is_by_age)
{
    uint32_t best = e->n_slots, best_left = 0;
    for (uint32_t i = 0; i < e->n_slots; i++) {
        const struct skf_request *r = e->slots[i].r, *o = best < e->n_slots ? e->slots[best].r : NULL;
        uint32_t left = is_prefilling(r) ? r->n_ids - r->n_done - count[i] : 0;
        if (left == 0)
            continue;
        bool is_less = o && (is_by_age ? r->handle < o->handle : left < best_left);
        if (!o || is_behind(r) < is_behind(o) || (is_behind(r) == is_behind(o) && is_less)) {
            best = i;
            best_left = left;
        }
    }
    return best;
}

/* Half of it to the oldest prompt (of one token every other step's), the rest to those with the least left; a prompt that gets nothing counts that. */
static void batch_prompts(struct skf_engine *e, uint32_t portion, struct batch *b)
{
    uint32_t count[SKF_SLOTS_MAX] = {0}, left = portion;
    for (bool is_by_age = true; left > 0; is_by_age = false) {
        uint32_t i = pick_prompt(e, count, is_by_age), most = is_by_age ? (left + (e->n_steps & 1)) / 2 : left;
        if (i == e->n_slots)
            break;
        const struct skf_request *r = e->slots[i].r;
        uint32_t more = SKF_MIN(most, r->n_ids - r->n_done - count[i]);
        count[i] += more;
        left -= more;
    }
    for (uint32_t i = 0; portion && i < e->n_slots; i++) {
        if (is_prefilling(e->slots[i].r))
            e->slots[i].r->left_out++;
        if (count[i])
            batch_slot(e, &e->slots[i], count[i], b);
    }
}

/* One token of every decoding sequence and what it may say next, then prompts, as far as those who decode can wait for them. */
static void make_batch(struct skf_engine *e, struct batch *b)
{
    bool is_watched = false;
    b->ahead = skf_ahead_guess(e);
    for (uint32_t i = 0; i < e->n_slots; i++)
        if (is_decoding(e->slots[i].r)) {
            is_watched = is_watched || e->slots[i].r->priority == SKF_INTERACTIVE;
            batch_slot(e, &e->slots[i], 1, b);
            if (e->slots[i].r)
                skf_ahead_batch(e, &e->slots[i], &b->m, &b->n_want);
        }
    batch_prompts(e, skf_pace_portion(&e->pace, is_watched ? b->decoding : 0, e->opts.portion, e->opts.gap), b);
}

/* What the step computed can be shared. */
static void list_computed(struct skf_engine *e)
{
    for (uint32_t i = 0; i < e->n_slots; i++)
        if (e->slots[i].r)
            skf_kv_done(&e->slots[i].kv, e->slots[i].r->n_done);
}

/* Prompts that were wanted for what others will share of them. */
static void finish_warm(struct skf_engine *e)
{
    for (uint32_t i = 0; i < e->n_slots; i++) {
        struct skf_slot *s = &e->slots[i];
        struct skf_why why = {{0}};
        if (!s->r || !s->r->is_warm || !is_decoding(s->r))
            continue;
        enum skf_err err = s->r->is_pinned ? skf_kv_pin(&s->kv, s->r->n_ids, &why) : SKF_OK;
        skf_engine_finish_slot(e, s, err == SKF_OK ? "warm" : "error", err, err == SKF_OK ? NULL : why.text);
    }
}

/* Computes the batch and tells its tokens: not those of requests that were cancelled meanwhile. */
static enum skf_err run_batch(struct skf_engine *e, const struct batch *b, struct skf_why *why)
{
    uint64_t begun = skf_now_ns();
    SKF_TRY(skf_graph_run(e->graph, e->items, b->m, e->want, b->n_want, e->logits, why));
    if (b->prompt == 0)
        skf_ahead_saw(&e->ahead, b->m, skf_now_ns() - begun);
    list_computed(e);
    skf_queue_drop(e);
    finish_warm(e);
    for (uint32_t i = 0; i < b->n_want;)
        i += skf_ahead_advance(e, i, b->n_want);
    uint64_t now = skf_now_ns();
    skf_pace_saw(&e->pace, b->decoding, b->prompt, skf_ahead_without(&e->ahead, b->decoding, b->ahead, now - begun));
    skf_busy_add(&e->busy, now, now - begun);
    return SKF_OK;
}

enum skf_err skf_engine_step(struct skf_engine *e, bool *busy, struct skf_why *why)
{
    struct batch b = {0};
    skf_queue_drop(e);
    uint64_t hold = skf_queue_admit(e);
    make_batch(e, &b);
    if (b.m > 0)
        SKF_TRY(run_batch(e, &b, why));
    (void)pthread_mutex_lock(&e->lock);
    e->n_steps += b.m > 0;
    e->busy_permille = skf_busy_permille(&e->busy, skf_now_ns());
    skf_engine_cache(e, &e->cache_seen);
    *busy = e->waiting != NULL;
    for (uint32_t i = 0; i < e->n_slots; i++)
        *busy |= e->slots[i].r != NULL;
    (void)pthread_mutex_unlock(&e->lock);
    if (b.m == 0 && hold && *busy)
        skf_queue_rest(e, hold);
    return SKF_OK;
}
