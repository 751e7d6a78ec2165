/*
 * A packed piece, written (lz_priv.h): of all ways to say the next few thousand bytes the cheapest by the probabilities as they are, found place
 * after place; then these are said, and the probabilities learn.
 */
#include <math.h>
#include <string.h>

#include "delta/lz_find_priv.h"

/* ---- bits ------------------------------------------------------------------------------------------------------------------- */
struct out {
    struct skf_buf *to;
    uint64_t low;
    uint32_t range;
    uint8_t held; /* a byte that a carry may still change, */
    uint64_t more; /* and how many of 0xff behind it; UINT64_MAX: nothing is held */
};

static enum skf_err shift(struct out *o)
{
    if (o->low < 0xff000000u || o->low >> 32) {
        uint8_t carry = (uint8_t)(o->low >> 32);
        if (o->more != UINT64_MAX) { /* the first one is always 0, and not written */
            SKF_TRY(skf_buf_u8(o->to, (uint8_t)(o->held + carry)));
            for (; o->more; o->more--)
                SKF_TRY(skf_buf_u8(o->to, (uint8_t)(0xff + carry)));
        }
        o->held = (uint8_t)(o->low >> 24);
        o->more = 0;
    } else {
        o->more++;
    }
    o->low = (o->low & 0xffffff) << 8;
    return SKF_OK;
}

static enum skf_err put_bit(struct out *o, struct lz_bit *b, unsigned bit)
{
    uint32_t bound = (o->range >> 16) * lz_zero(b);
    if (bit) {
        o->low += bound;
        o->range -= bound;
    } else {
        o->range = bound;
    }
    lz_learn(b, bit);
    if (o->range >> 24)
        return SKF_OK;
    o->range <<= 8;
    return shift(o);
}

static enum skf_err put_tree(struct out *o, struct lz_bit *b, unsigned bits, unsigned v)
{
    for (unsigned m = 1, i = bits; i-- > 0;) {
        unsigned bit = v >> i & 1;
        SKF_TRY(put_bit(o, &b[m], bit));
        m = m << 1 | bit;
    }
    return SKF_OK;
}

static enum skf_err put_reverse(struct out *o, struct lz_bit *b, unsigned bits, unsigned v)
{
    for (unsigned m = 1, i = 0; i < bits; i++) {
        unsigned bit = v >> i & 1;
        SKF_TRY(put_bit(o, &b[m], bit));
        m = m << 1 | bit;
    }
    return SKF_OK;
}

static enum skf_err put_even(struct out *o, unsigned bits, uint32_t v)
{
    while (bits-- > 0) {
        o->range >>= 1;
        if (v >> bits & 1)
            o->low += o->range;
        if (o->range >> 24)
            continue;
        o->range <<= 8;
        SKF_TRY(shift(o));
    }
    return SKF_OK;
}

/* ---- what bits cost, in 1/64 of a bit ---------------------------------------------------------------------------------------------- */
#define COST_BITS 12
#define UNIT 64
struct costs {
    uint16_t of[1 << COST_BITS]; /* by probability */
    uint32_t len[LZ_PLACES][LZ_LEN_MAX + 1], rep_len[LZ_PLACES][LZ_LEN_MAX + 1];
    uint32_t slot[4][LZ_SLOTS], near[4][128], align[1u << LZ_ALIGN];
};
static inline uint32_t cost(const struct costs *c, const struct lz_bit *b, unsigned bit)
{
    uint32_t p = lz_zero(b) >> (16 - COST_BITS);
    return c->of[bit ? (1u << COST_BITS) - 1 - p : p];
}

static void costs_init(struct costs *c)
{
    for (int i = 0; i < 1 << COST_BITS; i++)
        c->of[i] = (uint16_t)(0.5 - UNIT * log2((i + 0.5) / (1 << COST_BITS)));
}

static uint32_t tree_cost(const struct costs *c, const struct lz_bit *b, unsigned bits, unsigned v)
{
    uint32_t sum = 0;
    for (unsigned m = 1, i = bits; i-- > 0;) {
        unsigned bit = v >> i & 1;
        sum += cost(c, &b[m], bit);
        m = m << 1 | bit;
    }
    return sum;
}

static uint32_t reverse_cost(const struct costs *c, const struct lz_bit *b, unsigned bits, unsigned v)
{
    uint32_t sum = 0;
    for (unsigned m = 1, i = 0; i < bits; i++) {
        unsigned bit = v >> i & 1;
        sum += cost(c, &b[m], bit);
        m = m << 1 | bit;
    }
    return sum;
}

static void len_costs(const struct costs *c, const struct lz_len *l, uint32_t out[LZ_PLACES][LZ_LEN_MAX + 1])
{
    for (unsigned place = 0; place < LZ_PLACES; place++)
        for (unsigned n = 0; n <= LZ_LEN_MAX - LZ_LEN_MIN; n++)
            out[place][n + LZ_LEN_MIN] = n < 8    ? cost(c, &l->is_mid, 0) + tree_cost(c, l->low[place], 3, n)
                                         : n < 16 ? cost(c, &l->is_mid, 1) + cost(c, &l->is_high, 0) + tree_cost(c, l->mid[place], 3, n - 8)
                                                  : cost(c, &l->is_mid, 1) + cost(c, &l->is_high, 1) + tree_cost(c, l->high, 8, n - 16);
}

static inline unsigned slot_of(uint32_t d)
{
    if (d < 4)
        return d;
    unsigned k = 31 - (unsigned)__builtin_clz(d);
    return 2 * k + (d >> (k - 1) & 1);
}

static void costs_of(struct costs *c, const struct lz_model *m)
{
    len_costs(c, &m->len, c->len);
    len_costs(c, &m->rep_len, c->rep_len);
    for (unsigned k = 0; k < 4; k++) {
        for (unsigned s = 0; s < LZ_SLOTS; s++)
            c->slot[k][s] = tree_cost(c, m->slot[k], 6, s) + (s >= 14 ? UNIT * ((s >> 1) - 1 - LZ_ALIGN) : 0);
        for (uint32_t d = 0; d < 128; d++) {
            unsigned s = slot_of(d), bits = (s >> 1) - 1;
            c->near[k][d] = c->slot[k][s] + (s < 4 ? 0 : reverse_cost(c, m->special + lz_special_at(s), bits, d & ((1u << bits) - 1)));
        }
    }
    for (unsigned v = 0; v < 1u << LZ_ALIGN; v++)
        c->align[v] = reverse_cost(c, m->align, LZ_ALIGN, v);
}

static inline uint32_t distance_cost(const struct costs *c, unsigned class, uint32_t d)
{
    return d < 128 ? c->near[class][d] : c->slot[class][slot_of(d)] + c->align[d & ((1u << LZ_ALIGN) - 1)];
}

/* ---- steps ------------------------------------------------------------------------------------------------------------------ */
enum { LITERAL = -2, SHORT = -1 /* one byte from the last distance; 0 to 3 a last distance */, MATCH = 4 };
struct node { /* the cheapest way to a place */
    uint32_t cost, from, distance;
    int32_t how;
    uint32_t state, rep[LZ_REPS];
};
#define BLOCK 4096u

struct packer {
    const uint8_t *p;
    uint32_t n, at;
    struct out o;
    struct lz_model *m;
    struct lz_finder find;
    struct node *node; /* of BLOCK + LZ_LEN_MAX places from `at` on */
    uint32_t end;      /* the last of them that there is a way to */
    unsigned state;
    uint32_t rep[LZ_REPS];
    struct costs c;
};

static void step(unsigned *state, uint32_t rep[LZ_REPS], int how, uint32_t distance)
{
    if (how == LITERAL) {
        *state = lz_after_literal(*state);
    } else if (how == SHORT) {
        *state = lz_after_short(*state);
    } else {
        uint32_t d = how == MATCH ? distance : rep[how];
        for (unsigned k = how == MATCH ? 3 : (unsigned)how; k; k--)
            rep[k] = rep[k - 1];
        rep[0] = d;
        *state = how == MATCH ? lz_after_match(*state) : lz_after_rep(*state);
    }
}

static uint32_t literal_cost(const struct packer *k, uint32_t at, unsigned state, uint32_t rep0)
{
    const struct lz_bit *b = k->m->literal[(at ? k->p[at - 1] : 0) >> (8 - LZ_LC)];
    unsigned m = 1, byte = k->p[at], i = 8, expected = rep0 < at ? k->p[at - 1 - rep0] : 0, same = 0x100;
    uint32_t sum = 0;
    if (state < 7)
        return tree_cost(&k->c, b, 8, byte);
    while (i-- > 0) {
        unsigned bit = byte >> i & 1;
        expected <<= 1;
        sum += cost(&k->c, &b[same + (expected & same) + m], bit);
        m = m << 1 | bit;
        same &= bit ? expected : ~expected;
    }
    return sum;
}

static inline void reach(struct packer *k, uint32_t from, uint32_t len, uint32_t sum, int how, uint32_t distance)
{
    while (k->end < from + len)
        k->node[++k->end].cost = UINT32_MAX;
    struct node *t = &k->node[from + len];
    if (sum < t->cost)
        *t = (struct node){.cost = sum, .from = from, .distance = distance, .how = how};
}

/* All ways on from place i of the block, which is reached by the cheapest way already. A long match found there is left to the caller. */
static void spread(struct packer *k, uint32_t i, const struct lz_match *match, unsigned matches)
{
    const struct node *t = &k->node[i];
    const struct lz_model *m = k->m;
    const struct costs *c = &k->c;
    const uint32_t at = k->at + i, most = SKF_MIN(k->n - at, LZ_LEN_MAX), base = t->cost;
    const unsigned s = t->state, place = at % LZ_PLACES;
    const uint32_t hit = base + cost(c, &m->is_match[s][place], 1), rep = hit + cost(c, &m->is_rep[s], 1);
    reach(k, i, 1, base + cost(c, &m->is_match[s][place], 0) + literal_cost(k, at, s, t->rep[0]), LITERAL, 0);
    for (unsigned r = 0; r < LZ_REPS; r++) {
        if (t->rep[r] >= at)
            continue;
        uint32_t len = lz_common(k->p + at - 1 - t->rep[r], k->p + at, 0, most), which;
        if (r == 0) {
            which = cost(c, &m->is_not0[s], 0);
            if (len)
                reach(k, i, 1, rep + which + cost(c, &m->is_long0[s][place], 0), SHORT, 0);
            which += cost(c, &m->is_long0[s][place], 1);
        } else {
            which = cost(c, &m->is_not0[s], 1) + cost(c, &m->is_not1[s], r > 1);
            which += r > 1 ? cost(c, &m->is_not2[s], r > 2) : 0;
        }
        for (uint32_t l = LZ_LEN_MIN; l <= len; l++)
            reach(k, i, l, rep + which + c->rep_len[place][l], (int)r, 0);
    }
    const uint32_t new = hit + cost(c, &m->is_rep[s], 0);
    for (uint32_t j = 0, l = LZ_LEN_MIN; j < matches; j++)
        for (; l <= match[j].len; l++)
            reach(k, i, l, new + c->len[place][l] + distance_cost(c, lz_len_class(l), match[j].distance), MATCH, match[j].distance);
}

static enum skf_err put_literal(struct packer *k, uint32_t at)
{
    struct lz_bit *b = k->m->literal[(at ? k->p[at - 1] : 0) >> (8 - LZ_LC)];
    unsigned m = 1, byte = k->p[at], expected = k->rep[0] < at ? k->p[at - 1 - k->rep[0]] : 0, same = 0x100;
    if (k->state < 7)
        return put_tree(&k->o, b, 8, byte);
    for (unsigned i = 8; i-- > 0;) {
        unsigned bit = byte >> i & 1;
        expected <<= 1;
        SKF_TRY(put_bit(&k->o, &b[same + (expected & same) + m], bit));
        m = m << 1 | bit;
        same &= bit ? expected : ~expected;
    }
    return SKF_OK;
}

static enum skf_err put_len(struct packer *k, struct lz_len *l, unsigned place, unsigned len)
{
    unsigned n = len - LZ_LEN_MIN;
    SKF_TRY(put_bit(&k->o, &l->is_mid, n >= 8));
    if (n < 8)
        return put_tree(&k->o, l->low[place], 3, n);
    SKF_TRY(put_bit(&k->o, &l->is_high, n >= 16));
    return n < 16 ? put_tree(&k->o, l->mid[place], 3, n - 8) : put_tree(&k->o, l->high, 8, n - 16);
}

static enum skf_err put_distance(struct packer *k, unsigned len, uint32_t d)
{
    unsigned slot = slot_of(d), bits = (slot >> 1) - 1;
    SKF_TRY(put_tree(&k->o, k->m->slot[lz_len_class(len)], 6, slot));
    if (slot < 4)
        return SKF_OK;
    uint32_t rest = d & ((1u << bits) - 1);
    if (slot < 14)
        return put_reverse(&k->o, k->m->special + lz_special_at(slot), bits, rest);
    SKF_TRY(put_even(&k->o, bits - LZ_ALIGN, rest >> LZ_ALIGN));
    return put_reverse(&k->o, k->m->align, LZ_ALIGN, rest & ((1u << LZ_ALIGN) - 1));
}

static enum skf_err put_step(struct packer *k, uint32_t at, uint32_t len, int how, uint32_t distance)
{
    struct lz_model *m = k->m;
    const unsigned s = k->state, place = at % LZ_PLACES;
    SKF_TRY(put_bit(&k->o, &m->is_match[s][place], how != LITERAL));
    if (how == LITERAL) {
        SKF_TRY(put_literal(k, at));
    } else if (how == MATCH) {
        SKF_TRY(put_bit(&k->o, &m->is_rep[s], 0));
        SKF_TRY(put_len(k, &m->len, place, len));
        SKF_TRY(put_distance(k, len, distance));
    } else {
        SKF_TRY(put_bit(&k->o, &m->is_rep[s], 1));
        SKF_TRY(put_bit(&k->o, &m->is_not0[s], how > 0));
        if (how <= 0)
            SKF_TRY(put_bit(&k->o, &m->is_long0[s][place], how == 0));
        if (how > 0)
            SKF_TRY(put_bit(&k->o, &m->is_not1[s], how > 1));
        if (how > 1)
            SKF_TRY(put_bit(&k->o, &m->is_not2[s], how > 2));
        if (how != SHORT)
            SKF_TRY(put_len(k, &m->rep_len, place, len));
    }
    step(&k->state, k->rep, how, distance);
    return SKF_OK;
}

/* The way to place `end` of the block, said from its beginning. */
static enum skf_err put_way(struct packer *k, uint32_t end)
{
    uint32_t next = 0;
    for (uint32_t i = end; i;) { /* turned round: `from` becomes where it leads to */
        uint32_t from = k->node[i].from;
        k->node[i].from = next;
        next = i;
        i = from;
    }
    for (uint32_t i = 0; i < end;) {
        const struct node *t = &k->node[next];
        SKF_TRY(put_step(k, k->at + i, next - i, t->how, t->distance));
        i = next;
        next = t->from;
    }
    k->at += end;
    return SKF_OK;
}

/* What is longer than any way need be looked for: the longest of the last distances and of what was found. */
static uint32_t longest(const struct packer *k, const struct node *t, uint32_t at, const struct lz_match *match, unsigned matches, int *how,
                        uint32_t *distance)
{
    uint32_t most = SKF_MIN(k->n - at, LZ_LEN_MAX), best = 0;
    for (unsigned r = 0; r < LZ_REPS; r++) {
        uint32_t len = t->rep[r] < at ? lz_common(k->p + at - 1 - t->rep[r], k->p + at, 0, most) : 0;
        if (len > best) {
            best = len;
            *how = (int)r;
        }
    }
    if (best < LZ_NICE && matches && match[matches - 1].len >= LZ_NICE) {
        *distance = match[matches - 1].distance;
        *how = MATCH;
        best = lz_common(k->p + at - 1 - *distance, k->p + at, 0, most);
    }
    return best;
}

static enum skf_err put_block(struct packer *k)
{
    struct lz_match match[LZ_NICE + 4];
    struct node *t = k->node;
    costs_of(&k->c, k->m);
    *t = (struct node){.state = k->state};
    memcpy(t->rep, k->rep, sizeof k->rep);
    k->end = 0;
    for (uint32_t i = 0;; t = &k->node[++i]) {
        if (i) {
            const struct node *from = &k->node[t->from];
            t->state = from->state;
            memcpy(t->rep, from->rep, sizeof t->rep);
            step(&t->state, t->rep, t->how, t->distance);
        }
        if ((i && i == k->end && i > 64) || i >= BLOCK || k->at + i == k->n)
            return put_way(k, i);
        unsigned matches = lz_find(&k->find, k->at + i, match);
        int how = 0;
        uint32_t distance = 0, len = longest(k, t, k->at + i, match, matches, &how, &distance);
        if (len >= LZ_NICE) {
            SKF_TRY(put_way(k, i));
            SKF_TRY(put_step(k, k->at, len, how, distance));
            for (uint32_t j = 1; j < len; j++)
                lz_skip(&k->find, k->at + j);
            k->at += len;
            return SKF_OK;
        }
        spread(k, i, match, matches);
    }
}

/* ---- all of it --------------------------------------------------------------------------------------------------------------- */
static enum skf_lz_filter filter_of(const uint8_t *p, size_t n)
{
    size_t x86 = 0, arm = 0;
    for (size_t i = 0; i + 8 <= n; i += 4) {
        for (size_t j = i; j < i + 4 && j + 5 <= n; j++)
            x86 += p[j] == 0xe8 && (p[j + 4] == 0 || p[j + 4] == 0xff);
        arm += skf_le32(p + i) >> 26 == 0x25;
    }
    if (arm > n / 160 && arm > 2 * x86) /* of noise it is one word in 64 */
        return SKF_LZ_ARM64;
    return x86 > n / 400 ? SKF_LZ_X86 : SKF_LZ_PLAIN;
}

void skf_lz_room_free(struct skf_lz_room *r)
{
    skf_area_free(&r->model);
    skf_area_free(&r->tree);
    skf_area_free(&r->heads);
    skf_area_free(&r->nodes);
    skf_area_free(&r->text);
}

enum skf_err skf_lz_put(struct skf_lz_room *r, const uint8_t *p, size_t n, struct skf_buf *out)
{
    enum skf_lz_filter f = filter_of(p, n);
    SKF_TRY(skf_area_need(&r->model, sizeof(struct lz_model)));
    SKF_TRY(skf_area_need(&r->nodes, (BLOCK + LZ_LEN_MAX + 1) * sizeof(struct node) + sizeof(struct packer)));
    if (f != SKF_LZ_PLAIN) {
        SKF_TRY(skf_area_need(&r->text, n));
        memcpy(r->text.p, p, n);
        skf_lz_filter(f, r->text.p, n, true);
        p = r->text.p;
    }
    struct packer *k = (struct packer *)(void *)r->nodes.p;
    *k = (struct packer){.p = p, .n = (uint32_t)n, .o = {.to = out, .range = UINT32_MAX, .more = UINT64_MAX}};
    k->node = (struct node *)(void *)(k + 1);
    k->m = (struct lz_model *)(void *)r->model.p;
    skf_lz_model_init(k->m);
    costs_init(&k->c);
    SKF_TRY(lz_finder_init(&k->find, r, p, (uint32_t)n));
    SKF_TRY(skf_buf_u8(out, (uint8_t)f));
    while (k->at < k->n) {
        if (r->progress && is_cancelled(r->progress))
            return SKF_ERR_CANCELLED;
        SKF_TRY(put_block(k));
    }
    for (unsigned i = 0; i < 5; i++)
        SKF_TRY(shift(&k->o));
    return SKF_OK;
}
