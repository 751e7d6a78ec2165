/* Spots as bits (spots_priv.h). */
#include "delta/spots_priv.h"

#include <string.h>

#define DEPTH    40 /* spans that wait: one for each halving */
#define RICE_MAX 14 /* the highest parameter of a Rice code; one more: every number is 0 and has no bits */
#define ONES_MAX 24 /* a quotient of so many is followed by the number itself, in NUMBER_BITS */
#define NUMBER_BITS 20

/* ---- numbers ----------------------------------------------------------------------------------------------------------------- */
/* A number below n, all about alike likely; those in the middle are a bit shorter where n is no power of two. */
struct even {
    uint32_t n, shorter;
    unsigned bits;
};
static struct even even_of(uint32_t n)
{
    unsigned bits = n > 1 ? 32 - (unsigned)__builtin_clz(n - 1) : 0;
    return (struct even){n, (uint32_t)((1ull << bits) - n), bits};
}

static void put_even(struct skf_bits_out *b, uint32_t v, uint32_t n)
{
    struct even e = even_of(n);
    uint32_t begin = (n - e.shorter) / 2;
    if (e.bits == 0)
        return;
    v = v < begin ? v + n - begin : v - begin;
    if (v < e.shorter) {
        skf_bits_put(b, v, e.bits - 1);
    } else {
        v += e.shorter;
        skf_bits_put(b, v >> 1, e.bits - 1);
        skf_bits_put(b, v & 1, 1);
    }
}

static bool get_even(struct word_bits *b, uint32_t n, uint32_t *v)
{
    struct even e = even_of(n);
    uint64_t low, last;
    *v = 0;
    if (e.bits == 0)
        return true;
    if (!word_take(b, e.bits - 1, &low))
        return false;
    if (low >= e.shorter) {
        if (!word_take(b, 1, &last))
            return false;
        low = (low << 1 | last) - e.shorter;
    }
    low += (n - e.shorter) / 2;
    *v = (uint32_t)(low < n ? low : low - n);
    return true;
}

static void put_rice(struct skf_bits_out *b, uint32_t v, unsigned k)
{
    if (k > RICE_MAX)
        return;
    if (v >> k >= ONES_MAX) {
        skf_bits_put(b, (1u << ONES_MAX) - 1, ONES_MAX);
        skf_bits_put(b, v, NUMBER_BITS);
        return;
    }
    skf_bits_put(b, (1ull << (v >> k)) - 1, (v >> k) + 1);
    skf_bits_put(b, v & ((1u << k) - 1), k);
}

static bool get_rice(struct word_bits *b, unsigned k, uint32_t *v)
{
    uint64_t rest;
    *v = 0;
    if (k > RICE_MAX)
        return true;
    unsigned ones = (unsigned)__builtin_ctzll(~word_peek(b) | 1ull << ONES_MAX), is_far = ones == ONES_MAX;
    if (ones + !is_far > b->end - b->at)
        return false;
    b->at += ones + !is_far;
    if (!word_take(b, is_far ? NUMBER_BITS : k, &rest))
        return false;
    *v = (uint32_t)(is_far ? rest : (uint64_t)ones << k | rest);
    return true;
}

/* The parameter that numbers of this sum want: whoever decodes is told. */
static uint64_t rice_cost(uint32_t v, unsigned k)
{
    return v >> k >= ONES_MAX ? ONES_MAX + NUMBER_BITS : (v >> k) + 1 + k;
}
static unsigned best_rice(const uint64_t *cost, bool is_all_0)
{
    unsigned best = 0;
    for (unsigned k = 1; k <= RICE_MAX; k++)
        best = cost[k] < cost[best] ? k : best;
    return is_all_0 ? RICE_MAX + 1 : best;
}

/* ---- sorted numbers ---------------------------------------------------------------------------------------------------------- */
struct span { /* numbers first .. end - 1 lie in low .. below - 1 */
    uint32_t first, end, low, below;
};

/* The number in the middle of a span can be one of so many; the least is *low. */
static inline uint32_t middle_of(const struct span *t, uint32_t *m, uint32_t *low)
{
    *m = t->first + (t->end - t->first) / 2;
    *low = t->low + (*m - t->first);
    return t->below - t->low - (t->end - t->first) + 1;
}

/* Number i of the sorted ones is p[i * stride], below `below`. */
static void put_sorted(struct skf_bits_out *b, const uint32_t *p, size_t stride, uint32_t n, uint32_t below)
{
    struct span wait[DEPTH];
    unsigned k = 0;
    wait[k++] = (struct span){0, n, 0, below};
    while (k) {
        struct span t = wait[--k];
        while (t.first < t.end) {
            uint32_t m, low, room = middle_of(&t, &m, &low), v = p[m * stride];
            put_even(b, v - low, room);
            wait[k++] = (struct span){m + 1, t.end, v + 1, t.below};
            t.end = m;
            t.below = v;
        }
    }
}

static bool get_sorted(struct word_bits *b, uint32_t *p, uint32_t n, uint32_t below)
{
    struct span wait[DEPTH];
    unsigned k = 0;
    wait[k++] = (struct span){0, n, 0, below};
    while (k) {
        struct span t = wait[--k];
        while (t.first < t.end) {
            uint32_t m, low, room = middle_of(&t, &m, &low), v;
            if (!get_even(b, room, &v))
                return false;
            v += low;
            p[m] = v;
            wait[k++] = (struct span){m + 1, t.end, v + 1, t.below};
            t.end = m;
            t.below = v;
        }
    }
    return true;
}

/* ---- spots ------------------------------------------------------------------------------------------------------------------- */
/* Spots as they are sent: line by line, `row` and `column` being the line and the place in it. */
struct lines {
    const struct skf_spot *spot;
    uint32_t n, lines, length;
};

/* Calls for the spots of each line that has some: *end is where the next line begins. */
static uint32_t end_of_line(const struct lines *l, uint32_t i)
{
    uint32_t end = i + 1;
    while (end < l->n && l->spot[end].row == l->spot[i].row)
        end++;
    return end;
}

/* The lines that change, sorted, into `list`; the best parameters for how often, and by how much. */
static uint32_t survey(const struct lines *l, uint32_t *list, unsigned *rice)
{
    uint64_t often[RICE_MAX + 1] = {0}, much[RICE_MAX + 1] = {0};
    bool is_once = true, is_unit = true;
    uint32_t many = 0;
    for (uint32_t i = 0, end; i < l->n; i = end, many++) {
        end = end_of_line(l, i);
        list[many] = l->spot[i].row;
        is_once = is_once && end == i + 1;
        for (unsigned k = 0; k <= RICE_MAX; k++)
            often[k] += rice_cost(end - i - 1, k);
    }
    for (uint32_t i = 0; i < l->n; i++) {
        uint32_t size = (uint32_t)(l->spot[i].d < 0 ? -l->spot[i].d : l->spot[i].d) - 1;
        is_unit = is_unit && size == 0;
        for (unsigned k = 0; k <= RICE_MAX; k++)
            much[k] += rice_cost(size, k);
    }
    rice[0] = best_rice(often, is_once);
    rice[1] = best_rice(much, is_unit);
    return many;
}

/* `list` has room for l->n numbers. */
static void put_lines(struct skf_bits_out *b, const struct lines *l, uint32_t *list)
{
    unsigned rice[2];
    uint32_t many = survey(l, list, rice);
    put_even(b, many, l->lines + 1);
    put_sorted(b, list, 1, many, l->lines);
    skf_bits_put(b, rice[0] | rice[1] << 4, 8);
    for (uint32_t i = 0, end; i < l->n; i = end) {
        end = end_of_line(l, i);
        put_rice(b, end - i - 1, rice[0]);
    }
    for (uint32_t i = 0, end; i < l->n; i = end) {
        end = end_of_line(l, i);
        put_sorted(b, &l->spot[i].column, sizeof l->spot[i] / sizeof l->spot[i].column, end - i, l->length);
        for (uint32_t k = i; k < end; k++) {
            int32_t d = l->spot[k].d;
            skf_bits_put(b, d < 0, 1);
            put_rice(b, (uint32_t)(d < 0 ? -d : d) - 1, rice[1]);
        }
    }
}

/* By columns, `row` and `column` exchanged. */
static void turn(const struct skf_spots *s, uint32_t *count, struct skf_spot *out)
{
    uint32_t sum = 0;
    memset(count, 0, s->columns * sizeof *count);
    for (uint32_t i = 0; i < s->n; i++)
        count[s->spot[i].column]++;
    for (uint32_t c = 0; c < s->columns; c++) {
        uint32_t n = count[c];
        count[c] = sum;
        sum += n;
    }
    for (uint32_t i = 0; i < s->n; i++)
        out[count[s->spot[i].column]++] = (struct skf_spot){s->spot[i].column, s->spot[i].row, s->spot[i].d};
}

enum skf_err skf_spots_put(struct skf_area *list, struct skf_bits_out *b, const struct skf_spots *s)
{
    SKF_TRY(skf_area_need(list, s->n * (sizeof(struct skf_spot) + sizeof(uint32_t)) + s->columns * sizeof(uint32_t) + 1));
    struct skf_spot *turned = (struct skf_spot *)(void *)list->p;
    uint32_t *lines = (uint32_t *)(void *)(turned + s->n), *count = lines + s->n;
    struct skf_bits_out begun = *b;
    skf_bits_put(b, 0, 1);
    put_lines(b, &(struct lines){s->spot, s->n, s->rows, s->columns}, lines);
    if (s->rows == 1 || !s->n)
        return SKF_OK;
    /* The other way round behind it, and over it where that is shorter. */
    uint8_t *begin = b->p + 8;
    struct skf_bits_out other = {begin, begun.acc, begun.have};
    turn(s, count, turned);
    skf_bits_put(&other, 1, 1);
    put_lines(&other, &(struct lines){turned, s->n, s->columns, s->rows}, lines);
    const size_t mine = (size_t)(b->p - begun.p), its = (size_t)(other.p - begin);
    if (its > mine || (its == mine && other.have >= b->have))
        return SKF_OK;
    memmove(begun.p, begin, its + 8);
    *b = (struct skf_bits_out){begun.p + its, other.acc, other.have};
    return SKF_OK;
}

struct reading {
    struct word_bits *b;
    uint32_t *line, *many, *place; /* lines, spots of each, and where they are in one */
    uint32_t n, lines, length;
    unsigned rice;
    bool is_turned;
};

static bool get_line(const struct reading *r, uint32_t i, skf_spot_fn *fn, void *ctx)
{
    if (!get_sorted(r->b, r->place, r->many[i], r->length))
        return false;
    for (uint32_t k = 0; k < r->many[i]; k++) {
        uint64_t minus;
        uint32_t size, row = r->line[i], column = r->place[k];
        if (!word_take(r->b, 1, &minus) || !get_rice(r->b, r->rice, &size))
            return false;
        int32_t d = minus ? -(int32_t)size - 1 : (int32_t)size + 1;
        if (!fn(ctx, r->is_turned ? column : row, r->is_turned ? row : column, d))
            return false;
    }
    return true;
}

enum skf_err skf_spots_get(struct skf_area *list, struct word_bits *b, uint32_t rows, uint32_t columns, skf_spot_fn *fn,
                           void *ctx)
{
    const uint64_t most = SPOTS_MOST((uint64_t)rows * columns);
    struct reading r = {.b = b};
    uint64_t turned, rice, left = most;
    if (!word_take(b, 1, &turned))
        return SKF_ERR_FORMAT;
    r.is_turned = turned;
    r.lines = turned ? columns : rows;
    r.length = turned ? rows : columns;
    if (!get_even(b, r.lines + 1, &r.n) || r.n > most)
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_area_need(list, (2 * (size_t)r.n + SKF_MIN(r.length, most) + 1) * sizeof(uint32_t)));
    r.line = (uint32_t *)(void *)list->p;
    r.many = r.line + r.n;
    r.place = r.many + r.n;
    if (!get_sorted(b, r.line, r.n, r.lines) || !word_take(b, 8, &rice))
        return SKF_ERR_FORMAT;
    for (uint32_t i = 0; i < r.n; i++) {
        if (!get_rice(b, rice & 15, &r.many[i]) || r.many[i]++ >= r.length || r.many[i] > left)
            return SKF_ERR_FORMAT;
        left -= r.many[i];
    }
    r.rice = (unsigned)(rice >> 4);
    for (uint32_t i = 0; i < r.n; i++)
        if (!get_line(&r, i, fn, ctx))
            return SKF_ERR_FORMAT;
    return SKF_OK;
}
