/* skiff quantize --base: the new weights on the old version's grid, within a budget (quantize.h). */
#include <math.h>

#include "cli/cli.h"
#include "cli/requantize_priv.h"

static enum skf_err check(const struct quantize_args *a, struct skf_why *why)
{
    bool is_bounded = a->budget >= 0 || a->bytes || a->gain > 0;
    if (is_bounded && !a->text && !a->calibrate)
        return skf_fail(why, SKF_ERR_ARG, "%s needs a text to measure quality on: add --text FILE",
                        a->bytes ? "--bytes" : a->gain > 0 ? "--gain" : "--budget");
    return SKF_OK;
}

/* ---- what to do ----------------------------------------------------------------------------------------------------------------- */
/* The perplexity that must not be exceeded; infinite for none. */
static double bound_of(const struct requant *r)
{
    double bound = INFINITY;
    if (r->a->budget >= 0)
        bound = r->perplexity * (1 + r->a->budget);
    if (r->a->gain > 0)
        bound = fmin(bound, r->base_perplexity - r->a->gain * (r->base_perplexity - r->goal));
    return bound;
}

static enum skf_err find(struct requant *r, struct requant_try *best, struct skf_why *why)
{
    double bound = bound_of(r);
    if (r->a->bytes) {
        SKF_TRY(requant_best(r, r->a->bytes, best, why));
        if (best->perplexity <= bound)
            return SKF_OK;
        return skf_fail(why, SKF_ERR_REFUSED, "%s: not written: perplexity %.4f in %llu bytes, %.4f is the bound", r->a->out,
                        best->perplexity, (unsigned long long)best->bytes, bound);
    }
    if (isfinite(bound))
        return requant_fewest(r, bound, best, why);
    if (r->is_lossy && r->method == REQUANT_SAMPLE && !r->a->method)
        return skf_fail(why, SKF_ERR_ARG, "%s: a float version is exact unless a bound is given: add --budget or --bytes, and --text",
                        r->a->out);
    unsigned level = r->is_lossy ? REQUANT_LEVELS / 2 : 0; /* a method by name, without a bound: its middle */
    SKF_TRY(requant_try(r, level, level, r->quality != NULL, best, why));
    if (r->is_lossy || !r->quality || !has_drifted(r))
        return SKF_OK;
    struct requant_try carried; /* level 0 moves codes by draws, level 1 carries what rounding leaves over */
    SKF_TRY(requant_try(r, 1, 0, true, &carried, why));
    *best = carried.perplexity < best->perplexity ? carried : *best;
    return SKF_OK;
}

/* ---- the report ------------------------------------------------------------------------------------------------------------------ */
static int by_bytes(const void *a, const void *b)
{
    const struct requant_try *x = a, *y = b;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static enum skf_err level_json(skf_json *o, const char *name, unsigned level)
{
    return skf_json_set(o, name, level == REQUANT_ALONE ? skf_json_str("unchanged") : skf_json_int(level));
}

static enum skf_err point_json(const struct requant *r, const struct requant_try *t, skf_json *o)
{
    SKF_TRY(skf_json_set(o, "bytes", skf_json_int((int64_t)t->bytes)));
    SKF_TRY(skf_json_set(o, "perplexity", skf_json_real(t->perplexity)));
    SKF_TRY(skf_json_set(o, "excess", skf_json_real(t->perplexity / r->perplexity - 1)));
    SKF_TRY(level_json(o, "matrices", t->matrices));
    return level_json(o, "embedding", t->embedding);
}

static enum skf_err put_report(struct requant *r, const struct requant_try *best, skf_json *report)
{
    SKF_TRY(skf_json_set(report, "file", skf_json_str(r->a->out)));
    SKF_TRY(skf_json_set(report, "bytes", skf_json_int((int64_t)r->size)));
    SKF_TRY(skf_json_set(report, "delta_bytes", skf_json_int((int64_t)best->bytes)));
    if (!r->quality)
        return SKF_OK;
    SKF_TRY(skf_json_set(report, "perplexity", skf_json_real(best->perplexity)));
    SKF_TRY(skf_json_set(report, "plain_perplexity", skf_json_real(r->perplexity)));
    if (r->base_perplexity > 0)
        SKF_TRY(skf_json_set(report, "base_perplexity", skf_json_real(r->base_perplexity)));
    SKF_TRY(skf_json_set(report, "excess", skf_json_real(best->perplexity / r->perplexity - 1)));
    SKF_TRY(skf_json_set(report, "tokens", skf_json_int((int64_t)skf_quality_tokens(r->quality))));
    skf_json *curve = skf_json_arr();
    SKF_TRY(skf_json_set(report, "curve", curve));
    for (size_t i = 0; i < r->n_tries; i++) {
        skf_json *o = skf_json_obj();
        if (r->tries[i].perplexity == 0) {
            skf_json_free(o);
            continue;
        }
        SKF_TRY(skf_json_push(curve, o));
        SKF_TRY(point_json(r, &r->tries[i], o));
    }
    return SKF_OK;
}

static void print_report(const struct requant *r, const struct requant_try *best)
{
    char size[16], delta[16];
    if (r->quality)
        (void)printf("%14s %12s %10s\n", "delta bytes", "perplexity", "excess");
    for (size_t i = 0; i < r->n_tries; i++) {
        const struct requant_try *t = &r->tries[i];
        if (t->perplexity > 0)
            (void)printf("%14llu %12.4f %+9.3f%%%s\n", (unsigned long long)t->bytes, t->perplexity, 100 * (t->perplexity / r->perplexity - 1),
                         t->matrices == best->matrices && t->embedding == best->embedding ? "  chosen" : "");
    }
    (void)printf("%s: %s, %s from %s", r->a->out, skf_human_bytes(r->size, size), skf_human_bytes(best->bytes, delta), r->a->base);
    if (r->quality)
        (void)printf(", perplexity %.4f (plainly %.4f)", best->perplexity, r->perplexity);
    (void)printf("\n");
}

enum skf_err skf_cli_requantize(const struct quantize_args *a, skf_json *report, struct skf_why *why)
{
    struct requant r = {0};
    struct requant_try best;
    enum skf_err e = check(a, why);
    if (e != SKF_OK)
        return e;
    SKF_GO(e, requant_open(&r, a, why));
    SKF_GO(e, find(&r, &best, why));
    SKF_GO(e, requant_write(&r, &best, why));
    skf_cli_progress_end();
    skf_quality_note(r.quality);
    qsort(r.tries, r.n_tries, sizeof *r.tries, by_bytes);
    if (a->is_json)
        e = put_report(&r, &best, report);
    else
        print_report(&r, &best);
out:
    requant_close(&r);
    return e;
}
