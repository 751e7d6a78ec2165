/* Low-rank guesses (factor_priv.h): found by orthogonal iteration on rows spread over the tensor. */
#include "delta/factor_priv.h"

#include <math.h>
#include <string.h>

/* Rows that are looked at: first of all, while turning, and in the last turns; turns of each sort. */
#define ROWS_FIRST  64
#define ROWS_TURN   512
#define ROWS_LAST   4096
#define TURNS       4
#define EARLY 1 /* the turn after which hopeless searches end */
#define LAST_TURNS  2
#define ROWS_CHOICE 128
/* What the best direction must hold of the change to be worth looking closer; of 64 rows noise may show 1 / 16. */
#define WORTH 0.06
/* One element of so many must change. */
#define FEWEST 32
/* Bits that a number of v takes, about; and the step of u against the root mean square of what is left to each element.
 */
#define V_BITS 6.5
#define U_STEP 3.0

bool skf_factors_fit(uint64_t rows, uint64_t columns)
{
    return rows >= SKF_FACTOR_ROWS && columns >= SKF_FACTOR_ROWS && columns <= SKF_FACTOR_COLUMNS;
}

/* ---- finding v --------------------------------------------------------------------------------------------------- */
struct search {
    const struct skf_loops *loops;
    uint64_t rows;
    uint32_t columns;
    skf_row_fn *row;
    void *ctx;
    float *v, *next, *d;
};

/* Row i of `of` rows spread over the tensor. */
static enum skf_err row_at(const struct search *s, uint64_t i, uint64_t of)
{
    return s->row(s->ctx, of >= s->rows ? i : (uint64_t)((double)i * (double)s->rows / (double)of), s->d);
}

static void orthonormal(const struct search *s, unsigned rank)
{
    for (unsigned k = 0; k < rank; k++) {
        float *a = s->next + (size_t)k * s->columns;
        for (unsigned j = 0; j < k; j++) {
            const float *b = s->v + (size_t)j * s->columns;
            s->loops->add_scaled(a, b, -s->loops->dot(a, b, s->columns), s->columns);
        }
        float len = sqrtf(s->loops->dot(a, a, s->columns));
        for (uint32_t i = 0; i < s->columns; i++)
            s->v[(size_t)k * s->columns + i] = len > 0 ? a[i] / len : 0;
    }
}

/* v := the directions that `rank` rows of v turn to under one multiplication with the square of `of` rows, orthonormal.
 */
static enum skf_err turn(const struct search *s, uint64_t of, unsigned rank)
{
    of = SKF_MIN(of, s->rows);
    memset(s->next, 0, (size_t)rank * s->columns * sizeof *s->next);
    for (uint64_t i = 0; i < of; i++) {
        SKF_TRY(row_at(s, i, of));
        for (unsigned k = 0; k < rank; k++) {
            size_t at = (size_t)k * s->columns;
            s->loops->add_scaled(s->next + at, s->d, s->loops->dot(s->d, s->v + at, s->columns), s->columns);
        }
    }
    orthonormal(s, rank);
    return SKF_OK;
}

/* Whether so few elements of `of` rows change that their energy is that of a few places, which is no direction. */
static enum skf_err is_sparse(const struct search *s, uint64_t of, bool *is)
{
    uint64_t set = 0;
    of = SKF_MIN(of, s->rows);
    for (uint64_t i = 0; i < of; i++) {
        SKF_TRY(row_at(s, i, of));
        for (uint32_t j = 0; j < s->columns; j++)
            set += s->d[j] != 0;
    }
    *is = set < of * s->columns / FEWEST;
    return SKF_OK;
}

/* What each direction holds of the energy of `of` rows. */
static enum skf_err held(const struct search *s, uint64_t of, unsigned rank, double *each, double *all)
{
    of = SKF_MIN(of, s->rows);
    memset(each, 0, rank * sizeof *each);
    *all = 0;
    for (uint64_t i = 0; i < of; i++) {
        SKF_TRY(row_at(s, i, of));
        *all += s->loops->dot(s->d, s->d, s->columns);
        for (unsigned k = 0; k < rank; k++) {
            double x = s->loops->dot(s->d, s->v + (size_t)k * s->columns, s->columns);
            each[k] += x * x;
        }
    }
    return SKF_OK;
}

/* Bits that a number of u takes where its factor holds `energy` of each row and `left` stays to each of n elements. */
static double u_bits(double energy, double left, double n)
{
    return 0.5 * log2(1 + energy * n * 17.0 / (left * U_STEP * U_STEP)) + 0.1;
}

/* The rank at which the first directions save most. `fixed`: what each costs beyond its u. */
static unsigned earning(const double *each, double all, unsigned most, double rows, double columns, double gain,
                        double fixed)
{
    double left = all, best = 0;
    unsigned rank = 0;
    for (unsigned r = 1; r <= most && left > all * 1e-6; r++) {
        left -= each[r - 1];
        if (!(left > all * 1e-6))
            break;
        double saved = rows * columns * gain * log2(all / left) - fixed * r;
        for (unsigned k = 0; k < r; k++)
            saved -= rows * u_bits(each[k] / rows, left / rows, columns);
        if (saved > best) {
            best = saved;
            rank = r;
        }
    }
    return rank;
}

static int8_t small(float x)
{
    return (int8_t)(x > 127 ? 127 : x < -127 ? -127 : lrintf(x));
}
static uint8_t folded(int8_t x)
{
    return (uint8_t)((uint8_t)x << 1 ^ x >> 7);
}
static int8_t unfolded(uint8_t x)
{
    return (int8_t)(x >> 1 ^ -(x & 1));
}

/* v as integers of a common scale. */
static enum skf_err put_side(struct skf_work *w, const float *v, unsigned rank, uint32_t columns, struct skf_buf *out)
{
    float most = 0;
    size_t n = (size_t)rank * columns;
    SKF_TRY(skf_area_need(&w->sym, n));
    SKF_TRY(skf_area_need(&w->symkey, n));
    for (size_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(v[i]));
    for (size_t i = 0; i < n; i++) {
        w->sym.p[i] = folded(small(v[i] * 127 / most));
        w->symkey.p[i] = (uint8_t)(i / columns);
    }
    SKF_TRY(skf_buf_u8(out, (uint8_t)rank));
    return skf_syms_put(w, &(struct skf_syms){w->sym.p, w->symkey.p, (uint32_t)n}, out);
}

enum skf_err skf_factors_find(struct skf_work *w, uint64_t rows, uint32_t columns, double gain, skf_row_fn *row,
                              void *ctx, struct skf_buf *out)
{
    size_t each = (size_t)columns * SKF_RANK_MAX;
    double energy[SKF_RANK_MAX], all;
    if (!skf_factors_fit(rows, columns))
        return SKF_OK;
    SKF_TRY(skf_area_need(&w->sample, (2 * each + columns) * sizeof(float)));
    float *v = (float *)(void *)w->sample.p;
    struct search s = {skf_loops_of(w->isa), rows, columns, row, ctx, v, v + each, v + 2 * each};
    bool is_few;
    SKF_TRY(is_sparse(&s, ROWS_FIRST, &is_few));
    if (is_few)
        return SKF_OK;
    uint32_t noise = 12345;
    for (size_t i = 0; i < each; i++) {
        noise = noise * 1664525 + 1013904223;
        v[i] = (float)(int32_t)noise;
    }
    for (unsigned k = 0; k < 3; k++)
        SKF_TRY(turn(&s, ROWS_FIRST, 1));
    SKF_TRY(held(&s, ROWS_FIRST, 1, energy, &all));
    if (!(all > 0 && all < 1e30) || energy[0] < all * WORTH)
        return SKF_OK;
    unsigned most = SKF_MIN(SKF_RANK_MAX, columns / 4);
    double seen = (double)SKF_MIN(rows, (uint64_t)ROWS_TURN), share = seen / (double)rows;
    unsigned rank = 0;
    for (unsigned k = 0; k < TURNS; k++) {
        SKF_TRY(turn(&s, ROWS_TURN, most));
        if (k != EARLY)
            continue;
        SKF_TRY(held(&s, ROWS_TURN, most, energy, &all)); /* of the rows turned by: more than there is elsewhere */
        if (!earning(energy, all, most, seen, columns, gain, V_BITS * columns * share))
            return SKF_OK;
    }
    for (unsigned k = 0; k < LAST_TURNS; k++) {
        SKF_TRY(held(&s, ROWS_TURN, most, energy, &all));
        rank = earning(energy, all, most, seen, columns, gain, V_BITS * columns * share);
        if (!rank)
            return SKF_OK;
        SKF_TRY(turn(&s, ROWS_LAST, rank));
    }
    return put_side(w, v, rank, columns, out);
}

/* ---- a chunk's guess --------------------------------------------------------------------------------------------- */
static size_t whole(size_t columns)
{
    return (columns + 15) & ~(size_t)15;
}

/* v as bytes, for loops that take four products at once: of sixteen columns after another four ranks, then the next
 * four. */
static void pack(const float *v, unsigned rank, size_t columns, int8_t *out)
{
    memset(out, 0, whole(columns) * SKF_RANK_MAX);
    for (unsigned k = 0; k < rank; k++)
        for (size_t j = 0; j < columns; j++)
            out[j / 16 * 16 * SKF_RANK_MAX + k / 4 * 64 + j % 16 * 4 + k % 4] = (int8_t)v[k * columns + j];
}

/* Where they stand behind n floats: as vectors are loaded soonest. */
static uint8_t *packed_of(const struct skf_work *w, size_t n)
{
    uint8_t *p = w->side_v.p + n * sizeof(float);
    return p + (64 - (uintptr_t)p % 64) % 64;
}

/* What these loops begin with: they take u, which is signed, 128 higher. */
static void set_base(const struct skf_factors *f)
{
    if (!f->base)
        return;
    for (uint32_t j = 0; j < f->columns; j++) {
        const int8_t *q = f->packed + j / 16 * 16 * SKF_RANK_MAX + j % 16 * 4;
        int32_t sum = 0;
        for (unsigned k = 0; k < f->rank; k++)
            sum += q[k / 4 * 64 + k % 4];
        f->base[j] = -128 * sum;
    }
}

/* Areas, and v from the side (kept from chunk to chunk). *most is 0 where there is nothing to guess by. */
static enum skf_err open_side(struct skf_work *w, struct skf_factors *f, unsigned *most)
{
    *most = 0;
    f->rank = 0;
    f->loops = skf_loops_of(w->isa);
    if (!f->side_n || !skf_factors_fit(f->rows, f->columns))
        return SKF_OK;
    size_t nu = (size_t)f->rows * SKF_RANK_MAX, columns = f->columns;
    SKF_TRY(skf_area_need(&w->factor, columns * sizeof(float) + nu));
    f->guess = (float *)(void *)w->factor.p;
    f->u = (int8_t *)(f->guess + columns);
    if (w->side_n != f->side_n || w->side_columns != columns || memcmp(w->side.p, f->side, f->side_n) != 0) {
        uint8_t rank;
        struct skf_reader r = skf_reader_of(f->side, f->side_n);
        w->side_n = 0;
        SKF_TRY(skf_get_u8(&r, &rank));
        if (rank == 0 || rank > SKF_RANK_MAX)
            return SKF_ERR_FORMAT;
        size_t n = rank * columns;
        SKF_TRY(skf_area_need(&w->side, f->side_n));
        SKF_TRY(skf_area_need(&w->side_v, n * sizeof(float) + 64 + whole(columns) * (SKF_RANK_MAX + sizeof(int32_t))));
        SKF_TRY(skf_area_need(&w->sym, n));
        SKF_TRY(skf_area_need(&w->symkey, n));
        for (size_t i = 0; i < n; i++)
            w->symkey.p[i] = (uint8_t)(i / columns);
        SKF_TRY(skf_syms_get(w, &r, &(struct skf_syms){w->sym.p, w->symkey.p, (uint32_t)n}));
        if (skf_reader_left(&r))
            return SKF_ERR_FORMAT;
        for (size_t i = 0; i < n; i++)
            ((float *)(void *)w->side_v.p)[i] = unfolded(w->sym.p[i]);
        pack((const float *)(const void *)w->side_v.p, rank, columns, (int8_t *)packed_of(w, n));
        memcpy(w->side.p, f->side, f->side_n);
        w->side_n = f->side_n;
        w->side_columns = f->columns;
        w->side_rank = rank;
    }
    f->v = (const float *)(const void *)w->side_v.p;
    uint8_t *packed = packed_of(w, w->side_rank * columns);
    f->packed = (const int8_t *)packed;
    f->base = f->loops->guess_packed ? (int32_t *)(void *)(packed + whole(columns) * SKF_RANK_MAX) : NULL;
    *most = w->side_rank;
    return SKF_OK;
}

/* The step of u, as a number of five bits times a power of two. */
static bool set_unit(struct skf_factors *f, double step)
{
    int exponent;
    double m = frexp(step, &exponent) * 2 * SKF_UNIT_MIN; /* 16 to 32 */
    if (!(step > 0 && step < 1e30))
        return false;
    f->unit = SKF_MIN((unsigned)(m + 0.5), 2u * SKF_UNIT_MIN - 1);
    f->shift = exponent - 5;
    return f->shift >= -SKF_SHIFT_MAX && f->shift <= SKF_SHIFT_MAX;
}

float skf_factors_unit(const struct skf_factors *f)
{
    return ldexpf((float)f->unit, f->shift);
}

/* Rows of a chunk that are looked at before its rank is chosen. */
struct look {
    uint32_t rows;
    float *along; /* of each: how far it moved along each factor */
    float len[SKF_RANK_MAX];
    double energy[SKF_RANK_MAX], all;
};

static uint32_t looked_at(const struct skf_factors *f, const struct look *l, uint32_t i)
{
    return (uint32_t)((uint64_t)i * f->rows / l->rows);
}

static enum skf_err look(const struct skf_factors *f, const struct skf_choice *c, unsigned most, float *d,
                         struct look *l)
{
    const float *v = f->v;
    size_t n = f->columns;
    for (unsigned k = 0; k < most; k++)
        l->len[k] = f->loops->dot(v + k * n, v + k * n, f->columns);
    for (uint32_t i = 0; i < l->rows; i++) {
        SKF_TRY(c->row(c->ctx, looked_at(f, l, i), d));
        l->all += f->loops->dot(d, d, f->columns);
        for (unsigned k = 0; k < most; k++) {
            float x = l->len[k] > 0 ? f->loops->dot(d, v + k * n, f->columns) / l->len[k] : 0;
            l->along[i * SKF_RANK_MAX + k] = x;
            l->energy[k] += (double)x * x * l->len[k];
        }
    }
    return SKF_OK;
}

/* Rank and unit; false when there is no such unit. */
static bool set_rank(struct skf_factors *f, const struct look *l, unsigned rank)
{
    double left = l->all, mean = 0;
    for (unsigned k = 0; k < rank; k++) {
        left -= l->energy[k];
        mean += l->len[k] / rank;
    }
    f->rank = rank;
    left = fmax(left, l->all * 1e-6);
    if (rank && set_unit(f, U_STEP * sqrt(left / l->rows / f->columns / mean))) {
        set_base(f);
        return true;
    }
    f->rank = 0;
    return false;
}

/* What the rows looked at come to with `rank`, u included. */
static double trial(struct skf_factors *f, const struct look *l, const struct skf_choice *c, unsigned rank)
{
    uint32_t count[SKF_RANK_MAX][256] = {{0}};
    double bits = 0;
    if (rank && !set_rank(f, l, rank))
        return INFINITY;
    f->rank = rank;
    for (uint32_t i = 0; i < l->rows; i++) {
        uint32_t row = looked_at(f, l, i);
        for (unsigned k = 0; k < rank; k++) {
            int8_t u = small(l->along[i * SKF_RANK_MAX + k] / skf_factors_unit(f));
            f->u[(size_t)row * rank + k] = u;
            count[k][folded(u)]++;
        }
        c->add(c->ctx, f, row);
    }
    for (unsigned k = 0; k < rank; k++)
        for (unsigned i = 0; i < 256; i++)
            bits += count[k][i] ? count[k][i] * log2((double)l->rows / count[k][i]) : 0;
    return bits + c->bits(c->ctx);
}

static unsigned best_rank(struct skf_factors *f, const struct look *l, const struct skf_choice *c, unsigned most)
{
    static const uint8_t ranks[] = {1, 2, 3, 4, 6, 8, 11, 16};
    if (!c->add)
        return earning(l->energy, l->all, most, l->rows, f->columns, c->gain, 8);
    unsigned best = 0;
    double least = trial(f, l, c, 0);
    for (size_t k = 0; k < SKF_COUNT(ranks) && (k == 0 || ranks[k - 1] < most); k++) {
        unsigned rank = SKF_MIN(ranks[k], most);
        double bits = trial(f, l, c, rank);
        if (bits > least * 1.01)
            break;
        if (bits < least) {
            least = bits;
            best = rank;
        }
    }
    return best;
}

enum skf_err skf_factors_choose(struct skf_work *w, struct skf_factors *f, const struct skf_choice *c)
{
    unsigned most;
    SKF_TRY(open_side(w, f, &most));
    if (!most)
        return SKF_OK;
    struct look l = {.rows = SKF_MIN(f->rows, (uint32_t)ROWS_CHOICE)};
    SKF_TRY(skf_area_need(&w->sample, ((size_t)l.rows * SKF_RANK_MAX + f->columns) * sizeof(float)));
    l.along = (float *)(void *)w->sample.p;
    float *d = l.along + (size_t)l.rows * SKF_RANK_MAX;
    SKF_TRY(look(f, c, most, d, &l));
    if (!(l.all > 0 && l.all < 1e30) || !set_rank(f, &l, best_rank(f, &l, c, most))) {
        f->rank = 0;
        return SKF_OK;
    }
    for (uint32_t i = 0; i < f->rows; i++) {
        SKF_TRY(c->row(c->ctx, i, d));
        for (unsigned k = 0; k < f->rank; k++)
            f->u[(size_t)i * f->rank + k] =
                small(f->loops->dot(d, f->v + (size_t)k * f->columns, f->columns) / l.len[k] / skf_factors_unit(f));
    }
    return SKF_OK;
}

/* u as symbols, in w->sym, each in the context of its factor. */
static enum skf_err syms_u(struct skf_work *w, const struct skf_factors *f, struct skf_syms *s)
{
    uint32_t n = f->rows * f->rank;
    SKF_TRY(skf_area_need(&w->sym, n));
    SKF_TRY(skf_area_need(&w->symkey, n));
    for (uint32_t i = 0; i < n; i++)
        w->symkey.p[i] = (uint8_t)(i % f->rank);
    *s = (struct skf_syms){w->sym.p, w->symkey.p, n};
    return SKF_OK;
}

enum skf_err skf_factors_put(struct skf_work *w, const struct skf_factors *f, struct skf_buf *out)
{
    struct skf_syms s;
    if (!f->side_n || !skf_factors_fit(f->rows, f->columns))
        return SKF_OK;
    SKF_TRY(skf_buf_u8(out, (uint8_t)f->rank));
    if (!f->rank)
        return SKF_OK;
    SKF_TRY(skf_buf_u8(out, (uint8_t)f->unit));
    SKF_TRY(skf_put_svarint(out, (uint64_t)(int64_t)f->shift));
    SKF_TRY(syms_u(w, f, &s));
    for (uint32_t i = 0; i < s.n; i++)
        s.sym[i] = folded(f->u[i]);
    return skf_syms_put(w, &s, out);
}

enum skf_err skf_factors_get(struct skf_work *w, struct skf_reader *r, struct skf_factors *f)
{
    uint8_t rank, unit;
    unsigned most;
    uint64_t shift;
    struct skf_syms s;
    SKF_TRY(open_side(w, f, &most));
    if (!most)
        return SKF_OK;
    SKF_TRY(skf_get_u8(r, &rank));
    if (rank == 0)
        return SKF_OK;
    SKF_TRY(skf_get_u8(r, &unit));
    SKF_TRY(skf_get_svarint(r, &shift));
    if (rank > most || unit < SKF_UNIT_MIN || unit >= 2 * SKF_UNIT_MIN || (int64_t)shift > SKF_SHIFT_MAX ||
        (int64_t)shift < -SKF_SHIFT_MAX)
        return SKF_ERR_FORMAT;
    f->rank = rank;
    f->unit = unit;
    f->shift = (int)(int64_t)shift;
    set_base(f);
    SKF_TRY(syms_u(w, f, &s));
    SKF_TRY(skf_syms_get(w, r, &s));
    for (uint32_t i = 0; i < s.n; i++)
        f->u[i] = unfolded(s.sym[i]);
    return SKF_OK;
}

void skf_factors_row(const struct skf_factors *f, uint32_t i)
{
    const int8_t *u = f->u + (size_t)i * f->rank;
    if (f->base)
        f->loops->guess_packed(u, f->packed, f->base, f->rank, f->columns, skf_factors_unit(f), f->guess);
    else
        f->loops->guess(u, f->v, f->rank, f->columns, skf_factors_unit(f), f->guess);
}
