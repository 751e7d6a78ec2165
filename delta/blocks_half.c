/*
 * Halves of all blocks (blocks_priv.h): masks of four say which blocks have one that differs, and only these have differences, of bit
 * patterns, each half apart where a half before it in the block differs.
 */
#include <math.h>
#include <string.h>

#include "delta/blocks_priv.h"

#define MIDDLE 22 /* where the contexts' middle stands */

static inline uint8_t key_of(const struct skf_blocks *b, uint32_t i, int at)
{
    return skf_context(skf_half_scale(skf_old_block(b, i) + b->l->half[0]), at);
}

/* Contexts of groups of four blocks, in w->key. */
static enum skf_err group_keys(struct skf_work *w, const struct skf_blocks *b, int base, uint32_t n)
{
    SKF_TRY(skf_area_need(&w->key, b->n));
    for (uint32_t g = 0; g < n; g++)
        w->key.p[g] = key_of(b, 4 * g, skf_row_at(b, 4 * g, base));
    return SKF_OK;
}

/* The numbers of the blocks that moved, in w->same; differences of their halves go to w->val. */
static enum skf_err list_moved(struct skf_work *w, const struct skf_blocks *b, uint32_t *n)
{
    SKF_TRY(skf_area_need(&w->same, (size_t)b->n * sizeof(uint32_t)));
    SKF_TRY(skf_area_need(&w->val, 2 * sizeof(int16_t) * (size_t)b->n));
    uint32_t *list = (uint32_t *)(void *)w->same.p, k = 0;
    for (uint32_t i = skf_next_moved(b, 0); i < b->n; i = skf_next_moved(b, i + 1))
        list[k++] = i;
    *n = k;
    return SKF_OK;
}

/* Contexts of the n blocks that moved. before: differences of the half before, NULL for the first. */
static void half_keys(struct skf_work *w, const struct skf_blocks *b, int base, uint32_t n, const int16_t *before)
{
    const uint32_t *list = (const uint32_t *)(const void *)w->same.p;
    for (uint32_t k = 0; k < n; k++) {
        uint8_t c = key_of(b, list[k], skf_row_at(b, list[k], base)) / 2;
        w->key.p[k] = (uint8_t)(c + (before && before[k] ? SKF_CONTEXTS / 2 : 0));
    }
}

static void mark_moved(struct skf_blocks *b)
{
    for (unsigned k = 0; k < b->l->n_halves; k++)
        for (uint32_t i = 0; i < b->n; i++)
            b->moved[i] |= memcmp(skf_old_block(b, i) + b->l->half[k], skf_new_block(b, i) + b->l->half[k], 2) != 0;
    b->has_moved = memchr(b->moved, 1, b->n) != NULL;
}

static int choose_base(const struct skf_blocks *b)
{
    double sum = 0;
    for (uint32_t i = 0; i < b->n; i++)
        sum += skf_half_scale(skf_old_block(b, i) + b->l->half[0]) + skf_row_at(b, i, 0);
    return MIDDLE - (int)floor(sum / b->n + 0.5);
}

enum skf_err skf_halves_put(struct skf_work *w, struct skf_blocks *b, struct skf_buf *out)
{
    const uint32_t groups = (b->n + 3) / 4;
    const int16_t *before = NULL;
    uint32_t n;
    if (!b->l->n_halves)
        return SKF_OK;
    mark_moved(b);
    SKF_TRY(skf_buf_u8(out, b->has_moved));
    if (!b->has_moved)
        return SKF_OK;
    int base = choose_base(b);
    SKF_TRY(skf_put_svarint(out, (uint64_t)(int64_t)base));
    SKF_TRY(group_keys(w, b, base, groups));
    SKF_TRY(skf_area_need(&w->mask, groups));
    memset(w->mask.p, 0, groups);
    for (uint32_t i = 0; i < b->n; i++)
        w->mask.p[i / 4] |= (uint8_t)(b->moved[i] << (i & 3));
    SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->mask.p, w->key.p, groups}, out));
    SKF_TRY(list_moved(w, b, &n));
    const uint32_t *list = (const uint32_t *)(const void *)w->same.p;
    for (unsigned k = 0; k < b->l->n_halves; k++) {
        int16_t *d = (int16_t *)(void *)w->val.p + k * (size_t)b->n;
        const unsigned at = b->l->half[k];
        half_keys(w, b, base, n, before);
        for (uint32_t i = 0; i < n; i++)
            d[i] = (int16_t)(skf_le16(skf_new_block(b, list[i]) + at) - skf_le16(skf_old_block(b, list[i]) + at));
        SKF_TRY(skf_diffs16_put(w, d, w->key.p, n, out));
        before = d;
    }
    return SKF_OK;
}

static enum skf_err get_moved(struct skf_work *w, struct skf_reader *r, struct skf_blocks *b, int base)
{
    const uint32_t groups = (b->n + 3) / 4;
    SKF_TRY(group_keys(w, b, base, groups));
    SKF_TRY(skf_area_need(&w->mask, groups));
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->mask.p, w->key.p, groups}));
    uint8_t seen = b->n % 4 ? (uint8_t)(w->mask.p[groups - 1] >> b->n % 4 << 4) : 0;
    for (uint32_t g = 0; g < groups; g++)
        seen |= w->mask.p[g];
    if (seen > 15)
        return SKF_ERR_FORMAT;
    for (uint32_t g = 0; g < groups; g++)
        for (unsigned m = w->mask.p[g]; m; m &= m - 1)
            b->moved[4 * g + (unsigned)__builtin_ctz(m)] = 1;
    return SKF_OK;
}

enum skf_err skf_halves_get(struct skf_work *w, struct skf_reader *r, struct skf_blocks *b)
{
    uint8_t has;
    uint64_t base;
    uint32_t n;
    const int16_t *before = NULL;
    if (!b->l->n_halves)
        return SKF_OK;
    SKF_TRY(skf_get_u8(r, &has));
    if (has > 1)
        return SKF_ERR_FORMAT;
    b->has_moved = has;
    if (!has)
        return SKF_OK;
    SKF_TRY(skf_get_svarint(r, &base));
    if ((int64_t)base > BLOCKS_BASE_MAX || (int64_t)base < -BLOCKS_BASE_MAX)
        return SKF_ERR_FORMAT;
    SKF_TRY(get_moved(w, r, b, (int)(int64_t)base));
    SKF_TRY(list_moved(w, b, &n));
    const uint32_t *list = (const uint32_t *)(const void *)w->same.p;
    for (unsigned k = 0; k < b->l->n_halves; k++) {
        int16_t *d = (int16_t *)(void *)w->val.p + k * (size_t)b->n;
        const unsigned at = b->l->half[k];
        half_keys(w, b, (int)(int64_t)base, n, before);
        SKF_TRY(skf_diffs16_get(w, r, w->key.p, n, d));
        for (uint32_t i = 0; i < n; i++)
            skf_put_le16(skf_new_block(b, list[i]) + at, (uint16_t)(skf_le16(skf_old_block(b, list[i]) + at) + d[i]));
        before = d;
    }
    return SKF_OK;
}
