/* A packed piece, read (lz_priv.h). */
#include "delta/lz_priv.h"

#include <string.h>

void skf_lz_model_init(struct lz_model *m)
{
    struct lz_bit *b = (struct lz_bit *)(void *)m; /* it holds nothing else */
    for (size_t i = 0; i < sizeof *m / sizeof *b; i++)
        b[i] = (struct lz_bit){1u << 15, 1u << 15};
}

/* ---- calls ------------------------------------------------------------------------------------------------------------------ */
/* E8 and E9, then a distance of 25 bits with its sign in all that is above: that stays so, whatever is added. The highest byte of what is no
 * such distance must not change either, so nothing begins in front of it. */
static void filter_x86(uint8_t *p, size_t n, bool is_coding)
{
    for (size_t i = 0; n >= 5 && i <= n - 5; i++) {
        if ((p[i] & 0xfe) != 0xe8)
            continue;
        if (p[i + 4] != 0 && p[i + 4] != 0xff) {
            i += 3;
            continue;
        }
        uint32_t at = (uint32_t)i + 5, v = skf_le32(p + i + 1);
        v = (is_coding ? v + at : v - at) & 0x1ffffff;
        skf_put_le32(p + i + 1, (v ^ 0x1000000) - 0x1000000);
        i += 4;
    }
}

/* BL, a distance in words of 26 bits. */
static void filter_arm64(uint8_t *p, size_t n, bool is_coding)
{
    for (size_t i = 0; i + 4 <= n; i += 4) {
        uint32_t v = skf_le32(p + i), at = (uint32_t)(i / 4);
        if (v >> 26 == 0x25)
            skf_put_le32(p + i, 0x25u << 26 | ((is_coding ? v + at : v - at) & 0x3ffffff));
    }
}

void skf_lz_filter(enum skf_lz_filter f, uint8_t *p, size_t n, bool is_coding)
{
    if (f == SKF_LZ_X86)
        filter_x86(p, n, is_coding);
    else if (f == SKF_LZ_ARM64)
        filter_arm64(p, n, is_coding);
}

/* ---- bits ------------------------------------------------------------------------------------------------------------------- */
struct in {
    const uint8_t *p, *end;
    uint32_t range, code;
    bool is_short; /* more was asked for than there is; zeros were given */
};

static inline void fill(struct in *in)
{
    if (in->range >> 24)
        return;
    in->range <<= 8;
    in->code <<= 8;
    if (in->p < in->end)
        in->code |= *in->p++;
    else
        in->is_short = true;
}

static inline unsigned get_bit(struct in *in, struct lz_bit *b)
{
    fill(in);
    uint32_t bound = (in->range >> 16) * lz_zero(b);
    unsigned bit = in->code >= bound;
    if (bit) {
        in->range -= bound;
        in->code -= bound;
    } else {
        in->range = bound;
    }
    lz_learn(b, bit);
    return bit;
}

static inline unsigned get_tree(struct in *in, struct lz_bit *b, unsigned bits)
{
    unsigned m = 1;
    for (unsigned i = 0; i < bits; i++)
        m = m << 1 | get_bit(in, &b[m]);
    return m - (1u << bits);
}

/* The lowest bit first; b[1] is the first's. */
static inline unsigned get_reverse(struct in *in, struct lz_bit *b, unsigned bits)
{
    unsigned m = 1, v = 0;
    for (unsigned i = 0; i < bits; i++) {
        unsigned bit = get_bit(in, &b[m]);
        m = m << 1 | bit;
        v |= bit << i;
    }
    return v;
}

static unsigned get_even(struct in *in, unsigned bits) /* as likely 0 as 1 */
{
    unsigned v = 0;
    for (unsigned i = 0; i < bits; i++) {
        fill(in);
        in->range >>= 1;
        unsigned bit = in->code >= in->range;
        in->code -= bit ? in->range : 0;
        v = v << 1 | bit;
    }
    return v;
}

/* ---- pieces ----------------------------------------------------------------------------------------------------------------- */
static uint8_t get_literal(struct in *in, struct lz_bit *b, unsigned state, unsigned expected)
{
    unsigned m = 1;
    if (state >= 7) { /* behind a match: what would have followed there, as far as it is right */
        unsigned same = 0x100;
        while (m < 0x100) {
            expected <<= 1;
            unsigned bit = get_bit(in, &b[same + (expected & same) + m]);
            m = m << 1 | bit;
            same &= bit ? expected : ~expected;
        }
    }
    while (m < 0x100)
        m = m << 1 | get_bit(in, &b[m]);
    return (uint8_t)m;
}

static unsigned get_len(struct in *in, struct lz_len *l, unsigned place)
{
    if (!get_bit(in, &l->is_mid))
        return LZ_LEN_MIN + get_tree(in, l->low[place], 3);
    if (!get_bit(in, &l->is_high))
        return LZ_LEN_MIN + 8 + get_tree(in, l->mid[place], 3);
    return LZ_LEN_MIN + 16 + get_tree(in, l->high, 8);
}

static uint32_t get_distance(struct in *in, struct lz_model *m, unsigned len) /* less one */
{
    unsigned slot = get_tree(in, m->slot[lz_len_class(len)], 6), bits = (slot >> 1) - 1;
    if (slot < 4)
        return slot;
    uint32_t d = (2u | (slot & 1)) << bits;
    if (slot < 14)
        return d + get_reverse(in, m->special + lz_special_at(slot), bits);
    d += get_even(in, bits - LZ_ALIGN) << LZ_ALIGN;
    return d + get_reverse(in, m->align, LZ_ALIGN);
}

/* Which of the last distances, moved to the front; false: one more byte from the last one. */
static bool get_rep(struct in *in, struct lz_model *m, unsigned state, unsigned place, uint32_t rep[LZ_REPS])
{
    unsigned k = 1;
    if (!get_bit(in, &m->is_not0[state]))
        return get_bit(in, &m->is_long0[state][place]);
    if (get_bit(in, &m->is_not1[state]))
        k = 2 + get_bit(in, &m->is_not2[state]);
    uint32_t d = rep[k];
    for (; k; k--)
        rep[k] = rep[k - 1];
    rep[0] = d;
    return true;
}

static enum skf_err get_all(struct in *in, struct lz_model *m, uint8_t *out, size_t n)
{
    uint32_t rep[LZ_REPS] = {0};
    unsigned state = 0, len;
    for (size_t at = 0; at < n; at += len) {
        unsigned place = at % LZ_PLACES, before = at ? out[at - 1] : 0;
        len = 1;
        if (!get_bit(in, &m->is_match[state][place])) {
            unsigned expected = rep[0] < at ? out[at - 1 - rep[0]] : 0;
            out[at] = get_literal(in, m->literal[before >> (8 - LZ_LC)], state, expected);
            state = lz_after_literal(state);
            continue;
        }
        if (!get_bit(in, &m->is_rep[state])) {
            memmove(rep + 1, rep, sizeof rep - sizeof *rep);
            len = get_len(in, &m->len, place);
            rep[0] = get_distance(in, m, len);
            state = lz_after_match(state);
        } else if (get_rep(in, m, state, place, rep)) {
            len = get_len(in, &m->rep_len, place);
            state = lz_after_rep(state);
        } else {
            state = lz_after_short(state);
        }
        if (rep[0] >= at || len > n - at)
            return SKF_ERR_FORMAT;
        const uint8_t *from = out + at - 1 - rep[0];
        for (unsigned i = 0; i < len; i++) /* they may overlap: byte after byte */
            out[at + i] = from[i];
    }
    fill(in);
    return in->is_short || in->p != in->end || in->code != 0 ? SKF_ERR_FORMAT : SKF_OK;
}

enum skf_err skf_lz_get(struct skf_area *model, const uint8_t *p, size_t n, uint8_t *out, size_t out_n)
{
    if (n < 5 || p[0] >= SKF_LZ_FILTERS || out_n == 0 || out_n > SKD_PACK_MAX)
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_area_need(model, sizeof(struct lz_model)));
    struct lz_model *m = (struct lz_model *)(void *)model->p;
    skf_lz_model_init(m);
    struct in in = {.p = p + 5, .end = p + n, .range = UINT32_MAX, .code = (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4]};
    SKF_TRY(get_all(&in, m, out, out_n));
    skf_lz_filter((enum skf_lz_filter)p[0], out, out_n, false);
    return SKF_OK;
}
