/*
 * Bringing a version's chunks into the store: what is there already stays, copies are made from the source, the rest is asked for
 * in a window of a few megabytes, decoded as it comes, and put in small durable batches, so that a break or a restart loses at most
 * one of them.  Memory is bounded by window and batch, whatever the model's size.
 */
#include "agent/agent_priv.h"

#include "base/alloc.h"
#include "base/file.h"
#include "delta/delta.h"

#define WINDOW     (4u << 20) /* payload bytes under way */
#define RANGES     256u       /* in one question; the protocol's limit */
#define ASKS       3u         /* questions under way */
#define BATCH      8u         /* chunks decoded and put together */
#define BATCH_AGE  (300 * SKF_MS)
#define TRIES      3u /* of one chunk whose payload is wrong */
#define SILENCES   5u

enum { HAVE, LACKS, WAITS, ASKED /* + number of the question */ };

struct item {
    uint64_t number;
    uint8_t *payload, *out;
    enum skf_err err;
    struct skf_why why;
};

struct fetch {
    const struct skf_install *in;
    const struct skf_plan *plan;
    struct skf_skd *skd;
    const struct skf_source *source;
    struct skf_map sides;
    uint8_t *state, *tries; /* a byte a chunk */
    uint64_t cursor;        /* no LACKS below it */
    uint64_t left;          /* chunks that are not HAVE */
    uint64_t window;        /* bytes asked for and not here */
    uint64_t asks[ASKS];    /* chunks a question still waits for */
    struct item batch[BATCH];
    size_t n_batch;
    uint64_t flushed;
    unsigned jobs;
    struct skf_delta_scratch *scratch[BATCH];
    uint8_t *memory; /* BATCH results */
};

/* ---- what is missing ------------------------------------------------------------------------------------------------------ */

static int by_digest(const void *a, const void *b, void *ctx)
{
    const struct skf_store_chunk *c = ctx;
    uint64_t i = *(const uint64_t *)a, k = *(const uint64_t *)b;
    int d = memcmp(c[i].digest, c[k].digest, SKF_DIGEST);
    return d ? d : i < k ? -1 : i > k;
}

/* Marks what the store lacks; of equal chunks the first alone. */
static enum skf_err mark(struct fetch *f, uint64_t *bytes, struct skf_why *why)
{
    uint64_t n = f->plan->n_chunks, *order = skf_calloc(n + 1, sizeof *order);
    f->state = skf_calloc(n + 1, 1);
    f->tries = skf_calloc(n + 1, 1);
    if (!order || !f->state || !f->tries) {
        skf_free(order);
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for %llu chunks", (unsigned long long)n);
    }
    for (uint64_t i = 0; i < n; i++)
        order[i] = i;
    qsort_r(order, n, sizeof *order, by_digest, f->plan->chunks);
    *bytes = 0;
    for (uint64_t i = 0; i < n; i++) {
        const struct skf_store_chunk *c = &f->plan->chunks[order[i]];
        if (i && memcmp(c->digest, f->plan->chunks[order[i - 1]].digest, SKF_DIGEST) == 0)
            continue;
        if (has_store_chunk(f->in->store, c->digest))
            continue;
        f->state[order[i]] = LACKS;
        f->left++;
        *bytes += c->length;
    }
    skf_free(order);
    atomic_store(&f->in->progress->total, n);
    atomic_store(&f->in->progress->done, n - f->left);
    return SKF_OK;
}

static uint32_t payload_of(const struct fetch *f, uint64_t i)
{
    struct skf_skd_chunk c;
    skf_skd_chunk(f->skd, i, &c);
    return c.payload_length;
}

/* ---- a batch: decode, put --------------------------------------------------------------------------------------------------- */

static enum skf_err decode(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    (void)why;
    struct fetch *f = ctx;
    struct item *it = &f->batch[i];
    const struct skf_progress pace = {.share = f->in->share};
    uint64_t begun = skf_now_ns();
    it->err = skf_skd_decode(f->skd, it->number, it->payload, f->source, f->scratch[worker], it->out, &it->why);
    skf_progress_rest(&pace, begun);
    return SKF_OK; /* each is judged by itself */
}

/* Of a decoded batch: what is right goes into the store, a wrong payload is asked for again a few times. */
static enum skf_err settle(struct fetch *f, struct skf_why *why)
{
    struct skf_store_put puts[BATCH];
    size_t n = 0;
    enum skf_err e = SKF_OK;
    for (size_t i = 0; i < f->n_batch; i++) {
        struct item *it = &f->batch[i];
        const struct skf_store_chunk *c = &f->plan->chunks[it->number];
        if (it->err == SKF_OK) {
            puts[n++] = (struct skf_store_put){c->digest, it->out, c->length};
        } else if (it->err == SKF_ERR_DIGEST && it->payload && ++f->tries[it->number] < TRIES) {
            f->state[it->number] = LACKS;
            f->cursor = SKF_MIN(f->cursor, it->number);
        } else if (e == SKF_OK) {
            e = skf_fail(why, it->err, "%s: chunk %llu: %s", f->in->assign.delta, (unsigned long long)it->number,
                         it->why.text);
        }
    }
    if (n) {
        enum skf_err put = skf_store_put(f->in->store, puts, n, e == SKF_OK ? why : NULL);
        if (e == SKF_OK)
            e = put;
        n = put == SKF_OK ? n : 0;
    }
    for (size_t i = 0; i < f->n_batch; i++) {
        if (n && f->batch[i].err == SKF_OK) {
            f->state[f->batch[i].number] = HAVE;
            f->left--;
        }
        skf_free(f->batch[i].payload);
        f->batch[i].payload = NULL;
    }
    f->n_batch = 0;
    f->flushed = skf_now_ns();
    atomic_fetch_add(&f->in->progress->done, n);
    return e;
}

static enum skf_err flush(struct fetch *f, struct skf_why *why)
{
    if (!f->n_batch)
        return SKF_OK;
    SKF_TRY(skf_par_for(f->jobs, f->n_batch, decode, f, why));
    return settle(f, why);
}

static enum skf_err add(struct fetch *f, uint64_t number, uint8_t *take_payload, struct skf_why *why)
{
    struct item *it = &f->batch[f->n_batch];
    *it = (struct item){.number = number, .payload = take_payload, .out = f->memory + f->n_batch * SKF_CHUNK_MAX};
    f->state[number] = WAITS;
    f->n_batch++;
    if (f->n_batch == BATCH || skf_now_ns() - f->flushed > BATCH_AGE)
        return flush(f, why);
    return SKF_OK;
}

/* ---- asking ------------------------------------------------------------------------------------------------------------------ */

struct question {
    struct skf_range ranges[RANGES];
    size_t n;
    uint64_t bytes, end; /* `end`: nothing between the cursor and there is left out */
};

static void gather(const struct fetch *f, uint64_t most, struct question *q)
{
    uint64_t i = f->cursor;
    q->n = 0;
    q->bytes = 0;
    for (; i < f->plan->n_chunks && q->bytes < most; i++) {
        if (f->state[i] != LACKS)
            continue;
        struct skf_range *last = q->n ? &q->ranges[q->n - 1] : NULL;
        if (last && last->first + last->count == i)
            last->count++;
        else if (q->n == RANGES)
            break;
        else
            q->ranges[q->n++] = (struct skf_range){i, 1};
        q->bytes += payload_of(f, i);
    }
    q->end = i;
}

static enum skf_err ask(struct fetch *f, unsigned slot, const struct question *q, struct skf_why *why)
{
    for (size_t k = 0; k < q->n; k++) {
        const struct skf_range *r = &q->ranges[k];
        memset(f->state + r->first, ASKED + (int)slot, r->count);
        f->asks[slot] += r->count;
    }
    f->cursor = q->end;
    f->window += q->bytes;
    return f->in->link.ask(f->in->link.ctx, f->in->assign.delta, q->ranges, q->n, why);
}

/* *due: when the rate allows for more, where it does not yet; otherwise 0. */
static enum skf_err fill_window(struct fetch *f, uint64_t *due, struct skf_why *why)
{
    struct question q;
    uint64_t most = skf_pace_question(f->in->pace, WINDOW / 2);
    *due = 0;
    for (unsigned slot = 0; slot < ASKS && f->window < most; slot++) {
        if (f->asks[slot])
            continue;
        gather(f, most, &q);
        if (!q.n)
            return SKF_OK;
        uint64_t now = skf_now_ns(), from = skf_pace_due(f->in->pace, q.bytes, now);
        if (from > now) {
            *due = from;
            return SKF_OK;
        }
        skf_pace_charge(f->in->pace, q.bytes, now);
        SKF_TRY(ask(f, slot, &q, why));
    }
    return SKF_OK;
}

static enum skf_err take(struct fetch *f, struct skf_payload *p, struct skf_why *why)
{
    uint64_t i = p->number;
    if (i >= f->plan->n_chunks || f->state[i] < ASKED) {
        skf_free(p->data);
        return skf_fail(why, SKF_ERR_FORMAT, "the centre sent chunk %llu, which was not asked for",
                        (unsigned long long)i);
    }
    if (p->n != payload_of(f, i)) {
        skf_free(p->data);
        return skf_fail(why, SKF_ERR_FORMAT, "the centre sent %zu bytes for chunk %llu instead of %u", p->n,
                        (unsigned long long)i, payload_of(f, i));
    }
    f->asks[f->state[i] - ASKED]--;
    f->window -= p->n;
    atomic_fetch_add(&f->in->progress->bytes, p->n);
    return add(f, i, p->data, why);
}

/* What was asked over a link that broke will not come. */
static void forget(struct fetch *f)
{
    for (uint64_t i = 0; i < f->plan->n_chunks; i++)
        if (f->state[i] >= ASKED)
            f->state[i] = LACKS;
    f->cursor = f->window = 0;
    memset(f->asks, 0, sizeof f->asks);
}

static enum skf_err receive(struct fetch *f, struct skf_why *why)
{
    unsigned silences = 0;
    uint64_t left = f->left, due;
    while (f->left) {
        struct skf_payload p = {0};
        struct skf_why lost = {{0}};
        enum skf_err e = fill_window(f, &due, &lost);
        if (e == SKF_OK && f->left == f->n_batch) { /* all that is missing is here */
            SKF_TRY(flush(f, why));
            continue;
        }
        if (e == SKF_OK && due && !f->window) { /* nothing is under way */
            SKF_TRY(flush(f, why));
            SKF_TRY(skf_pace_wait(due, f->in->cancel, why));
            continue;
        }
        if (e == SKF_OK)
            e = f->in->link.chunk(f->in->link.ctx, f->in->cancel, &p, &lost);
        if (e == SKF_OK) {
            SKF_TRY(take(f, &p, why));
            continue;
        }
        SKF_TRY(flush(f, why)); /* what came before the break is not lost */
        silences = f->left < left ? 0 : silences;
        left = f->left;
        if (e != SKF_ERR_NET && (e != SKF_ERR_TIMEOUT || ++silences >= SILENCES))
            return skf_fail(why, e, "%s: %s", f->in->assign.delta, lost.text);
        forget(f);
        SKF_TRY(f->in->link.wait(f->in->link.ctx, f->in->cancel, why));
    }
    return SKF_OK;
}

/* Chunks that need nothing but the source. */
static enum skf_err copy(struct fetch *f, struct skf_why *why)
{
    for (uint64_t i = 0; i < f->plan->n_chunks; i++) {
        if (f->state[i] != LACKS || payload_of(f, i))
            continue;
        if (atomic_load(f->in->cancel))
            return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
        SKF_TRY(add(f, i, NULL, why));
    }
    return flush(f, why);
}

/* The sides of the chunks that are missing. */
static enum skf_err bring_sides(struct fetch *f, struct skf_why *why)
{
    uint8_t *is_wanted = skf_calloc(skf_skd_info(f->skd)->n_sides + 1, 1);
    if (!is_wanted)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for the delta's sides");
    for (uint64_t i = 0; i < f->plan->n_chunks; i++) {
        struct skf_skd_chunk c;
        skf_skd_chunk(f->skd, i, &c);
        if (f->state[i] == LACKS && c.side != SKF_NO_SIDE)
            is_wanted[c.side] = 1;
    }
    enum skf_err e = skf_sides_fetch(f->in, f->skd, is_wanted, &f->sides, why);
    skf_free(is_wanted);
    return e;
}

static enum skf_err set_up(struct fetch *f, struct skf_why *why)
{
    f->jobs = SKF_MAX(1u, SKF_MIN(f->in->jobs, BATCH));
    f->memory = skf_aligned(64, (size_t)BATCH * SKF_CHUNK_MAX);
    bool ok = f->memory != NULL;
    for (unsigned i = 0; ok && i < f->jobs; i++)
        ok = skf_delta_scratch_new(&f->scratch[i]) == SKF_OK;
    return ok ? SKF_OK : skf_fail(why, SKF_ERR_NOMEM, "no memory to decode a delta");
}

enum skf_err skf_fetch_run(const struct skf_install *in, const struct skf_plan *plan, struct skf_skd *skd,
                           const struct skf_source *source, struct skf_why *why)
{
    struct fetch f = {.in = in, .plan = plan, .skd = skd, .source = source, .flushed = skf_now_ns()};
    uint64_t bytes = 0;
    enum skf_err e;
    SKF_GO(e, mark(&f, &bytes, why));
    if (!f.left)
        goto out;
    if (!skd) {
        e = skf_fail(why, SKF_ERR_BASE, "%s %s: not held here, and the assignment names no delta", in->assign.model,
                     in->assign.version);
        goto out;
    }
    SKF_GO(e, skf_store_reserve(in->store, bytes + (in->is_laid_out ? plan->size : 0), why)); /* a layout takes about as much again */
    SKF_GO(e, set_up(&f, why));
    SKF_GO(e, bring_sides(&f, why));
    SKF_GO(e, copy(&f, why));
    SKF_GO(e, receive(&f, why));
out:
    if (e == SKF_OK)
        skf_sides_remove(in);
    skf_map_close(&f.sides);
    for (size_t i = 0; i < f.n_batch; i++)
        skf_free(f.batch[i].payload);
    for (size_t i = 0; i < BATCH; i++)
        skf_delta_scratch_free(f.scratch[i]);
    skf_free(f.memory);
    skf_free(f.state);
    skf_free(f.tries);
    return e;
}
