/* Fitting rows to inputs, each change paid for (refit.h). */
#include "model/refit.h"

#include <float.h>
#include <string.h>

#include "base/alloc.h"
#include "base/util.h"
#include "model/refit_block_priv.h"
#include "model/refit_priv.h"

enum { B = SKF_REFIT_BLOCK, LANES = SKF_REFIT_ROWS };
#define AGAIN_BITS 2.0f /* a code that changed already goes one further */
#define MOVES 8         /* a column's most changes on average: an end to what rounding might turn in circles */

struct block {
    struct refit_scales old, now;
    float d, m;      /* now */
    double a12, a22; /* ones H codes, codes H codes, over the block */
    bool is_stale;   /* a12 and a22 are of other codes */
};
struct lane { /* a row */
    float *g, *g0, *x, *step; /* H (w - x), with x further off once the row reaches; H (old - new); w - new; what one up is worth */
    int16_t *code, *moved;
    struct block *blocks;
};
struct skf_refit_work {
    const struct skf_refit_loops *loops;
    uint32_t columns;
    struct lane lanes[LANES];
    float *score, *diagonal;
    double *a11; /* ones H ones, a block */
    void *memory;
};
/* A change under consideration; what it takes off error and bits together. */
struct change {
    double gain;
    uint32_t at; /* column or block */
    int by;      /* of a code; 0: scales */
    struct refit_scales to;
};

bool is_refit_type(enum skf_type t)
{
    return t == SKF_T_Q8_0 || t == SKF_T_Q4_0 || t == SKF_T_Q4_1 || t == SKF_T_Q5_0 || t == SKF_T_Q5_1;
}

enum skf_err skf_refit_work_new(uint32_t columns, struct skf_refit_work **out)
{
    if (columns == 0 || columns > SKF_REFIT_COLUMNS || columns % B)
        return SKF_ERR_ARG;
    const size_t n = columns, blocks = n / B;
    const size_t lane = blocks * sizeof(struct block) + n * (4 * sizeof(float) + 2 * sizeof(int16_t));
    struct skf_refit_work *w = skf_calloc(1, sizeof *w);
    uint8_t *p = w ? skf_aligned(64, blocks * sizeof(double) + LANES * lane + 2 * n * sizeof(float)) : NULL;
    if (!p) {
        skf_free(w);
        return SKF_ERR_NOMEM;
    }
    w->memory = p;
    w->columns = columns;
    w->loops = skf_refit_loops_pick();
    w->a11 = (double *)(void *)p;
    p += blocks * sizeof(double);
    for (unsigned k = 0; k < LANES; k++, p += blocks * sizeof(struct block))
        w->lanes[k].blocks = (struct block *)(void *)p;
    float *f = (float *)(void *)p;
    for (unsigned k = 0; k < LANES; k++, f += 4 * n) {
        w->lanes[k].g = f;
        w->lanes[k].g0 = f + n;
        w->lanes[k].x = f + 2 * n;
        w->lanes[k].step = f + 3 * n;
    }
    w->score = f;
    w->diagonal = w->score + n;
    int16_t *i = (int16_t *)(void *)(w->diagonal + n);
    for (unsigned k = 0; k < LANES; k++, i += 2 * n) {
        w->lanes[k].code = i;
        w->lanes[k].moved = i + n;
    }
    *out = w;
    return SKF_OK;
}

void skf_refit_work_free(struct skf_refit_work *w)
{
    if (w)
        skf_free(w->memory);
    skf_free(w);
}

static bool is_real(float f) { return f >= -FLT_MAX && f <= FLT_MAX; }

static void set_scales(struct lane *l, uint32_t k, struct refit_scales to)
{
    struct block *b = &l->blocks[k];
    b->now = to;
    b->d = skf_f16_to_f32(to.d);
    b->m = skf_f16_to_f32(to.m);
    for (unsigned i = 0; i < B; i++)
        l->step[k * B + i] = b->d;
}

/* The lane as the row stands. */
static enum skf_err open_lane(const struct skf_refit *f, struct lane *l, const uint8_t *row, const float *want)
{
    float *x = l->x;
    const uint32_t bytes = refit_kind_of(f->type).bytes;
    for (uint32_t k = 0; k < f->columns / B; k++) {
        struct block *b = &l->blocks[k];
        refit_unpack(f->type, row + (size_t)k * bytes, &b->old, l->code + k * B);
        set_scales(l, k, b->old);
        b->is_stale = true;
        for (unsigned i = k * B; i < (k + 1) * B; i++) {
            l->moved[i] = 0;
            l->g[i] = 0;
            x[i] = b->d * (float)l->code[i] + b->m - want[i];
            if (!is_real(x[i]) || x[i] > 1e15f || x[i] < -1e15f)
                return SKF_ERR_FORMAT;
        }
    }
    return SKF_OK;
}

/* g = H x for every lane: columns in order. */
static void spread(const struct skf_refit *f, struct skf_refit_work *w, uint32_t n)
{
    float *g[LANES];
    for (unsigned k = 0; k < LANES; k++)
        g[k] = w->lanes[k < n ? k : 0].g;
    for (uint32_t i = 0; i < f->columns; i++) {
        const float *h = f->inputs + (size_t)i * f->columns;
        float e[LANES];
        bool is_any = false;
        for (unsigned k = 0; k < LANES; k++) {
            e[k] = k < n ? w->lanes[k].x[i] : 0;
            is_any |= e[k] != 0;
        }
        if (is_any && n == LANES)
            w->loops->spread(g, h, e, f->columns);
        for (unsigned k = 0; k < n && is_any && n < LANES; k++)
            w->loops->add(g[k], h, e[k], f->columns);
    }
}

static int order_of(uint16_t h) { return (h & 0x8000) ? -(int)(h & 0x7fff) : (int)h; }

/* What it costs to say how far a half moved. */
static float move_bits(const struct skf_refit *f, uint16_t from, uint16_t to)
{
    int k = order_of(to) - order_of(from);
    uint32_t m = (uint32_t)(k < 0 ? -k : k);
    return m == 0 ? 0 : f->scale_bits + 2.0f + 1.5f * (float)(31 - __builtin_clz(m));
}

/* H of a block times its codes; NULL for ones. */
static void block_product(const struct skf_refit *f, const struct skf_refit_work *w, const int16_t *code, uint32_t k, float out[B])
{
    for (unsigned i = 0; i < B; i++)
        out[i] = 0;
    for (unsigned j = 0; j < B; j++)
        w->loops->add(out, f->inputs + (size_t)(k * B + j) * f->columns + k * B, code ? (float)code[j] : 1.0f, B);
}

/* Sums of x and of x times the codes, in four lanes. */
static void block_sums(const float x[B], const int16_t *code, double *s1, double *s2)
{
    double a[4] = {0}, b[4] = {0};
    for (unsigned i = 0; i < B; i += 4)
        for (unsigned l = 0; l < 4; l++) {
            a[l] += (double)x[i + l];
            b[l] += (double)x[i + l] * code[i + l];
        }
    *s1 = (a[0] + a[2]) + (a[1] + a[3]);
    *s2 = (b[0] + b[2]) + (b[1] + b[3]);
}

static void freshen(const struct skf_refit *f, const struct skf_refit_work *w, const int16_t *code, uint32_t k, struct block *b)
{
    float x[B];
    block_product(f, w, code, k, x);
    block_sums(x, code, &b->a12, &b->a22);
    b->is_stale = false;
}

/* Takes over the change to these scales if it is the best so far. s1, s2: ones g, codes g. */
static void try_scales(const struct skf_refit *f, const struct skf_refit_work *w, const struct block *b, uint32_t k, double s1, double s2,
                       struct refit_scales to, struct change *best)
{
    if ((to.d == b->now.d && to.m == b->now.m) || (to.d & 0x7fff) == 0 || (to.d & 0x7c00) == 0x7c00 || (to.m & 0x7c00) == 0x7c00)
        return;
    double d = (double)skf_f16_to_f32(to.d) - (double)b->d, m = (double)skf_f16_to_f32(to.m) - (double)b->m;
    double off = -(2 * (d * s2 + m * s1) + d * d * b->a22 + 2 * d * m * b->a12 + m * m * w->a11[k]);
    float bits = move_bits(f, b->old.d, to.d) + move_bits(f, b->old.m, to.m) - move_bits(f, b->old.d, b->now.d) -
                 move_bits(f, b->old.m, b->now.m);
    double gain = off - (double)f->price * (double)bits;
    if (gain > best->gain)
        *best = (struct change){.gain = gain, .at = k, .to = to};
}

/* Whether even the best real numbers for the block's scales could not pay. */
static bool is_hopeless(const struct skf_refit *f, const struct block *b, double a11, double s1, double s2, double gain)
{
    double det = a11 * b->a22 - b->a12 * b->a12;
    bool is_new = b->now.d == b->old.d && b->now.m == b->old.m;
    if (!is_new || !(det > 1e-6 * a11 * b->a22))
        return false;
    double most = (s2 * s2 * a11 - 2 * s1 * s2 * b->a12 + s1 * s1 * b->a22) / det;
    return most < gain + (double)f->price * (double)f->scale_bits;
}

static void best_scales(const struct skf_refit *f, struct skf_refit_work *w, struct lane *l, uint32_t k, struct change *best)
{
    struct block *b = &l->blocks[k];
    const int16_t *code = l->code + k * B;
    const float *g = l->g + k * B;
    const bool has_minimum = refit_kind_of(f->type).has_minimum;
    const double a11 = w->a11[k];
    double s1, s2;
    block_sums(g, code, &s1, &s2);
    if (b->is_stale)
        freshen(f, w, code, k, b);
    if (b->now.d << 1 == 0 || !(b->a22 > 0) || is_hopeless(f, b, a11, s1, s2, best->gain))
        return;
    struct refit_scales d_alone = {skf_f32_to_f16((float)((double)b->d - s2 / b->a22)), b->now.m};
    try_scales(f, w, b, k, s1, s2, d_alone, best);
    if (!has_minimum || !(a11 > 0))
        return;
    struct refit_scales m_alone = {b->now.d, skf_f32_to_f16((float)((double)b->m - s1 / a11))};
    try_scales(f, w, b, k, s1, s2, m_alone, best);
    double det = a11 * b->a22 - b->a12 * b->a12;
    if (!(det > 1e-9 * a11 * b->a22))
        return;
    struct refit_scales both = {skf_f32_to_f16((float)((double)b->d + (s1 * b->a12 - s2 * a11) / det)), 0};
    double d = (double)skf_f16_to_f32(both.d) - (double)b->d; /* the minimum that fits the scale as it was rounded */
    both.m = skf_f32_to_f16((float)((double)b->m - (s1 + b->a12 * d) / a11));
    try_scales(f, w, b, k, s1, s2, both, best);
}

static void best_code(const struct skf_refit *f, struct skf_refit_work *w, const struct lane *l, struct change *best)
{
    const struct refit_kind kind = refit_kind_of(f->type);
    const float first = f->price * f->code_bits, again = f->price * AGAIN_BITS;
    w->loops->score(w->score, l->g, l->step, w->diagonal, f->columns);
    for (uint32_t i = 0; i < f->columns; i++) {
        float off = w->score[i];
        if (!((double)(off + first) > best->gain)) /* not even where the bits come back */
            continue;
        int by = l->g[i] * l->step[i] > 0 ? -1 : 1, moved = l->moved[i];
        float gain = off - (moved == 0 ? first : moved + by == 0 ? -first : moved * by > 0 ? again : -again);
        if ((double)gain > best->gain && l->code[i] + by >= kind.lowest && l->code[i] + by <= kind.highest)
            *best = (struct change){.gain = (double)gain, .at = i, .by = by};
    }
}

static void make(const struct skf_refit *f, struct skf_refit_work *w, struct lane *l, const struct change *c)
{
    if (c->by) {
        l->code[c->at] = (int16_t)(l->code[c->at] + c->by);
        l->x[c->at] += (float)c->by * l->step[c->at];
        l->moved[c->at] = (int16_t)(l->moved[c->at] + c->by);
        l->blocks[c->at / B].is_stale = true;
        w->loops->add(l->g, f->inputs + (size_t)c->at * f->columns, (float)c->by * l->step[c->at], f->columns);
        return;
    }
    struct block *b = &l->blocks[c->at];
    float d = skf_f16_to_f32(c->to.d) - b->d, m = skf_f16_to_f32(c->to.m) - b->m;
    set_scales(l, c->at, c->to);
    for (uint32_t i = c->at * B; i < (c->at + 1) * B; i++) {
        float by = d * (float)l->code[i] + m;
        l->x[i] += by;
        w->loops->add(l->g, f->inputs + (size_t)i * f->columns, by, f->columns);
    }
}

/* The best changes, until none pays. */
static void descend(const struct skf_refit *f, struct skf_refit_work *w, struct lane *l, double before)
{
    for (uint32_t moves = 0; moves < MOVES * f->columns; moves++) {
        struct change best = {.gain = 1e-12 * before};
        if (!f->is_code_fixed)
            best_code(f, w, l, &best);
        for (uint32_t k = 0; k < f->columns / B && !f->is_scale_fixed; k++)
            best_scales(f, w, l, k, &best);
        if (!best.by && !best.to.d)
            break;
        make(f, w, l, &best);
    }
}

static double dot(const float *a, const float *b, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static void fit(const struct skf_refit *f, struct skf_refit_work *w, struct lane *l, struct skf_refit_result *r)
{
    const uint32_t n = f->columns;
    r->before = r->after = dot(l->x, l->g, n);
    r->saved = 0;
    if ((f->is_code_fixed && f->is_scale_fixed) || !(r->before > 0))
        return;
    memcpy(l->g0, l->g, n * sizeof *l->g);
    descend(f, w, l, r->before);
    r->after = dot(l->x, l->g, n);
    r->saved = r->before - r->after;
    if (!(f->reach > 1))
        return;
    double left = r->after / r->before, most = (double)f->reach;
    float further = (float)((left < 1 - 1 / most ? 1 / (1 - (left > 0 ? left : 0)) : most) - 1);
    w->loops->add(l->g, l->g0, further, n);
    descend(f, w, l, r->before);
    w->loops->add(l->g, l->g0, -further, n);
    r->after = dot(l->x, l->g, n);
}

static void close_lane(const struct skf_refit *f, const struct lane *l, uint8_t *row, struct skf_refit_result *r)
{
    const struct refit_kind kind = refit_kind_of(f->type);
    r->codes = r->scales = 0;
    for (uint32_t k = 0; k < f->columns / B; k++) {
        const struct block *b = &l->blocks[k];
        uint32_t codes = 0, scales = (b->now.d != b->old.d) + (uint32_t)(b->now.m != b->old.m);
        for (unsigned i = 0; i < B; i++)
            codes += l->moved[k * B + i] != 0;
        if (codes || scales)
            refit_pack(f->type, &b->now, l->code + k * B, row + (size_t)k * kind.bytes);
        r->codes += codes;
        r->scales += scales;
    }
}

static void open_inputs(const struct skf_refit *f, struct skf_refit_work *w)
{
    for (uint32_t i = 0; i < f->columns; i++)
        w->diagonal[i] = f->inputs[(size_t)i * f->columns + i];
    for (uint32_t k = 0; k < f->columns / B && !f->is_scale_fixed; k++) {
        static const int16_t none[B];
        double rest;
        float x[B];
        block_product(f, w, NULL, k, x);
        block_sums(x, none, &w->a11[k], &rest);
    }
}

enum skf_err skf_refit_rows(const struct skf_refit *f, struct skf_refit_work *w, uint8_t *rows, uint64_t row_bytes, const float *want,
                            uint32_t n, struct skf_refit_result *results)
{
    if (!is_refit_type(f->type))
        return SKF_ERR_UNSUPPORTED;
    if (n > LANES || f->columns > w->columns || f->columns % B)
        return SKF_ERR_ARG;
    open_inputs(f, w);
    for (uint32_t k = 0; k < n; k++)
        SKF_TRY(open_lane(f, &w->lanes[k], rows + k * row_bytes, want + (size_t)k * f->columns));
    spread(f, w, n);
    for (uint32_t k = 0; k < n; k++) {
        fit(f, w, &w->lanes[k], &results[k]);
        close_lane(f, &w->lanes[k], rows + k * row_bytes, &results[k]);
    }
    return SKF_OK;
}
