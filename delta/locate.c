/*
 * Chunks by digest, and anchors (locate_priv.h).
 *
 * An anchor is a place where a rolling hash of the last 64 bytes has its lowest bits zero; it depends on these bytes alone, so the
 * same text has the same anchors wherever it stands.  The table keeps the lowest place a slot, which makes it the same
 * whatever order threads fill it in.
 */
#include "delta/locate_priv.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "delta/skd_priv.h"

/* ---- chunks by digest --------------------------------------------------------------------------------------------------------- */
static int by_digest(const void *a, const void *b, void *cut)
{
    uint64_t i = *(const uint64_t *)a, j = *(const uint64_t *)b;
    const struct skf_chunk *c = ((const struct skf_cut *)cut)->chunks;
    int r = memcmp(c[i].digest, c[j].digest, SKF_DIGEST);
    return r ? r : i < j ? -1 : i > j;
}

enum skf_err skf_by_digest_make(const struct skf_cut *cut, struct skf_by_digest *d)
{
    *d = (struct skf_by_digest){cut, skf_calloc(cut->n, sizeof(uint64_t))};
    if (!d->order)
        return SKF_ERR_NOMEM;
    for (uint64_t i = 0; i < cut->n; i++)
        d->order[i] = i;
    qsort_r(d->order, cut->n, sizeof *d->order, by_digest, (void *)(uintptr_t)cut);
    return SKF_OK;
}

void skf_by_digest_free(struct skf_by_digest *d)
{
    skf_free(d->order);
    *d = (struct skf_by_digest){NULL, NULL};
}

static bool is_same_chunk(const struct skf_chunk *a, const struct skf_chunk *b)
{
    return a->length == b->length && memcmp(a->digest, b->digest, SKF_DIGEST) == 0;
}

uint64_t skf_by_digest_find(const struct skf_by_digest *d, const struct skf_chunk *c, uint64_t likely)
{
    const struct skf_chunk *have = d->cut->chunks;
    if (likely < d->cut->n && is_same_chunk(&have[likely], c))
        return likely;
    uint64_t lo = 0, hi = d->cut->n;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        if (memcmp(have[d->order[mid]].digest, c->digest, SKF_DIGEST) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < d->cut->n && is_same_chunk(&have[d->order[lo]], c) ? d->order[lo] : UINT64_MAX;
}

/* ---- anchors -------------------------------------------------------------------------------------------------------------------- */
#define SLOT_BITS 19
#define PLACE_BITS 44 /* 16 TiB; the other 20 bits of a slot tell hashes apart */
#define SEGMENT (4u << 20)
#define WINDOW 64
#define MAX_HITS 8192       /* of one chunk */
#define CLUSTER_GAP (128u << 10)
#define CLUSTER_MARGIN (32u << 10)

struct skf_anchors {
    atomic_uint_fast64_t *slots; /* tag and place; all ones when empty */
    uint64_t mask;
    uint64_t gear[256];
    const struct skf_source *source;
    const struct skf_progress *progress;
};

/* splitmix64: fixed numbers that look random. */
static void fill_gear(uint64_t gear[256])
{
    uint64_t x = 0x736b696666ull;
    for (int i = 0; i < 256; i++) {
        uint64_t z = x += 0x9e3779b97f4a7c15ull;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ z >> 27) * 0x94d049bb133111ebull;
        gear[i] = z ^ z >> 31;
    }
}

/* The anchor's bits are the top ones, which depend on all 64 bytes; slot and tag are taken after one more mixing. */
static inline uint64_t slot_of(uint64_t h) { return h * 0x9e3779b97f4a7c15ull >> (64 - SLOT_BITS); }
static inline uint64_t tag_of(uint64_t h) { return h * 0xc2b2ae3d27d4eb4full >> PLACE_BITS << PLACE_BITS; }

static void add_anchor(struct skf_anchors *a, uint64_t h, uint64_t place)
{
    uint64_t v = tag_of(h) | place, was;
    atomic_uint_fast64_t *slot = &a->slots[slot_of(h)];
    was = atomic_load_explicit(slot, memory_order_relaxed);
    while ((was == UINT64_MAX || (v & ((1ull << PLACE_BITS) - 1)) < (was & ((1ull << PLACE_BITS) - 1))) &&
           !atomic_compare_exchange_weak_explicit(slot, &was, v, memory_order_relaxed, memory_order_relaxed)) {
    }
}

/* One segment, begun WINDOW bytes earlier so that its first hashes are whole. */
struct segment {
    struct skf_anchors *a;
    uint64_t i;
};

static enum skf_err scan_segment(void *ctx, struct skf_why *why)
{
    const struct segment *s = ctx;
    struct skf_anchors *a = s->a;
    uint64_t first = s->i * SEGMENT, at = first > WINDOW ? first - WINDOW : 0, h = 0;
    uint64_t end = SKF_MIN(first + SEGMENT, a->source->size);
    while (at < end) {
        const uint8_t *p;
        uint64_t n;
        SKF_TRY(a->source->span(a->source->ctx, at, &p, &n));
        n = SKF_MIN(n, end - at);
        for (uint64_t k = 0; k < n; k++) {
            h = (h << 1) + a->gear[p[k]];
            if ((h & a->mask) == 0 && at + k >= first && at + k + 1 >= WINDOW)
                add_anchor(a, h, at + k);
        }
        at += n;
    }
    return SKF_OK;
}

static enum skf_err scan_step(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct skf_anchors *a = ctx;
    uint64_t begun = skf_now_ns();
    if (is_cancelled(a->progress))
        return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
    enum skf_err e = skf_map_guard(scan_segment, &(struct segment){a, i}, why);
    skf_progress_rest(a->progress, begun);
    return e;
}

enum skf_err skf_anchors_make(const struct skf_source *s, unsigned jobs, const struct skf_progress *progress,
                              struct skf_anchors **out, struct skf_why *why)
{
    if (s->size >> PLACE_BITS)
        return skf_fail(why, SKF_ERR_LIMIT, "source of %llu bytes is too large", (unsigned long long)s->size);
    struct skf_anchors *a = skf_calloc(1, sizeof *a);
    if (!a || !(a->slots = skf_alloc(sizeof *a->slots << SLOT_BITS))) {
        skf_free(a);
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    }
    memset(a->slots, 0xff, sizeof *a->slots << SLOT_BITS);
    unsigned bits = 8; /* an anchor every 256 bytes, or as rare as the table asks for */
    while (s->size >> bits > 1ull << (SLOT_BITS - 1))
        bits++;
    a->mask = ((1ull << bits) - 1) << (64 - bits);
    a->source = s;
    a->progress = progress;
    fill_gear(a->gear);
    enum skf_err e = skf_par_for(jobs, (s->size + SEGMENT - 1) / SEGMENT, scan_step, a, why);
    if (e != SKF_OK) {
        skf_anchors_free(a);
        return e;
    }
    *out = a;
    return SKF_OK;
}

void skf_anchors_free(struct skf_anchors *a)
{
    if (!a)
        return;
    skf_free(a->slots);
    skf_free(a);
}

/* ---- neighbourhoods -------------------------------------------------------------------------------------------------------------- */
struct cluster { /* of places in the source */
    uint64_t at, end;
    uint32_t hits;
};

static int by_place(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}
static int by_hits(const void *a, const void *b)
{
    const struct cluster *x = a, *y = b;
    if (x->hits != y->hits)
        return x->hits > y->hits ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}
static int by_start(const void *a, const void *b)
{
    const struct skd_range *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Places where anchors of p stand in the source, in order. */
static size_t find_places(const struct skf_anchors *a, const uint8_t *p, size_t n, uint64_t *place)
{
    uint64_t h = 0;
    size_t hits = 0;
    for (size_t k = 0; k < n && hits < MAX_HITS; k++) {
        h = (h << 1) + a->gear[p[k]];
        if ((h & a->mask) != 0 || k + 1 < WINDOW)
            continue;
        uint64_t v = atomic_load_explicit(&a->slots[slot_of(h)], memory_order_relaxed);
        if (v != UINT64_MAX && (v ^ tag_of(h)) >> PLACE_BITS == 0)
            place[hits++] = v & ((1ull << PLACE_BITS) - 1);
    }
    qsort(place, hits, sizeof *place, by_place);
    return hits;
}

static size_t make_clusters(const struct skf_anchors *a, const uint64_t *place, size_t hits, struct cluster *c)
{
    size_t n = 0;
    for (size_t i = 0; i < hits; i++) {
        if (n && place[i] - c[n - 1].end < CLUSTER_GAP) {
            c[n - 1].end = place[i];
            c[n - 1].hits++;
        } else {
            c[n++] = (struct cluster){place[i], place[i], 1};
        }
    }
    for (size_t i = 0; i < n; i++) {
        c[i].at = c[i].at > CLUSTER_MARGIN ? c[i].at - CLUSTER_MARGIN : 0;
        c[i].end = SKF_MIN(a->source->size, c[i].end + CLUSTER_MARGIN);
    }
    qsort(c, n, sizeof *c, by_hits);
    return n;
}

/* Room that is left goes to both sides of the first, which has most in common. */
static void widen(const struct skf_anchors *a, uint64_t room, struct skd_range *first)
{
    uint64_t low = SKF_MIN(room / 2, first->at), high = SKF_MIN(room - low, a->source->size - first->at - first->n);
    low = SKF_MIN(room - high, first->at);
    first->at -= low;
    first->n += (uint32_t)(low + high);
}

enum skf_err skf_anchors_ranges(const struct skf_anchors *a, const uint8_t *p, size_t n, uint32_t most,
                                struct skd_range *ranges, uint32_t max, uint32_t *count)
{
    uint64_t *place = skf_calloc(MAX_HITS, sizeof *place), left = most;
    struct cluster *c = skf_calloc(MAX_HITS, sizeof *c);
    size_t found = 0, k = 0, kept = 0;
    if (place && c)
        found = make_clusters(a, place, find_places(a, p, n, place), c);
    for (size_t i = 0; i < found && k < max && left && (i == 0 || c[i].hits > 1); i++) {
        uint64_t len = SKF_MIN(left, c[i].end - c[i].at);
        ranges[k++] = (struct skd_range){c[i].at, (uint32_t)len};
        left -= len;
    }
    bool is_done = place && c;
    skf_free(place);
    skf_free(c);
    if (!is_done)
        return SKF_ERR_NOMEM;
    if (k)
        widen(a, left, &ranges[0]);
    qsort(ranges, k, sizeof *ranges, by_start);
    for (size_t i = 0; i < k; i++) { /* those that touch become one */
        struct skd_range *last = kept ? &ranges[kept - 1] : NULL;
        uint64_t end = ranges[i].at + ranges[i].n;
        if (last && ranges[i].at <= last->at + last->n)
            last->n = (uint32_t)(SKF_MAX(end, last->at + last->n) - last->at);
        else
            ranges[kept++] = ranges[i];
    }
    *count = (uint32_t)kept;
    return SKF_OK;
}
