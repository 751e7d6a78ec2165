/*
 * Chunks that have no counterpart in a tensor (build_priv.h): zstd by itself, zstd with the ranges of the source that share most
 * with them, and where the content is unknown the regions of it that are numbers.
 */
#include <string.h>

#include "delta/build_priv.h"

/* Levels where none is asked for: of bytes that no better way is known for, and of what tensors leave over. */
#define LEVEL_ANY 19
#define LEVEL_TENSOR 9
#define LEVEL_FAST 9
/* What is this small after a fast try is not worth a slow one. */
#define IS_SMALL(n, of) ((n) < (of) / 64)
/* Contexts with the largest tables. */
#define HEAVY_ANY 2
#define NEARBY 16 /* times a small chunk of a tensor */
#define NEARBY_LEAST (64u << 10)

static enum skf_err take(struct build_worker *w, struct candidate *c, uint8_t coding, size_t n, const struct skd_range *range)
{
    SKF_TRY(skf_area_need(&w->best, c->n));
    memcpy(w->best.p, w->check.p, n);
    *c = (struct candidate){coding, n, range ? range->at : 0, range ? range->n : 0};
    return SKF_OK;
}

enum skf_err build_take_mixed(struct build_worker *w, struct skf_region_room *room, const struct skf_buf *payload,
                              const struct skd_range *ranges, uint32_t n_ranges, const uint8_t *neu, size_t n,
                              const uint8_t *prefix, struct candidate *c)
{
    size_t all = 0;
    for (uint32_t k = 0; k < n_ranges; k++)
        all += ranges[k].n;
    SKF_TRY(skf_area_need(&w->check, n));
    enum skf_err e = skf_regions_get(&w->work, room, payload->data, payload->len, prefix, all, w->check.p, n);
    if (e == SKF_ERR_NOMEM)
        return e;
    if (e != SKF_OK || memcmp(w->check.p, neu, n) != 0)
        return SKF_ERR_INTERNAL;
    SKF_TRY(skf_area_need(&w->best, payload->len));
    memcpy(w->best.p, payload->data, payload->len);
    *c = (struct candidate){SKF_CODE_MIXED, payload->len, n_ranges ? ranges[0].at : 0, all};
    w->n_ranges = n_ranges;
    if (n_ranges)
        memcpy(w->ranges, ranges, n_ranges * sizeof *ranges);
    return SKF_OK;
}

/* ---- what of the source may be referred to ---------------------------------------------------------------------------------- */
/* `most` bytes of the source, as many as it has, with `at` in their middle. */
static uint32_t around(const struct build *b, uint64_t at, uint64_t most, struct skd_range *range)
{
    uint64_t size = b->old_source->size, half = most / 2;
    uint64_t from = at > half ? at - half : 0;
    from = size > most ? SKF_MIN(from, size - most) : 0;
    *range = (struct skd_range){from, (uint32_t)SKF_MIN(most, size)};
    return size > 0;
}

/* What a chunk of a tensor that has its counterpart is looked for in: zstd takes all of it in, and of small tensors there may be many. */
static uint64_t nearby(size_t n) { return SKF_MIN(SKD_PATCH_MAX, SKF_MAX((uint64_t)n * NEARBY, NEARBY_LEAST)); }

/* The whole of a small source; the same place of the chunk's tensor; what anchors say; the same place of the file. */
static enum skf_err choose_ranges(const struct build *b, uint64_t i, const uint8_t *neu, size_t n, struct skd_range *ranges,
                                  uint32_t *count)
{
    uint32_t t = b->tensor_of[i];
    uint64_t at = b->neu_cut.chunks[i].offset;
    *count = 0;
    if (t != SKD_NO_TENSOR && b->pairs[t])
        *count = around(b, b->pairs[t]->offset + (at - b->tensors[t].offset), nearby(n), ranges);
    else if (b->old_source->size <= SKD_PATCH_MAX && (t == SKD_NO_TENSOR || b->anchors))
        *count = around(b, at, SKD_PATCH_MAX, ranges);
    else if (b->anchors)
        SKF_TRY(skf_anchors_ranges(b->anchors, neu, n, SKD_PATCH_MAX, ranges, SKD_RANGES_MAX, count));
    if (!*count && t == SKD_NO_TENSOR)
        *count = around(b, at, SKD_PATCH_MAX, ranges);
    return SKF_OK;
}

static enum skf_err gather(const struct build *b, struct build_heavy *h, const struct skd_range *ranges, uint32_t count,
                           const uint8_t **p, size_t *n)
{
    *p = NULL;
    *n = 0;
    for (uint32_t k = 0; k < count; k++)
        *n += ranges[k].n;
    if (count == 1)
        return skf_area_view(b->old_source, ranges[0].at, ranges[0].n, &h->source, p);
    if (!count)
        return SKF_OK;
    SKF_TRY(skf_area_need(&h->source, *n));
    *p = h->source.p;
    for (uint32_t k = 0, at = 0; k < count; at += ranges[k++].n)
        SKF_TRY(skf_source_read(b->old_source, ranges[k].at, h->source.p + at, ranges[k].n));
    return SKF_OK;
}

/* ---- ways -------------------------------------------------------------------------------------------------------------------- */
struct piece { /* a chunk in the making */
    struct build *b;
    uint64_t i;
    struct build_worker *w;
    struct build_heavy *h;
    const uint8_t *neu, *prefix;
    size_t n, prefix_n;
    struct skd_range ranges[SKD_RANGES_MAX];
    uint32_t n_ranges;
    uint32_t matched; /* bytes of it that are known to stand in the prefix */
    int level;
};

static enum skf_err try_zstd(struct piece *p, int level, bool has_prefix, size_t cap, size_t *got)
{
    SKF_TRY(skf_area_need(&p->w->check, p->n));
    return skf_zenc_chunk(p->h->enc, p->neu, p->n, has_prefix ? p->prefix : NULL, has_prefix ? p->prefix_n : 0, level,
                          p->w->check.p, cap, got);
}

/* What the fastest try comes to; 0 for noise. */
static enum skf_err look(struct piece *p, size_t *got)
{
    SKF_TRY(try_zstd(p, 1, false, p->n, got));
    if (*got >= p->n - p->n / 100)
        *got = 0;
    return SKF_OK;
}

/* Without the source. Where that costs next to nothing it is better than with it: one thing less to depend on. */
static enum skf_err try_alone(struct piece *p, struct candidate *c)
{
    size_t got, cap = c->n, most = c->coding == SKF_CODE_RAW ? p->n : SKF_MIN(p->n, c->n + c->n / 128 + 16);
    SKF_TRY(look(p, &got));
    if (!got || (c->coding == SKF_CODE_MIXED && got > c->n + c->n / 8)) /* slower levels do not find that much more in numbers */
        return SKF_OK;
    int level = !p->b->level && got < p->n / 4 ? LEVEL_ANY : p->level; /* what repeats itself so much is done soon */
    if (c->coding != SKF_CODE_RAW && level > LEVEL_FAST) { /* and what is far from as good as what there is */
        SKF_TRY(try_zstd(p, LEVEL_FAST, false, p->n, &got));
        if (!got || got > cap + cap / 4 + 1024)
            return SKF_OK;
    }
    SKF_TRY(try_zstd(p, level, false, most, &got));
    if (c->coding == SKF_CODE_MIXED && got >= c->n)
        return SKF_OK;
    return got && got < most ? take(p->w, c, SKF_CODE_ZSTD, got, NULL) : SKF_OK;
}

/* The chunk as these regions, of which a single one that is all rest says: zstd with several ranges. */
static enum skf_err try_regions(struct piece *p, const struct skf_region *g, uint32_t count, struct candidate *c)
{
    struct build_heavy *h = p->h;
    const struct skf_region_tools t = {&p->w->work, h->enc, &h->room, &h->match, &h->trial, p->level};
    skf_buf_clear(&h->out);
    h->out.limit = c->n - 1;
    h->trial.limit = p->n;
    enum skf_err e = c->n > 1 ? skf_regions_put(&t, g, count, p->neu, p->prefix, p->prefix_n, &h->out) : SKF_ERR_LIMIT;
    if (e == SKF_ERR_LIMIT)
        return SKF_OK;
    SKF_TRY(e);
    bool needs_source = false;
    for (uint32_t k = 0; k < count; k++)
        needs_source = needs_source || g[k].kind == SKF_REGION_REST || g[k].kind == SKF_REGION_INT;
    return build_take_mixed(p->w, &h->room, &h->out, p->ranges, needs_source ? p->n_ranges : 0, p->neu, p->n, p->prefix, c);
}

/* A tensor's new rows as bytes, where they repeat each other or old ones: those of tokens that were given a mean of all, or another's place. */
static enum skf_err try_grown(struct piece *p, uint32_t common, struct candidate *c)
{
    const struct skf_tensor *t = &p->b->tensors[p->b->tensor_of[p->i]];
    const struct skf_region g[2] = {{.n = common, .kind = SKF_REGION_INT, .type = t->type, .row_bytes = t->row_bytes},
                                    {.at = common, .n = (uint32_t)(p->n - common), .kind = SKF_REGION_REST}};
    size_t got;
    SKF_TRY(skf_area_need(&p->w->check, p->n));
    SKF_TRY(skf_zenc_chunk(p->h->enc, p->neu + common, g[1].n, NULL, 0, 1, p->w->check.p, g[1].n, &got));
    if (!got || got > g[1].n / 2)
        return SKF_OK;
    p->ranges[0] = (struct skd_range){c->source_offset, common};
    p->n_ranges = 1;
    SKF_TRY(gather(p->b, p->h, p->ranges, 1, &p->prefix, &p->prefix_n));
    return try_regions(p, g, 2, c);
}

/* zstd with what there is of the source: a fast try first, which is the last for what is nearly the same. */
static enum skf_err try_patch(struct piece *p, struct candidate *c)
{
    const struct skf_region all = {.n = (uint32_t)p->n, .kind = SKF_REGION_REST};
    size_t fast = 0, got = 0;
    if (!p->prefix_n)
        return SKF_OK;
    if (p->n_ranges > 1)
        return try_regions(p, &all, 1, c);
    SKF_TRY(try_zstd(p, SKF_MIN(p->level, LEVEL_FAST), true, c->n, &fast));
    if (fast && fast < c->n)
        SKF_TRY(take(p->w, c, SKF_CODE_PATCH, fast, p->ranges));
    if (p->level <= LEVEL_FAST || (fast && IS_SMALL(fast, p->n) && p->prefix_n > p->n))
        return SKF_OK;
    if (p->matched && (!fast || fast > (p->n - p->matched) / 128 * 127)) /* all but that is noise */
        return SKF_OK;
    SKF_TRY(try_zstd(p, p->level, true, c->n, &got));
    return got && got < c->n ? take(p->w, c, SKF_CODE_PATCH, got, p->ranges) : SKF_OK;
}

/* ---- unknown content --------------------------------------------------------------------------------------------------------- */
struct run { /* of used blocks, in places of the prefix; and the range that it lies in */
    uint32_t at, end, range;
};

/* Runs of used blocks, at most SKD_RANGES_MAX: what lies close together is joined, more so until they are few enough. */
static uint32_t find_runs(const struct piece *p, const uint8_t *used, struct run *run)
{
    uint32_t count = SKD_RANGES_MAX + 1;
    for (uint32_t gap = 4 * SKF_USED_BLOCK; count > SKD_RANGES_MAX; gap *= 2) {
        count = 0;
        for (uint32_t k = 0, base = 0; k < p->n_ranges && count <= SKD_RANGES_MAX; base += p->ranges[k++].n) {
            uint32_t end = base + p->ranges[k].n;
            for (uint32_t at = base, next; at < end && count <= SKD_RANGES_MAX; at = next) {
                next = SKF_MIN(end, (at / SKF_USED_BLOCK + 1) * SKF_USED_BLOCK);
                struct run *last = count ? &run[count - 1] : NULL;
                if (!used[at / SKF_USED_BLOCK])
                    continue;
                if (last && last->range == k && at - last->end <= gap)
                    last->end = next;
                else
                    run[count++] = (struct run){at, next, k};
            }
        }
    }
    return count;
}

/* Leaves of the prefix what the chunk has to do with: the less of it zstd has to take in, the sooner it is done. */
static enum skf_err narrow(struct piece *p, struct skf_regions_found *f)
{
    struct run run[SKD_RANGES_MAX + 1];
    uint32_t count = find_runs(p, f->used, run), base[SKD_RANGES_MAX + 1] = {0}, all = 0;
    struct skd_range ranges[SKD_RANGES_MAX];
    for (uint32_t k = 0, begin = 0, r = 0; k < count; k++) {
        for (; r < run[k].range; r++)
            begin += p->ranges[r].n;
        ranges[k] = (struct skd_range){p->ranges[r].at + (run[k].at - begin), run[k].end - run[k].at};
        base[k] = all;
        all += ranges[k].n;
    }
    for (uint32_t i = 0; i < f->count; i++) {
        struct skf_region *g = &f->g[i];
        if (g->kind != SKF_REGION_INT)
            continue;
        if (g->from >= p->prefix_n) {
            g->from = (uint32_t)(g->from - p->prefix_n + all);
            continue;
        }
        uint32_t k = 0;
        while (k + 1 < count && g->from >= run[k].end)
            k++;
        g->from = base[k] + (g->from - run[k].at);
    }
    memcpy(p->ranges, ranges, count * sizeof *ranges);
    p->n_ranges = count;
    return gather(p->b, p->h, p->ranges, p->n_ranges, &p->prefix, &p->prefix_n);
}

static enum skf_err try_unknown(struct piece *p, struct candidate *c)
{
    struct build_heavy *h = p->h;
    const struct skf_region_tools t = {&p->w->work, h->enc, &h->room, &h->match, &h->trial, p->level};
    struct skf_regions_found f;
    h->trial.limit = p->n;
    SKF_TRY(skf_regions_find(&t, p->neu, p->n, p->prefix, p->prefix_n, &f));
    size_t got;
    SKF_TRY(look(p, &got));
    p->b->alone[p->i] = (uint32_t)got;
    if (!got || f.numbers > p->n / 2 || f.matched > p->n / 8)
        SKF_TRY(narrow(p, &f));
    p->matched = f.matched;
    if (f.numbers)
        SKF_TRY(try_regions(p, f.g, f.count, c));
    if (f.numbers > p->n / 8 || (!got && !f.matched)) /* the rest was compressed with them; or all is noise */
        return SKF_OK;
    SKF_TRY(try_patch(p, c));
    return try_alone(p, c);
}

enum skf_err build_try_any(struct build *b, unsigned worker, uint64_t i, const uint8_t *neu, size_t n, struct candidate *c)
{
    bool is_tensor = b->tensor_of[i] != SKD_NO_TENSOR;
    struct piece p = {.b = b, .i = i, .w = &b->workers[worker], .neu = neu, .n = n};
    struct build_heavy *h = p.h = &b->heavy[worker % (is_tensor ? BUILD_HEAVY : HEAVY_ANY)];
    enum skf_err e = SKF_OK;
    p.level = b->level ? b->level : is_tensor ? LEVEL_TENSOR : LEVEL_ANY;
    (void)pthread_mutex_lock(&h->lock);
    if (!h->enc && !(h->enc = skf_zenc_new()))
        SKF_GO(e, SKF_ERR_NOMEM);
    if (!h->out.limit)
        h->out = h->trial = SKF_BUF_INIT(SKF_CHUNK_MAX);
    SKF_GO(e, choose_ranges(b, i, neu, n, p.ranges, &p.n_ranges));
    SKF_GO(e, gather(b, h, p.ranges, p.n_ranges, &p.prefix, &p.prefix_n));
    if (!is_tensor || (!b->pairs[b->tensor_of[i]] && p.n_ranges)) { /* a tensor may have come from anywhere */
        e = try_unknown(&p, c);
        goto out;
    }
    size_t had = c->n;
    if (c->coding == SKF_CODE_MIXED && b->pairs[b->tensor_of[i]] && c->source_length && c->source_length < n)
        SKF_GO(e, try_grown(&p, (uint32_t)c->source_length, c));
    SKF_GO(e, try_alone(&p, c));
    if (had > n - n / 8)
        e = try_patch(&p, c);
out:
    (void)pthread_mutex_unlock(&h->lock);
    return e;
}
