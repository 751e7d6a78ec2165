/* Which weights are small (prune.h): a radix search over the bits of their sizes, which order as the sizes do. */
#include "model/prune.h"

enum { LOW = 10 }; /* bits of the second and third pass; the first has the 11 above them */

static uint32_t size_bits(float f)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = f};
    return v.u & 0x7FFFFFFF;
}

void skf_prune_count(const struct skf_prune_search *s, const float *score, uint64_t n, uint64_t bins[SKF_PRUNE_BINS])
{
    unsigned shift = s->pass == 0 ? 2 * LOW : s->pass == 1 ? LOW : 0;
    uint32_t mask = s->pass == 0 ? SKF_PRUNE_BINS - 1 : (1u << LOW) - 1;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t v = size_bits(score[i]) >> shift;
        if (s->pass == 0 || v >> LOW == s->prefix)
            bins[v & mask]++;
    }
}

void skf_prune_step(struct skf_prune_search *s, const uint64_t bins[SKF_PRUNE_BINS])
{
    uint32_t bin = 0, last = s->pass == 0 ? SKF_PRUNE_BINS - 1 : (1u << LOW) - 1;
    while (bin < last && s->rank > bins[bin])
        s->rank -= bins[bin++];
    s->prefix = s->prefix << (s->pass == 0 ? 0 : LOW) | bin;
    s->pass++;
}

float skf_prune_found(const struct skf_prune_search *s)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = s->prefix};
    return v.f;
}

uint64_t skf_prune_small(float *x, const float *score, uint64_t n, float threshold)
{
    uint64_t zeros = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (size_bits(score[i]) <= size_bits(threshold))
            x[i] = 0.0f;
        zeros += x[i] == 0;
    }
    return zeros;
}

/* The keep-th largest of the sizes, and how many of just that size stay. */
static uint32_t floor_of(const float *score, unsigned n, unsigned keep, unsigned *ties)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned larger = 0, same = 0;
        for (unsigned k = 0; k < n; k++) {
            larger += size_bits(score[k]) > size_bits(score[i]);
            same += size_bits(score[k]) == size_bits(score[i]);
        }
        if (larger < keep && larger + same >= keep) {
            *ties = keep - larger;
            return size_bits(score[i]);
        }
    }
    *ties = n; /* all stay, or none */
    return keep ? 0 : UINT32_MAX;
}

uint64_t skf_prune_groups(float *x, const float *score, uint64_t n, const struct skf_prune *p)
{
    uint64_t zeros = 0;
    for (uint64_t at = 0; at < n; at += p->of) {
        unsigned m = n - at < p->of ? (unsigned)(n - at) : p->of, ties;
        uint32_t least = floor_of(score + at, m, p->keep, &ties);
        for (uint64_t i = at; i < at + m; i++) {
            uint32_t size = size_bits(score[i]);
            if (size < least || (size == least && ties == 0))
                x[i] = 0.0f; /* `score` may be `x`: its own size was taken already */
            else if (size == least)
                ties--;
            zeros += x[i] == 0;
        }
    }
    return zeros;
}
