/* From logits to a token (sampler_priv.h). */
#include "runtime/sampler_priv.h"

#include <math.h>

#include "base/alloc.h"
#include "base/util.h"

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t rotate(uint64_t x, int k) { return x << k | x >> (64 - k); }

static double draw(struct skf_sampler *s) /* 0 <= draw < 1 */
{
    uint64_t *r = s->rng, result = rotate(r[1] * 5, 7) * 9, t = r[1] << 17;
    r[2] ^= r[0];
    r[3] ^= r[1];
    r[1] ^= r[2];
    r[0] ^= r[3];
    r[2] ^= t;
    r[3] = rotate(r[3], 45);
    return (double)(result >> 11) * 0x1p-53;
}

void skf_sampler_init(struct skf_sampler *s, float temperature, uint32_t top_k, float top_p, float penalty, uint64_t seed)
{
    memset(s, 0, sizeof *s);
    s->temperature = temperature > 0 ? SKF_MAX(temperature, 1e-4f) : 0.0f; /* what is no number counts as 0 */
    s->top_k = top_k;
    s->top_p = top_p > 0 && top_p < 1 ? top_p : 1.0f;
    s->penalty = penalty > 0 && penalty != 1.0f ? SKF_MIN(SKF_MAX(penalty, 0.01f), 100.0f) : 1.0f;
    for (int i = 0; i < 4; i++)
        s->rng[i] = splitmix(&seed);
}

enum skf_err skf_sampler_more(struct skf_sampler *s, const struct skf_sampler_more *more)
{
    s->presence = isfinite(more->presence) ? more->presence : 0;
    s->frequency = isfinite(more->frequency) ? more->frequency : 0;
    s->min_p = more->min_p > 0 ? SKF_MIN(more->min_p, 1.0f) : 0;
    if (more->n_bias) {
        s->bias = skf_memdup(more->bias, more->n_bias * sizeof *s->bias);
        if (!s->bias)
            return SKF_ERR_NOMEM;
        s->n_bias = more->n_bias;
    }
    if (s->presence == 0 && s->frequency == 0)
        return SKF_OK;
    s->said = skf_calloc(more->most + 1, sizeof *s->said);
    s->room = s->said ? more->most : 0;
    return s->said ? SKF_OK : SKF_ERR_NOMEM;
}

void skf_sampler_free(struct skf_sampler *s)
{
    skf_free(s->bias);
    skf_free(s->said);
    s->bias = NULL;
    s->said = NULL;
    s->n_bias = s->n_said = s->room = 0;
}

void skf_sampler_saw(struct skf_sampler *s, int32_t id) { s->recent[s->n_seen++ % SKF_RECENT] = id; }

void skf_sampler_said(struct skf_sampler *s, int32_t id)
{
    size_t i = 0;
    skf_sampler_saw(s, id);
    while (i < s->n_said && s->said[i].id != id)
        i++;
    if (i == s->n_said && s->n_said < s->room)
        s->said[s->n_said++] = (struct skf_said){id, 0};
    if (i < s->n_said)
        s->said[i].times++;
}

static void penalize(const struct skf_sampler *s, float *logits, uint32_t n)
{
    for (size_t i = 0; i < s->n_bias; i++)
        if (s->bias[i].id >= 0 && (uint32_t)s->bias[i].id < n)
            logits[s->bias[i].id] += s->bias[i].add;
    if (s->penalty == 1.0f)
        return;
    uint32_t count = (uint32_t)SKF_MIN(s->n_seen, SKF_RECENT);
    for (uint32_t i = 0; i < count; i++) {
        int32_t id = s->recent[i];
        bool is_done = id < 0 || (uint32_t)id >= n; /* each token once, however often it was seen */
        for (uint32_t j = 0; j < i && !is_done; j++)
            is_done = s->recent[j] == id;
        if (!is_done)
            logits[id] = logits[id] > 0 ? logits[id] / s->penalty : logits[id] * s->penalty;
    }
}

static void count_off(const struct skf_sampler *s, float *logits, uint32_t n)
{
    for (size_t i = 0; i < s->n_said; i++)
        if (s->said[i].id >= 0 && (uint32_t)s->said[i].id < n)
            logits[s->said[i].id] -= (float)s->said[i].times * s->frequency + s->presence;
}

/* The largest logit's id, the lowest among equals; -1 when any is not finite. The scan over all of them takes eight side by side,
 * for the compiler to make vectors of. */
static int32_t largest(const float *logits, uint32_t n)
{
    float max[8];
    uint32_t odd = 0, best = 0;
    for (uint32_t j = 0; j < 8; j++)
        max[j] = logits[0];
    for (uint32_t i = 0; i + 8 <= n; i += 8)
        for (uint32_t j = 0; j < 8; j++) {
            max[j] = logits[i + j] > max[j] ? logits[i + j] : max[j];
            odd |= !(fabsf(logits[i + j]) <= 3.0e38f);
        }
    for (uint32_t i = n & ~7u; i < n; i++) {
        max[0] = logits[i] > max[0] ? logits[i] : max[0];
        odd |= !(fabsf(logits[i]) <= 3.0e38f);
    }
    if (odd)
        return -1;
    for (uint32_t j = 1; j < 8; j++)
        max[0] = max[j] > max[0] ? max[j] : max[0];
    while (best < n - 1 && logits[best] != max[0])
        best++;
    return (int32_t)best;
}

/* ---- a heap, the largest logit on top, the lower id first among equals ---------------------------------------------------------------- */
static bool is_above(const struct skf_candidate *a, const struct skf_candidate *b)
{
    return a->logit != b->logit ? a->logit > b->logit : a->id < b->id;
}
static void sink(struct skf_candidate *h, size_t n, size_t i)
{
    struct skf_candidate c = h[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && is_above(&h[child + 1], &h[child]))
            child++;
        if (!is_above(&h[child], &c))
            break;
        h[i] = h[child];
    }
    h[i] = c;
}
/* Takes the top off; it then stands behind the heap, at h[n - 1]. */
static void pop(struct skf_candidate *h, size_t n)
{
    struct skf_candidate top = h[0];
    h[0] = h[n - 1];
    h[n - 1] = top;
    sink(h, n - 1, 0);
}

static bool is_allowed(const uint64_t *allowed, uint32_t i) { return !allowed || (allowed[i / 64] >> i % 64 & 1); }

/* As largest, of those allowed; all are finite. -1 when there are none. */
static int32_t largest_of(const float *logits, uint32_t n, const uint64_t *allowed)
{
    int32_t best = -1;
    for (uint32_t w = 0; w < (n + 63) / 64; w++)
        for (uint64_t bits = allowed[w]; bits; bits &= bits - 1) {
            uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(bits);
            if (i < n && (best < 0 || logits[i] > logits[best]))
                best = (int32_t)i;
        }
    return best;
}

/* Those that are kept stand last in the n places afterwards, the most likely very last; gives their number and their sum. */
static uint32_t cut(const struct skf_sampler *s, struct skf_candidate *c, uint32_t n, double max, double *total)
{
    uint32_t keep = s->top_k && s->top_k < n ? s->top_k : n, kept = 0;
    double sum = 0;
    if (keep == n && s->top_p >= 1.0f)
        return n;
    for (size_t i = n / 2; i-- > 0;)
        sink(c, n, i);
    if (keep < n) { /* top_p is a share of what top_k leaves */
        for (uint32_t k = 0; k < keep; k++) {
            pop(c, n - k);
            sum += exp((c[n - 1 - k].logit - max) / s->temperature);
        }
        *total = sum;
    }
    double limit = *total * (double)s->top_p;
    for (sum = 0; kept < keep && (kept == 0 || sum < limit); kept++) {
        if (keep == n)
            pop(c, n - kept);
        sum += exp((c[n - 1 - kept].logit - max) / s->temperature);
    }
    *total = sum;
    return kept;
}

int32_t skf_sampler_pick_of(struct skf_sampler *s, float *logits, uint32_t n, const uint64_t *allowed, struct skf_candidate *c)
{
    if (s->penalty != 1.0f || s->n_bias)
        penalize(s, logits, n);
    if (s->n_said)
        count_off(s, logits, n);
    int32_t best = largest(logits, n);
    if (best >= 0 && allowed)
        best = largest_of(logits, n, allowed);
    if (best < 0 || s->temperature == 0.0f)
        return best;
    const double max = logits[best];
    double total = 0;
    uint32_t many = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!is_allowed(allowed, i))
            continue;
        double p = exp((logits[i] - max) / s->temperature);
        if (p < (double)s->min_p)
            continue;
        c[many++] = (struct skf_candidate){logits[i], (int32_t)i};
        total += p;
    }
    uint32_t kept = cut(s, c, many, max, &total);
    c += many - kept;
    double at = draw(s) * total;
    for (uint32_t i = kept; i-- > 1;) { /* the most likely stand last */
        at -= exp((c[i].logit - max) / s->temperature);
        if (at < 0)
            return c[i].id;
    }
    return c[0].id;
}

int32_t skf_sampler_pick(struct skf_sampler *s, float *logits, uint32_t n, struct skf_candidate *c)
{
    return skf_sampler_pick_of(s, logits, n, NULL, c);
}
