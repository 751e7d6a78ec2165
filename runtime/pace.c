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

/* The largest size up to `last` that is known to add no more than `room`; 0 when none is. */
static uint32_t fitting(const struct skf_pace *p, uint32_t last, uint64_t room)
{
    uint32_t i = last;
    while (i > 0 && !(p->more_ns[i] && p->more_ns[i] <= room))
        i--;
    return i;
}

uint32_t skf_pace_portion(const struct skf_pace *p, uint32_t decoding, uint32_t most, uint32_t percent)
{
    uint32_t last = 0;
    if (decoding == 0)
        return most;
    uint64_t base = base_of(p, decoding), room = base * (SKF_MAX(percent, 100) - 100) / 100;
    if (!base || p->mixed >= REMEASURE)
        return 0;
    while (last + 1 < SKF_PACE_SIZES && 2u << last <= most)
        last++;
    if (percent <= 100 || !p->more_ns[0])
        return 1;
    uint64_t least = p->more_ns[0]; /* what any step with a prompt takes */
    for (uint32_t i = 1; i <= last; i++)
        least = p->more_ns[i] ? SKF_MIN(least, p->more_ns[i]) : least;
    uint32_t i = fitting(p, last, SKF_MAX(room, least + least / 2));
    uint32_t due = 2 * p->more_ns[i] <= room + room / 3 ? 32 : 128; /* twice as many add twice as much at most */
    if (i < last && (p->more_ns[i + 1] == 0 ? due == 32 || p->steps % 128 == 127 : p->steps - p->seen[i + 1] >= due))
        i++;
    return 1u << i;
}

static uint64_t smooth(uint64_t old, uint64_t now, unsigned part) { return old ? old - old / part + SKF_MIN(now, 4 * old) / part : now; }

void skf_pace_saw(struct skf_pace *p, uint32_t decoding, uint32_t prompt, uint64_t ns)
{
    uint32_t i = 0;
    ns = SKF_MAX(ns, 1);
    decoding = SKF_MIN(decoding, SKF_SLOTS_MAX);
    if (decoding == 0)
        return;
    if (prompt == 0) {
        p->base_ns[decoding] = SKF_MAX(1, smooth(p->base_ns[decoding], ns, 4)); /* one step that the machine held up says little */
        p->mixed = 0;
        return;
    }
    p->steps++;
    p->mixed++;
    while (i + 1 < SKF_PACE_SIZES && 2u << i <= prompt)
        i++;
    if (1u << i != prompt) /* the end of a prompt */
        return;
    uint64_t base = base_of(p, decoding), was = p->more_ns[i];
    p->more_ns[i] = SKF_MAX(1, smooth(was, ns > base ? ns - base : 1, 2));
    p->seen[i] = p->steps;
    for (uint32_t k = i + 1; was && k < SKF_PACE_SIZES; k++) /* many take as long as few at least; what was known of a far quicker machine is forgotten */
        p->more_ns[k] = p->more_ns[i] > 2 * was || !p->more_ns[k] ? 0 : SKF_MAX(p->more_ns[k], p->more_ns[i]);
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
