/*
 * Which parts of unknown bytes are numbers, and what they are worth coding against (region_priv.h).
 *
 * What is found again as it is (in the prefix, or earlier in the chunk) is left to zstd.  What lies between is looked at in windows:
 * arrays of floats have exponents of few kinds at one place of every word.  Whatever seems to be worth it is tried: by itself,
 * against the places of the prefix that its neighbourhood comes from, and with zstd; the cheapest stays.
 */
#include <math.h>
#include <string.h>

#include "delta/region_priv.h"

#define SLOTS 18         /* log2 of the prefix's table */
#define OWN_SLOTS 16     /* of the chunk's */
#define GRAIN 16         /* every so many bytes are looked for, and as many must agree */
#define LONG 1024        /* matches from here on are zstd's in any case */
#define MATCHES_MAX 32768
#define WINDOW 4096
#define STEP 1024
#define RUN 16           /* words that are judged together where an array may end */
#define SHORT 256        /* no region is worth it below */
#define TRIES_MAX 256    /* regions of a chunk that are tried */
#define SAMPLE (64u << 10)
#define NO_PLACE UINT32_MAX

struct match {
    uint32_t at, n, from; /* from: in the prefix, or behind it: in the chunk */
};
struct search {
    const struct skf_region_tools *t;
    const uint8_t *p, *prefix;
    uint32_t n, prefix_n;
    uint32_t *slots, *own;
    struct match *match;
    uint32_t n_match;
    struct skf_region *out;
    uint32_t count, tries;
};

/* ---- what is found as it is ------------------------------------------------------------------------------------------------- */
static inline uint64_t mix(const uint8_t *p)
{
    uint64_t a, b;
    memcpy(&a, p, 8);
    memcpy(&b, p + 8, 8);
    return (a * 0x9e3779b97f4a7c15ull ^ b) * 0xc2b2ae3d27d4eb4full;
}

static uint32_t agree(const uint8_t *a, const uint8_t *b, uint32_t most)
{
    uint32_t n = 0;
    while (n < most && a[n] == b[n])
        n++;
    return n;
}

/* The longest match around p[i] and its place there; 0 when GRAIN bytes do not agree. */
static uint32_t extend(const struct search *s, uint32_t i, uint32_t from, bool is_own, uint32_t low, uint32_t *back)
{
    const uint8_t *base = is_own ? s->p : s->prefix;
    uint32_t end = is_own ? i : s->prefix_n;
    if (from + GRAIN > end || memcmp(base + from, s->p + i, GRAIN) != 0)
        return 0;
    uint32_t n = GRAIN + agree(base + from + GRAIN, s->p + i + GRAIN, SKF_MIN(end - from, s->n - i) - GRAIN);
    *back = 0;
    while (*back < i - low && *back < from && base[from - *back - 1] == s->p[i - *back - 1])
        ++*back;
    return n;
}

static enum skf_err find_matches(struct search *s)
{
    size_t slots = (size_t)1 << SLOTS, own = (size_t)1 << OWN_SLOTS;
    SKF_TRY(skf_area_need(s->t->match, (slots + own) * sizeof(uint32_t) + MATCHES_MAX * sizeof *s->match));
    s->slots = (uint32_t *)(void *)s->t->match->p;
    s->own = s->slots + slots;
    s->match = (struct match *)(void *)(s->own + own);
    memset(s->slots, 0xff, (slots + own) * sizeof(uint32_t));
    for (uint32_t i = 0; i + GRAIN <= s->prefix_n; i += GRAIN)
        s->slots[mix(s->prefix + i) >> (64 - SLOTS)] = i;
    uint32_t low = 0; /* behind the last match */
    for (uint32_t i = 0; i + GRAIN <= s->n && s->n_match < MATCHES_MAX;) {
        uint64_t h = mix(s->p + i);
        uint32_t a = s->slots[h >> (64 - SLOTS)], b = s->own[h >> (64 - OWN_SLOTS)], back = 0, back_b = 0, len = 0, len_b = 0;
        if (a != NO_PLACE)
            len = extend(s, i, a, false, low, &back);
        if (b != NO_PLACE)
            len_b = extend(s, i, b, true, low, &back_b);
        if (i % GRAIN == 0)
            s->own[h >> (64 - OWN_SLOTS)] = i;
        bool is_own = len_b > len;
        if (is_own) {
            len = len_b;
            back = back_b;
            a = b;
        }
        if (len < GRAIN) {
            i++;
            continue;
        }
        s->match[s->n_match++] = (struct match){i - back, len + back, (is_own ? s->prefix_n : 0) + a - back};
        for (uint32_t k = (i + GRAIN) / GRAIN * GRAIN; k + GRAIN <= i + len; k += GRAIN)
            s->own[mix(s->p + k) >> (64 - OWN_SLOTS)] = k;
        low = i += len;
    }
    return SKF_OK;
}

/* ---- what looks like numbers ------------------------------------------------------------------------------------------------ */
struct guess {
    enum skf_type type;
    uint32_t at; /* a place where a word begins */
    bool is_any;
};

/* Bits that n symbols of these counts take, mended for how few they are. */
static double entropy(const uint32_t count[256], uint32_t n)
{
    double bits = 0;
    unsigned used = 0;
    for (unsigned i = 0; i < 256; i++) {
        if (!count[i])
            continue;
        bits -= count[i] * log2((double)count[i] / n);
        used++;
    }
    return bits + (used ? (used - 1) * 0.72 : 0);
}

static inline uint8_t exponent_of(const uint8_t *p, enum skf_type t)
{
    if (t == SKF_T_F32)
        return (uint8_t)(p[3] << 1 | p[2] >> 7);
    return t == SKF_T_BF16 ? (uint8_t)(p[1] << 1 | p[0] >> 7) : p[1] >> 2 & 31;
}

static uint32_t width_of(enum skf_type t) { return t == SKF_T_F32 ? 4 : 2; }

/* What floats of the type would take, in bits: exponents at their entropy, the rest raw. (The entropy of lower bytes would hide which
 * byte the exponent is; only where the lowest says nothing at all, as in halves made wider, is the one above it counted so.) */
static double floats_cost(const uint8_t *p, uint32_t n, enum skf_type t)
{
    const uint32_t width = width_of(t), m = n / width;
    uint32_t e[256] = {0}, low[2][256] = {{0}};
    for (uint32_t i = 0; i < m; i++, p += width) {
        e[exponent_of(p, t)]++;
        low[0][p[0]]++;
        low[1][p[1]]++;
    }
    double bits = entropy(e, m);
    if (t != SKF_T_F32)
        return bits + (t == SKF_T_F16 ? 11.0 : 8.0) * m;
    double lowest = entropy(low[0], m);
    return bits + 8.0 * m + (lowest < 0.5 * m ? lowest + entropy(low[1], m) : 16.0 * m);
}

static struct guess look(const uint8_t *chunk, uint32_t at, uint32_t n)
{
    static const enum skf_type kinds[] = {SKF_T_F32, SKF_T_F16, SKF_T_BF16};
    uint32_t count[256] = {0};
    struct guess g = {.is_any = false};
    for (uint32_t i = 0; i < n; i++)
        count[chunk[at + i]]++;
    double best = entropy(count, n) * 0.98;
    for (size_t k = 0; k < SKF_COUNT(kinds); k++) {
        for (uint32_t shift = 0; shift < width_of(kinds[k]) && shift < n; shift++) {
            double c = floats_cost(chunk + at + shift, n - shift, kinds[k]) + 8.0 * shift;
            if (c < best) {
                best = c;
                g = (struct guess){kinds[k], at + shift, true};
            }
        }
    }
    return g;
}

/* ---- trying ------------------------------------------------------------------------------------------------------------------- */
/* The least zstd takes for these bytes, by themselves or with a place that they may come from. */
static enum skf_err zstd_least(const struct search *s, uint32_t at, uint32_t n, const uint32_t *place, uint32_t places,
                               int level, size_t *cost)
{
    SKF_TRY(skf_area_need(&s->t->room->rest, n));
    for (uint32_t k = 0; k < SKF_MAX(places, 1u); k++) {
        uint32_t begin = k < places && place[k] > LONG ? place[k] - LONG : 0;
        size_t prefix_n = places ? SKF_MIN(s->prefix_n - begin, n + 2 * LONG) : 0, got;
        SKF_TRY(skf_zenc_chunk(s->t->enc, s->p + at, n, prefix_n ? s->prefix + begin : NULL, prefix_n, level,
                               s->t->room->rest.p, n, &got));
        if (got && got < *cost)
            *cost = got;
    }
    return SKF_OK;
}

/* Whether zstd finds more in a sample of these bytes than how often each occurs: noise, as weights are, has no such order. */
static enum skf_err look_for_order(const struct search *s, uint32_t at, uint32_t n, bool *has_order)
{
    uint32_t count[256] = {0}, len = SKF_MIN(n, SAMPLE), from = at + (n - len) / 2;
    size_t cost = len;
    for (uint32_t i = 0; i < len; i++)
        count[s->p[from + i]]++;
    SKF_TRY(zstd_least(s, from, len, NULL, 0, 19, &cost));
    *has_order = (double)cost < 0.95 * entropy(count, len) / 8;
    return SKF_OK;
}

/* What zstd would take for these bytes where they stand, so far as that can be told from them alone: of what has order, less than its best
 * try, since the chunk around them helps it. */
static enum skf_err zstd_cost(const struct search *s, uint32_t at, uint32_t n, const uint32_t *place, uint32_t places,
                              size_t *cost, bool *has_order)
{
    *cost = n;
    SKF_TRY(look_for_order(s, at, n, has_order));
    SKF_TRY(zstd_least(s, at, n, place, places, 5, cost));
    *has_order = *has_order || *cost < n / 2; /* most of it is in the prefix */
    if (!*has_order)
        return SKF_OK;
    SKF_TRY(zstd_least(s, at, n, place, places, 19, cost));
    *cost -= *cost / 6;
    return SKF_OK;
}

static enum skf_err try_one(const struct search *s, struct skf_region g, size_t *least, struct skf_region *best)
{
    skf_buf_clear(s->t->trial);
    s->t->trial->limit = *least;
    enum skf_err e = skf_region_put(s->t, &g, s->p, s->prefix, s->prefix_n, s->t->trial);
    if (e == SKF_ERR_LIMIT)
        return SKF_OK;
    SKF_TRY(e);
    if (s->t->trial->len < *least) {
        *least = s->t->trial->len;
        *best = g;
    }
    return SKF_OK;
}

/* Keeps the region when some way beats zstd by enough to be worth leaving the frame. */
static enum skf_err consider(struct search *s, const struct skf_region *g, const uint32_t *place, uint32_t places, double worth)
{
    size_t least;
    bool has_order;
    struct skf_region best = {.n = 0};
    if (g->n < SHORT || s->tries >= TRIES_MAX || s->count + 1 >= SKF_REGIONS_MAX / 2)
        return SKF_OK;
    s->tries++;
    SKF_TRY(zstd_cost(s, g->at, g->n, place, places, &least, &has_order));
    least = (size_t)(worth * (double)least);
    least -= SKF_MIN(least, 16u);
    struct skf_region one = *g;
    if (skf_floats_fit(g->type)) {
        one.kind = SKF_REGION_FLOATS;
        SKF_TRY(try_one(s, one, &least, &best));
    }
    for (uint32_t k = 0; k < places; k++) {
        one.kind = SKF_REGION_INT;
        one.from = place[k];
        SKF_TRY(try_one(s, one, &least, &best));
        if (!has_order || g->type == SKF_T_I8)
            continue;
        struct skf_region bytes = one; /* much of it is there: perhaps what changed are bytes of it, and not numbers */
        bytes.type = SKF_T_I8;
        bytes.row_bytes = 1;
        SKF_TRY(try_one(s, bytes, &least, &best));
    }
    if (best.n)
        s->out[s->count++] = best;
    return SKF_OK;
}

/* How far behind its place in the chunk the prefix has what most of these matches agree on; false when none is in the prefix. */
static bool common_shift(const struct search *s, uint32_t first, uint32_t last, uint32_t *shift, uint32_t *weight)
{
    struct { uint32_t shift, weight; } vote[8];
    uint32_t votes = 0;
    *weight = 0;
    for (uint32_t i = first; i < last; i++) {
        uint32_t is = s->match[i].from - s->match[i].at, k = 0;
        if (s->match[i].from >= s->prefix_n)
            continue;
        while (k < votes && vote[k].shift != is)
            k++;
        if (k == SKF_COUNT(vote))
            continue;
        if (k == votes) {
            vote[votes].shift = is;
            vote[votes++].weight = 0;
        }
        vote[k].weight += s->match[i].n;
        if (vote[k].weight > *weight) {
            *weight = vote[k].weight;
            *shift = is;
        }
    }
    return *weight > 0;
}

/* Places in the prefix that the n bytes from `at` on may come from: by what most of the matches first .. last say, by the nearest one before
 * them and the nearest behind. `weight`: bytes of the matches that agree on the first place. */
static uint32_t places_of(const struct search *s, uint32_t first, uint32_t last, uint32_t at, uint32_t n, uint32_t place[3],
                          uint32_t *weight)
{
    uint32_t want[3], wants = 0, found = 0;
    if (common_shift(s, first, last, &want[0], weight))
        wants = 1;
    uint32_t before = first, behind = last;
    while (before > 0 && s->match[before - 1].from >= s->prefix_n)
        before--;
    if (before > 0)
        want[wants++] = s->match[before - 1].from - s->match[before - 1].at;
    while (behind < s->n_match && s->match[behind].from >= s->prefix_n)
        behind++;
    if (behind < s->n_match)
        want[wants++] = s->match[behind].from - s->match[behind].at;
    for (uint32_t k = 0; k < wants; k++) {
        int64_t from = (int64_t)at + (int32_t)want[k];
        bool is_new = from >= 0 && n <= s->prefix_n && from <= (int64_t)(s->prefix_n - n);
        for (uint32_t j = 0; j < found && is_new; j++)
            is_new = place[j] != (uint32_t)from;
        if (is_new)
            place[found++] = (uint32_t)from;
    }
    return found;
}

/* An array around g, which was seen in the n bytes from g->at on: as far as most exponents are of the kinds it has, within low .. high. */
static struct skf_region grow(const uint8_t *chunk, const struct guess *g, uint32_t n, uint32_t low, uint32_t high)
{
    const uint32_t width = width_of(g->type);
    uint32_t count[256] = {0}, total = n / width, begin = g->at, end = begin + total * width, good;
    for (uint32_t i = 0; i < total; i++)
        count[exponent_of(chunk + begin + i * width, g->type)]++;
    do {
        good = 0;
        if (begin < low + RUN * width)
            break;
        for (uint32_t i = 1; i <= RUN; i++)
            good += count[exponent_of(chunk + begin - i * width, g->type)] * 1024 >= total;
        begin -= good + 2 >= RUN ? RUN * width : 0;
    } while (good + 2 >= RUN);
    do {
        good = 0;
        if (end + RUN * width > high)
            break;
        for (uint32_t i = 0; i < RUN; i++)
            good += count[exponent_of(chunk + end + i * width, g->type)] * 1024 >= total;
        for (uint32_t i = 0; i < RUN && good + 2 >= RUN; i++, total++, end += width)
            count[exponent_of(chunk + end, g->type)]++;
    } while (good + 2 >= RUN);
    if (high - end < RUN * width) /* the last few, with what the unit's end leaves over */
        end += (high - end) / width * width;
    /* Words at the ends that do not belong: a header that was seen with it. */
    for (uint32_t i = 0; i < 4 * RUN && begin + (i + 1) * width < end; i++)
        if (count[exponent_of(chunk + begin + i * width, g->type)] * 1024 < total)
            return (struct skf_region){begin + (i + 1) * width, end - begin - (i + 1) * width, 0, SKF_REGION_FLOATS, g->type, width, 0};
    return (struct skf_region){begin, end - begin, 0, SKF_REGION_FLOATS, g->type, width, 0};
}

/* What lies between long matches: first .. last are the short ones in it. */
static enum skf_err unit(struct search *s, uint32_t first, uint32_t last, uint32_t at, uint32_t end)
{
    uint32_t place[3], weight = 0, had = s->count, low = at;
    if (end - at < SHORT)
        return SKF_OK;
    for (uint32_t from = at; end - from >= SHORT;) {
        uint32_t n = end - from < WINDOW ? end - from : WINDOW;
        struct guess g = look(s->p, from, n);
        if (!g.is_any) {
            from += SKF_MIN(STEP, n);
            continue;
        }
        struct skf_region r = grow(s->p, &g, n - (g.at - from), low, end);
        uint32_t places = places_of(s, first, last, r.at, r.n, place, &weight);
        SKF_TRY(consider(s, &r, place, places, 0.995));
        from = low = SKF_MAX(r.at + r.n, from + SKF_MIN(STEP, n));
    }
    uint32_t places = places_of(s, first, last, at, end - at, place, &weight);
    if (s->count > had || weight < (end - at) / 4 || !places)
        return SKF_OK;
    const struct skf_region r = {at, end - at, 0, SKF_REGION_INT, SKF_T_I8, 1, 0};
    return consider(s, &r, place, 1, 0.85);
}

/* What is found again, but only in what has left the frame, is a difference of zeros from there. */
static enum skf_err follow(struct search *s, const struct match *m)
{
    uint32_t from = m->from - s->prefix_n;
    if (m->from < s->prefix_n || m->n < LONG || from + m->n > m->at || s->count + 1 >= SKF_REGIONS_MAX / 2)
        return SKF_OK;
    for (uint32_t i = 0; i < s->count; i++)
        if (s->out[i].kind != SKF_REGION_REST && from < s->out[i].at + s->out[i].n && s->out[i].at < from + m->n) {
            s->out[s->count++] = (struct skf_region){m->at, m->n, m->from, SKF_REGION_INT, SKF_T_I8, 1, 0};
            break;
        }
    return SKF_OK;
}

/* Puts the rests between the regions. */
static void fill(const struct skf_region *numbers, uint32_t count, uint32_t n, struct skf_region *out, uint32_t *total)
{
    uint32_t at = 0, k = 0;
    for (uint32_t i = 0; i <= count; i++) {
        uint32_t begin = i < count ? numbers[i].at : n;
        if (begin > at)
            out[k++] = (struct skf_region){.at = at, .n = begin - at, .kind = SKF_REGION_REST};
        if (i < count) {
            out[k++] = numbers[i];
            at = numbers[i].at + numbers[i].n;
        }
    }
    *total = k;
}

static void mark(struct skf_regions_found *f, uint32_t prefix_n, uint32_t from, uint32_t n)
{
    uint32_t first = from > SKF_USED_BLOCK ? from - SKF_USED_BLOCK : 0, last = SKF_MIN(prefix_n, from + n + SKF_USED_BLOCK);
    for (uint32_t k = first / SKF_USED_BLOCK; k * SKF_USED_BLOCK < last; k++)
        f->used[k] = 1;
}

static void sum_up(const struct search *s, struct skf_regions_found *f)
{
    for (uint32_t i = 0; i < s->n_match; i++) {
        if (s->match[i].from >= s->prefix_n)
            continue;
        f->matched += s->match[i].n;
        mark(f, s->prefix_n, s->match[i].from, s->match[i].n);
    }
    for (uint32_t i = 0; i < s->count; i++) {
        f->numbers += s->out[i].n;
        if (s->out[i].kind == SKF_REGION_INT && s->out[i].from < s->prefix_n)
            mark(f, s->prefix_n, s->out[i].from, s->out[i].n);
    }
    if (s->n_match == MATCHES_MAX) /* and there may be more */
        memset(f->used, 1, sizeof f->used);
    if (s->count)
        fill(s->out, s->count, s->n, f->g, &f->count);
}

enum skf_err skf_regions_find(const struct skf_region_tools *t, const uint8_t *p, size_t n, const uint8_t *prefix,
                              size_t prefix_n, struct skf_regions_found *f)
{
    struct skf_region found[SKF_REGIONS_MAX / 2];
    struct search s = {.t = t, .p = p, .prefix = prefix, .n = (uint32_t)n, .prefix_n = (uint32_t)prefix_n, .out = found};
    uint32_t at = 0, first = 0;
    memset(f, 0, sizeof *f);
    SKF_TRY(find_matches(&s));
    for (uint32_t i = 0; i <= s.n_match; i++) {
        if (i < s.n_match && s.match[i].n < LONG)
            continue;
        SKF_TRY(unit(&s, first, i, at, i < s.n_match ? s.match[i].at : s.n));
        if (i < s.n_match) {
            SKF_TRY(follow(&s, &s.match[i]));
            at = s.match[i].at + s.match[i].n;
            first = i + 1;
        }
    }
    sum_up(&s, f);
    return SKF_OK;
}
