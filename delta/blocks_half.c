/*
 * Halves of all blocks (blocks_priv.h): masks of four say which blocks have one that differs, and only these have differences, of bit
 * patterns, each half apart where a half before it in the block differs.
 *
 * The step of a block of Q8_0 is what its largest code stands for, divided by 127: where that is guessed at, so is the step, and all
 * blocks have a difference, in the context of how far the guess goes.
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

/* ---- guessed ----------------------------------------------------------------------------------------------------------------- */
/* How far a guess of g goes at a block whose step is d: against half a step of the bfloat16 that its largest number was. */
static inline unsigned reach_of(float g, float d)
{
    union {
        float f;
        uint32_t u;
    } most = {.f = 127.0f * d}, size = {.f = g};
    uint32_t e = most.u & 0x7f800000;
    if (e <= 12 << 23)
        return 0;
    most.u = e - (12 << 23); /* a 32nd of the bfloat16's step */
    size.u &= INT32_MAX;
    return (size.f >= 3 * most.f) + (size.f >= 6 * most.f) + (size.f >= 10 * most.f) + (size.f >= 14 * most.f) +
           (size.f >= 22 * most.f);
}

static void row_peaks(const struct skf_blocks *b, uint32_t row, int at, skf_peaks_fn *peaks, uint8_t *place, uint8_t *key, uint8_t *turn)
{
    const unsigned code = b->l->field[0].low.at;
    const uint32_t i = row * b->levels.stripe, n = SKF_MIN(b->n - i, b->levels.stripe);
    const uint8_t *old = skf_old_block(b, i);
    const float *guess = b->factors.guess;
    skf_factors_row(&b->factors, row);
    peaks(old + code, b->bytes, n, place);
    for (uint32_t k = 0; k < n; k++, old += b->bytes, guess += 32) {
        const float d = skf_half_at(old + b->l->half[0]);
        const unsigned peak = place[k] & 31, class = skf_step_class[skf_context(skf_half_scale(old + b->l->half[0]), at)];
        const float g = place[k] < 32 ? guess[peak] : 0;
        key[k] = (uint8_t)(class * SKF_REACHES + reach_of(g, d));
        turn[k] = (uint8_t)-((g < 0) != (old[code + peak] >= 128) && g != 0);
    }
}

/* Contexts of all blocks in w->key; in w->mask -1 where the guess makes the step smaller. */
static enum skf_err peak_keys(struct skf_work *w, const struct skf_blocks *b, int base)
{
    const struct skf_bytes *bytes = skf_bytes_pick(w->isa);
    skf_peaks_fn *peaks = skf_peaks_pick(w->isa);
    SKF_TRY(skf_area_need(&w->key, b->n));
    SKF_TRY(skf_area_need(&w->mask, b->n));
    SKF_TRY(skf_area_need(&w->same, b->levels.stripe));
    for (uint32_t i = 0; bytes && i < b->n; i += SKF_BYTES_RUN)
        bytes->peaks(&(struct skf_bytes_run){b, base, i, SKF_MIN(b->n - i, (uint32_t)SKF_BYTES_RUN)}, w->key.p + i, w->mask.p + i);
    for (uint32_t i = 0, row = 0; !bytes && i < b->n; i += b->levels.stripe, row++)
        row_peaks(b, row, skf_row_at(b, i, base), peaks, w->same.p, w->key.p + i, w->mask.p + i);
    return SKF_OK;
}

static enum skf_err peaks_put(struct skf_work *w, struct skf_blocks *b, int base, struct skf_buf *out)
{
    const unsigned at = b->l->half[0];
    SKF_TRY(peak_keys(w, b, base));
    SKF_TRY(skf_area_need(&w->val, sizeof(int16_t) * (size_t)b->n));
    int16_t *d = (int16_t *)(void *)w->val.p;
    for (uint32_t i = 0; i < b->n; i++) {
        d[i] = (int16_t)(skf_le16(skf_new_block(b, i) + at) - skf_le16(skf_old_block(b, i) + at));
        d[i] = (int16_t)(w->mask.p[i] ? -d[i] : d[i]);
    }
    return skf_diffs16_put(w, d, w->key.p, b->n, out);
}

static enum skf_err peaks_get(struct skf_work *w, struct skf_reader *r, struct skf_blocks *b, int base)
{
    const unsigned at = b->l->half[0];
    SKF_TRY(peak_keys(w, b, base));
    SKF_TRY(skf_area_need(&w->val, sizeof(int16_t) * (size_t)b->n));
    int16_t *d = (int16_t *)(void *)w->val.p;
    SKF_TRY(skf_diffs16_get(w, r, w->key.p, b->n, d));
    for (uint32_t i = 0; i < b->n; i++) {
        const int turn = (int8_t)w->mask.p[i];
        b->moved[i] = d[i] != 0;
        skf_put_le16(skf_new_block(b, i) + at, (uint16_t)(skf_le16(skf_old_block(b, i) + at) + (d[i] ^ turn) - turn));
    }
    return SKF_OK;
}

/* ---- all --------------------------------------------------------------------------------------------------------------------- */
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
    if (skf_is_bytes(b))
        return peaks_put(w, b, base, out);
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
            d[i] = (int16_t)(skf_le16(skf_new_block(b, list[i]) + at) - skf_half_base(b, list[i], k));
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
    if (!has && skf_is_bytes(b))
        for (uint32_t i = 0; i < b->n; i++)
            memcpy(skf_new_block(b, i) + b->l->half[0], skf_old_block(b, i) + b->l->half[0], 2);
    if (!has)
        return SKF_OK;
    SKF_TRY(skf_get_svarint(r, &base));
    if ((int64_t)base > BLOCKS_BASE_MAX || (int64_t)base < -BLOCKS_BASE_MAX)
        return SKF_ERR_FORMAT;
    if (skf_is_bytes(b))
        return peaks_get(w, r, b, (int)(int64_t)base);
    SKF_TRY(get_moved(w, r, b, (int)(int64_t)base));
    SKF_TRY(list_moved(w, b, &n));
    const uint32_t *list = (const uint32_t *)(const void *)w->same.p;
    for (unsigned k = 0; k < b->l->n_halves; k++) {
        int16_t *d = (int16_t *)(void *)w->val.p + k * (size_t)b->n;
        const unsigned at = b->l->half[k];
        half_keys(w, b, (int)(int64_t)base, n, before);
        SKF_TRY(skf_diffs16_get(w, r, w->key.p, n, d));
        for (uint32_t i = 0; i < n; i++)
            skf_put_le16(skf_new_block(b, list[i]) + at, (uint16_t)(skf_half_base(b, list[i], k) + d[i]));
        before = d;
    }
    return SKF_OK;
}
