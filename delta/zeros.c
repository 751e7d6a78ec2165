/* Which numbers become zero (zeros_priv.h). */
#include "delta/zeros_priv.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define HALF        16           /* bits of a size that are looked at at a time */
#define BINS        (1u << HALF)
#define BOUND_COST  3            /* numbers that a bound for a row must get right beyond what one for all does */
#define ROWS_TRIED  8            /* rows whose own bounds are looked for first */
#define ROWS_BETTER 16           /* and one in so many of those that become zero must be better said so: a bound fits a row's chance, too */
#define SIGN        4            /* bits of the payload's first byte, beside the kind */
#define ON_GRID     8

/* ---- one bound --------------------------------------------------------------------------------------------------------------- */
/* The first bins of which most become zero: by how many more do than stay. */
struct sum {
    int32_t best;
    uint32_t end; /* bins */
};
static struct sum best_of(const int32_t *bin, uint32_t n)
{
    struct sum s = {0, 0};
    int32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += bin[i];
        if (sum > s.best)
            s = (struct sum){sum, i + 1};
    }
    return s;
}

static void count(int32_t *bin, const uint32_t *size, uint32_t n, unsigned down, uint32_t first, uint32_t bins)
{
    memset(bin, 0, bins * sizeof *bin);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = ((size[i] & ~SKF_ZEROS_BECOMES) >> down) - first;
        if (size[i] != SKF_ZEROS_WAS && at < bins)
            bin[at] += size[i] & SKF_ZEROS_BECOMES ? 1 : -1;
    }
}

/* The bound for all; *gain is 0 when there is none. The upper bits first, then all bits about where these begin to lose. `bin`: BINS. */
static uint32_t bound_of(int32_t *bin, const uint32_t *size, uint32_t n, int32_t *gain)
{
    int32_t before = 0;
    count(bin, size, n, HALF, 0, BINS / 2);
    const uint32_t end = best_of(bin, BINS / 2).end, first = end ? end - 1 : 0;
    for (uint32_t i = 0; i < first; i++)
        before += bin[i];
    count(bin, size, n, 0, first << HALF, 2 * BINS);
    struct sum low = best_of(bin, 2 * BINS);
    *gain = before + low.best;
    return *gain > 0 && (first || low.end) ? (first << HALF) + low.end - 1 : 0;
}

/* ---- a bound for each row ---------------------------------------------------------------------------------------------------- */
static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a & ~SKF_ZEROS_BECOMES, y = *(const uint32_t *)b & ~SKF_ZEROS_BECOMES;
    return (x > y) - (x < y);
}

/* The bound of one row, whose sizes are sorted in `room`; 0: none. */
static uint32_t row_bound(uint32_t *room, const uint32_t *size, uint32_t n, int32_t *gain)
{
    uint32_t m = 0, bound = 0;
    int32_t sum = 0, best = 0;
    for (uint32_t i = 0; i < n; i++)
        if (size[i] != SKF_ZEROS_WAS)
            room[m++] = size[i];
    qsort(room, m, sizeof *room, by_size);
    for (uint32_t i = 0; i < m; i++) {
        sum += room[i] & SKF_ZEROS_BECOMES ? 1 : -1;
        bool is_last = i + 1 == m || by_size(&room[i], &room[i + 1]) != 0;
        if (is_last && sum > best) {
            best = sum;
            bound = room[i] & ~SKF_ZEROS_BECOMES;
        }
    }
    *gain += best;
    return bound;
}

/* ---- ranks in groups --------------------------------------------------------------------------------------------------------- */
/* What a group of m keeps: those that fewer than `keep` others come before; of those alike in size the first. */
static inline __attribute__((always_inline)) void mark_each(const uint32_t *size, unsigned m, unsigned keep, uint8_t *mark)
{
    for (unsigned i = 0; i < m; i++) {
        unsigned before = 0;
        for (unsigned k = 0; k < m; k++)
            before += k < i ? size[k] >= size[i] : size[k] > size[i];
        mark[i] = before >= keep && size[i] ? 255 : 0;
    }
}
static SKF_LOOPS void mark_group(const uint32_t *size, unsigned m, unsigned keep, uint8_t *mark)
{
    if (m == 4)
        mark_each(size, 4, keep, mark);
    else if (m == 8)
        mark_each(size, 8, keep, mark);
    else
        mark_each(size, m, keep, mark);
}

/* How many of each group stay, where that is the same nearly everywhere; 0 where not. */
static unsigned kept_of(const uint32_t *size, uint32_t n, unsigned of)
{
    uint32_t groups[SKF_ZEROS_GROUP_MAX + 1] = {0};
    unsigned most = 0;
    for (uint32_t i = 0; i + of <= n; i += of) {
        unsigned stay = 0;
        for (unsigned k = 0; k < of; k++)
            stay += !(size[i + k] & SKF_ZEROS_BECOMES); /* and not WAS, which has all bits */
        groups[stay]++;
    }
    for (unsigned k = 1; k <= of; k++)
        most = groups[k] > groups[most] ? k : most;
    return (uint64_t)groups[most] * of * 10 >= (uint64_t)n * 9 && most < of ? most : 0;
}

/* Numbers right less wrong. */
static int32_t gain_of_groups(const uint32_t *size, uint32_t n, uint32_t stripe, unsigned of, unsigned keep)
{
    int32_t gain = 0;
    for (uint32_t begin = 0; begin < n; begin += stripe)
        for (uint32_t i = begin, end = SKF_MIN(begin + stripe, n), m; i < end; i += m) {
            uint32_t own[SKF_ZEROS_GROUP_MAX];
            uint8_t mark[SKF_ZEROS_GROUP_MAX];
            m = SKF_MIN(of, end - i);
            for (unsigned k = 0; k < m; k++)
                own[k] = size[i + k] == SKF_ZEROS_WAS ? 0 : size[i + k] & ~SKF_ZEROS_BECOMES;
            mark_group(own, m, keep, mark);
            for (unsigned k = 0; k < m; k++)
                gain += !mark[k] ? 0 : size[i + k] & SKF_ZEROS_BECOMES ? 1 : -1;
        }
    return gain;
}

/* ---- the best ---------------------------------------------------------------------------------------------------------------- */
/* Bounds of some rows, or all; what they gain over all rows, about. */
static enum skf_err try_rows(struct skf_work *w, const uint32_t *size, uint32_t n, uint32_t stripe, uint32_t each, uint32_t *bound,
                             int32_t *gain)
{
    const uint32_t rows = (n + stripe - 1) / stripe;
    *gain = 0;
    SKF_TRY(skf_area_need(&w->part, stripe * sizeof(uint32_t)));
    for (uint32_t k = 0; k < rows; k += each)
        bound[k] = row_bound((uint32_t *)(void *)w->part.p, size + (size_t)k * stripe, SKF_MIN(stripe, n - k * stripe), gain);
    *gain = (int32_t)((int64_t)*gain * rows / ((rows + each - 1) / each) - BOUND_COST * (int64_t)rows);
    return SKF_OK;
}

enum skf_err skf_zeros_find(struct skf_work *w, const uint32_t *size, uint32_t n, uint32_t stripe, struct skf_zeros *z)
{
    const uint32_t stripes = (n + stripe - 1) / stripe;
    uint32_t become = 0;
    int32_t gain, best, least = (int32_t)(n / SKF_ZEROS_SHARE);
    *z = (struct skf_zeros){.kind = SKF_ZEROS_NONE};
    for (uint32_t i = 0; i < n; i++)
        become += size[i] != SKF_ZEROS_WAS && size[i] & SKF_ZEROS_BECOMES;
    if (become <= n / SKF_ZEROS_SHARE)
        return SKF_OK;
    SKF_TRY(skf_area_need(&w->zero, SKF_MAX(stripes, 1) * sizeof(uint32_t)));
    SKF_TRY(skf_area_need(&w->hist, 2 * BINS * sizeof(int32_t)));
    uint32_t *bound = (uint32_t *)(void *)w->zero.p, one = bound_of((int32_t *)(void *)w->hist.p, size, n, &best);
    if (best > least)
        *z = (struct skf_zeros){.kind = SKF_ZEROS_CHUNK, .least = bound};
    for (unsigned of = 4; of <= SKF_ZEROS_GROUP_MAX && best < (int32_t)(become - become / ROWS_BETTER); of *= 2) {
        unsigned keep = kept_of(size, n, of);
        gain = keep ? gain_of_groups(size, n, stripe, of, keep) : 0;
        if (gain > best && gain > least) {
            *z = (struct skf_zeros){.kind = SKF_ZEROS_GROUPS, .of = (uint8_t)of, .keep = (uint8_t)keep};
            best = gain;
        }
    }
    if (stripes > 1 && best < (int32_t)(become - become / ROWS_BETTER)) { /* what is left may be the rows' */
        SKF_TRY(try_rows(w, size, n, stripe, 1 + stripes / ROWS_TRIED, bound, &gain));
        if (gain > best + (int32_t)(become / ROWS_BETTER))
            SKF_TRY(try_rows(w, size, n, stripe, 1, bound, &gain));
        if (gain > best + (int32_t)(become / ROWS_BETTER) && gain > least) {
            *z = (struct skf_zeros){.kind = SKF_ZEROS_ROWS, .least = bound};
            return SKF_OK;
        }
    }
    bound[0] = one;
    return SKF_OK;
}

/* ---- as bytes ---------------------------------------------------------------------------------------------------------------- */
enum skf_err skf_zeros_put(const struct skf_zeros *z, uint32_t stripes, struct skf_buf *out)
{
    SKF_TRY(skf_buf_u8(out, SKF_ZEROS));
    SKF_TRY(skf_buf_u8(out, (uint8_t)(z->kind | (z->keeps_sign ? SIGN : 0) | (z->is_on_grid ? ON_GRID : 0))));
    if (z->kind == SKF_ZEROS_GROUPS) {
        SKF_TRY(skf_buf_u8(out, z->of));
        return skf_buf_u8(out, z->keep);
    }
    for (uint32_t k = 0; k < (z->kind == SKF_ZEROS_ROWS ? stripes : 1); k++)
        SKF_TRY(skf_put_varint(out, z->least[k]));
    return SKF_OK;
}

enum skf_err skf_zeros_get(struct skf_work *w, struct skf_reader *r, uint32_t stripes, struct skf_zeros *z)
{
    uint8_t kind;
    uint64_t least;
    *z = (struct skf_zeros){.kind = SKF_ZEROS_NONE};
    if (!skf_reader_left(r) || *r->p != SKF_ZEROS)
        return SKF_OK;
    r->p++;
    SKF_TRY(skf_get_u8(r, &kind));
    z->kind = (enum skf_zeros_kind)(kind & (SIGN - 1));
    z->keeps_sign = kind & SIGN;
    z->is_on_grid = kind & ON_GRID;
    if (kind >= 2 * ON_GRID || z->kind == SKF_ZEROS_NONE)
        return SKF_ERR_FORMAT;
    if (z->kind == SKF_ZEROS_GROUPS) {
        SKF_TRY(skf_get_u8(r, &z->of));
        SKF_TRY(skf_get_u8(r, &z->keep));
        bool is_fine = z->of >= 2 && z->of <= SKF_ZEROS_GROUP_MAX && (z->of & (z->of - 1)) == 0 && z->keep < z->of;
        return is_fine ? SKF_OK : SKF_ERR_FORMAT;
    }
    const uint32_t n = z->kind == SKF_ZEROS_ROWS ? stripes : 1;
    SKF_TRY(skf_area_need(&w->zero, n * sizeof(uint32_t)));
    uint32_t *bound = (uint32_t *)(void *)w->zero.p;
    for (uint32_t k = 0; k < n; k++) {
        SKF_TRY(skf_get_varint(r, &least));
        if (least >= SKF_ZEROS_BECOMES)
            return SKF_ERR_FORMAT;
        bound[k] = (uint32_t)least;
    }
    z->least = bound;
    return SKF_OK;
}

/* ---- pruning ----------------------------------------------------------------------------------------------------------------- */
SKF_LOOPS void skf_zeros_mark(const struct skf_zeros *z, uint32_t k, const uint32_t *size, uint32_t n, uint8_t *mark)
{
    if (z->kind == SKF_ZEROS_GROUPS) {
        for (uint32_t i = 0; i < n; i += z->of)
            mark_group(size + i, SKF_MIN(z->of, n - i), z->keep, mark + i);
        return;
    }
    const uint32_t least = skf_zeros_least(z, k);
    for (uint32_t i = 0; i < n; i++)
        mark[i] = size[i] - 1 < least ? 255 : 0;
}

/* Words of which a bound says it: without a branch, for vectors. */
static SKF_LOOPS void bound16(uint8_t *p, uint32_t n, uint16_t least, uint16_t sign)
{
    for (uint32_t i = 0; i < n; i++) {
        uint16_t v;
        memcpy(&v, p + 2 * (size_t)i, 2);
        v = le16toh(v);
        uint16_t small = (uint16_t)-(uint16_t)((uint16_t)((v & 0x7fff) - 1) < least);
        v = htole16((uint16_t)(v & (~small | sign)));
        memcpy(p + 2 * (size_t)i, &v, 2);
    }
}
static SKF_LOOPS void bound32(uint8_t *p, uint32_t n, uint32_t least, uint32_t sign)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, p + 4 * (size_t)i, 4);
        v = le32toh(v);
        uint32_t small = -(uint32_t)((v & 0x7fffffff) - 1 < least);
        v = htole32(v & (~small | sign));
        memcpy(p + 4 * (size_t)i, &v, 4);
    }
}

static uint32_t word_at(const uint8_t *p, unsigned width) { return width == 2 ? skf_le16(p) : skf_le32(p); }

static SKF_LOOPS void ranked(const struct skf_zeros *z, uint8_t *p, unsigned width, uint32_t n)
{
    const uint32_t sign = 1u << (8 * width - 1);
    for (uint32_t i = 0, m; i < n; i += m) {
        uint32_t size[SKF_ZEROS_GROUP_MAX];
        uint8_t mark[SKF_ZEROS_GROUP_MAX];
        m = SKF_MIN(z->of, n - i);
        for (uint32_t k = 0; k < m; k++)
            size[k] = word_at(p + (size_t)(i + k) * width, width) & (sign - 1);
        mark_group(size, m, z->keep, mark);
        for (uint32_t k = 0; k < m; k++) {
            uint8_t *q = p + (size_t)(i + k) * width, top = q[width - 1];
            if (!mark[k])
                continue;
            memset(q, 0, width);
            q[width - 1] = z->keeps_sign ? top & 0x80 : 0;
        }
    }
}

void skf_zeros_words(const struct skf_zeros *z, uint32_t k, uint8_t *p, unsigned width, uint32_t n)
{
    if (z->kind == SKF_ZEROS_GROUPS)
        ranked(z, p, width, n);
    else if (width == 2)
        bound16(p, n, (uint16_t)SKF_MIN(skf_zeros_least(z, k), 0xffffu), z->keeps_sign ? 0x8000 : 0);
    else
        bound32(p, n, skf_zeros_least(z, k), z->keeps_sign ? 1u << 31 : 0);
}
