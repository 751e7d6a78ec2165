/* Portions of prompts, load, gathering: see pace_priv.h. */
#include "runtime/pace_priv.h"

#define REMEASURE 64u
#define EIGHTH_NS 125000000u

/* Of so many sequences, or of the nearest count that was seen: fewer first, so that the guess is rather too small. */
static uint64_t base_of(const struct skf_pace *p, uint32_t decoding)
{
    decoding = SKF_MIN(decoding, SKF_SLOTS_MAX);
    for (uint32_t n = decoding; n > 0; n--)
        if (p->base_ns[n])
            return p->base_ns[n];
    for (uint32_t n = decoding + 1; n <= SKF_SLOTS_MAX; n++)
        if (p->base_ns[n])
            return p->base_ns[n];
    return 0;
}

uint32_t skf_pace_portion(const struct skf_pace *p, uint32_t decoding, uint32_t most, uint32_t percent)
{
    if (decoding == 0)
        return most;
    uint64_t base = base_of(p, decoding);
    if (!base || p->mixed >= REMEASURE)
        return 0;
    if (!p->token_ns)
        return 1;
    uint64_t n = percent > 100 ? base * (percent - 100) / 100 / p->token_ns : 0;
    return (uint32_t)SKF_MAX(1, SKF_MIN(n, most));
}

static uint64_t smooth(uint64_t old, uint64_t now, unsigned part) { return old ? old - old / part + now / part : now; }

void skf_pace_saw(struct skf_pace *p, uint32_t decoding, uint32_t prompt, uint64_t ns)
{
    ns = SKF_MAX(ns, 1);
    decoding = SKF_MIN(decoding, SKF_SLOTS_MAX);
    if (prompt == 0) {
        uint64_t *base = &p->base_ns[decoding];
        *base = smooth(*base, *base ? SKF_MIN(ns, 4 * *base) : ns, 4); /* one step that the machine held up says little */
        p->mixed = 0;
        return;
    }
    uint64_t base = decoding ? base_of(p, decoding) : 0;
    uint64_t each = ns > base ? (ns - base) / prompt : 0;
    each = SKF_MAX(each, 1);
    if (decoding == 0) {
        if (!p->token_ns) /* better than nothing: what a token adds to others is less */
            p->token_ns = each;
        return;
    }
    p->mixed++;
    p->token_ns = SKF_MAX(1, smooth(p->token_ns, p->token_ns ? SKF_MIN(each, 4 * p->token_ns) : each, 4));
}

void skf_busy_add(struct skf_busy *b, uint64_t now, uint64_t ns)
{
    uint64_t at = now / EIGHTH_NS;
    for (uint64_t i = b->at + 1; i <= at && i <= b->at + SKF_COUNT(b->ns); i++)
        b->ns[i % SKF_COUNT(b->ns)] = 0;
    b->at = SKF_MAX(b->at, at);
    b->ns[b->at % SKF_COUNT(b->ns)] += ns;
}

uint32_t skf_busy_permille(const struct skf_busy *b, uint64_t now)
{
    uint64_t sum = 0, at = now / EIGHTH_NS;
    for (uint64_t i = 0; i < SKF_COUNT(b->ns); i++)
        if (b->at >= i && b->at - i + SKF_COUNT(b->ns) > at)
            sum += b->ns[(b->at - i) % SKF_COUNT(b->ns)];
    return (uint32_t)SKF_MIN(sum / 1000000, 1000);
}

uint64_t skf_gather_ns(const struct skf_gather *g)
{
    bool is_loaded = g->permille >= 800, is_short = 2 * g->longest <= g->portion;
    uint64_t window = (uint64_t)(is_loaded || is_short ? g->busy_ms : g->idle_ms) * 1000000;
    bool is_lone = g->waiting == 1 && g->gap_ns > window; /* requests come so seldom that another is not to be expected meanwhile */
    if (is_lone || g->tokens >= g->portion || g->waiting >= g->free || g->since_ns >= window)
        return 0;
    return window - g->since_ns;
}
