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

void skf_prune_count(const struct skf_prune_search *s, const float *x, uint64_t n, uint64_t bins[SKF_PRUNE_BINS])
{
    unsigned shift = s->pass == 0 ? 2 * LOW : s->pass == 1 ? LOW : 0;
    uint32_t mask = s->pass == 0 ? SKF_PRUNE_BINS - 1 : (1u << LOW) - 1;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t v = size_bits(x[i]) >> shift;
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

uint64_t skf_prune_small(float *x, uint64_t n, float threshold)
{
    uint64_t zeros = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (size_bits(x[i]) <= size_bits(threshold)) {
            x[i] = 0.0f;
            zeros++;
        }
    }
    return zeros;
}

uint64_t skf_prune_groups(float *x, uint64_t n, const struct skf_prune *p)
{
    uint64_t zeros = 0;
    for (uint64_t at = 0; at < n; at += p->of) {
        uint64_t end = n - at < p->of ? n : at + p->of;
        uint32_t floor = 0; /* what is larger stays whatever its place */
        unsigned ties = p->keep; /* and so many of those of just that size */
        for (uint64_t i = at; i < end; i++) {
            unsigned larger = 0, same = 0;
            for (uint64_t k = at; k < end; k++) {
                larger += size_bits(x[k]) > size_bits(x[i]);
                same += size_bits(x[k]) == size_bits(x[i]);
            }
            if (larger < p->keep && larger + same >= p->keep) {
                floor = size_bits(x[i]);
                ties = p->keep - larger;
            }
        }
        for (uint64_t i = at; i < end; i++) {
            uint32_t size = size_bits(x[i]);
            bool is_kept = size > floor || (size == floor && ties > 0);
            if (size == floor && ties > 0)
                ties--;
            x[i] = is_kept ? x[i] : 0.0f;
            zeros += x[i] == 0;
        }
    }
    return zeros;
}
