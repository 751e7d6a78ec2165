/* Levels of stripes (level_priv.h). */
#include "delta/level_priv.h"

#include <math.h>
#include <string.h>

#define BASE_MAX 4096 /* either way */

/* One context for all: levels, then as many zeros. */
static enum skf_err room(struct skf_work *w, uint32_t n, struct skf_syms *s)
{
    SKF_TRY(skf_area_need(&w->level, 2 * (size_t)n));
    memset(w->level.p + n, 0, n);
    *s = (struct skf_syms){w->level.p, w->level.p + n, n};
    return SKF_OK;
}

enum skf_err skf_levels_make(struct skf_work *w, const double *move, struct skf_levels *l)
{
    struct skf_syms s;
    double most = -1e300;
    SKF_TRY(room(w, l->n, &s));
    for (uint32_t i = 0; i < l->n; i++)
        most = fmax(most, move[i]);
    /* What is far below the rest is as good as still. */
    for (uint32_t i = 0; i < l->n; i++) {
        double down = move[i] > 0 && most > 0 ? floor(2 * log2(most / move[i]) + 0.5) : SKF_LEVELS;
        s.sym[i] = (uint8_t)(down >= SKF_LEVELS ? 0 : SKF_LEVELS - 1 - (int)down);
    }
    l->level = s.sym;
    return SKF_OK;
}

enum skf_err skf_levels_cost(struct skf_work *w, const struct skf_levels *l, double *bits)
{
    struct skf_syms s = {w->level.p, w->level.p + l->n, l->n};
    return skf_syms_cost(w, &s, bits);
}

enum skf_err skf_levels_put(struct skf_work *w, const struct skf_levels *l, struct skf_buf *out)
{
    SKF_TRY(skf_buf_u8(out, l->level != NULL));
    SKF_TRY(skf_put_svarint(out, (uint64_t)(int64_t)l->base));
    if (!l->level)
        return SKF_OK;
    return skf_syms_put(w, &(struct skf_syms){w->level.p, w->level.p + l->n, l->n}, out);
}

enum skf_err skf_levels_get(struct skf_work *w, struct skf_reader *r, struct skf_levels *l)
{
    uint8_t has;
    uint64_t base;
    struct skf_syms s;
    SKF_TRY(skf_get_u8(r, &has));
    SKF_TRY(skf_get_svarint(r, &base));
    if (has > 1 || (int64_t)base > BASE_MAX || (int64_t)base < -BASE_MAX)
        return SKF_ERR_FORMAT;
    l->base = (int)(int64_t)base;
    l->level = NULL;
    if (!has)
        return SKF_OK;
    SKF_TRY(room(w, l->n, &s));
    SKF_TRY(skf_syms_get(w, r, &s));
    l->level = s.sym;
    return SKF_OK;
}
