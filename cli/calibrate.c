/* The search for the price of a bit (calibrate.h). */
#include "cli/calibrate.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "cli/cli.h"
#include "delta/delta.h"

/* Prices are 2^-(k/16): from too dear for anything to as good as nothing. */
enum { OCTAVE = 16, DEAREST = 12 * OCTAVE, CHEAPEST = 36 * OCTAVE, BEST = 57 * OCTAVE / 2, STEPS = 9 };
#define NEAR 0.985 /* of the bytes asked for is near enough */

/* A price that was tried. */
struct point {
    unsigned k;
    uint64_t bytes;
    uint64_t changed;   /* codes and scales */
    double error, gain; /* gain: of the quality; NAN when it was not measured */
    double perplexity;
};
struct search {
    struct calibrate *c;
    struct skf_quality *quality;
    double from, to; /* perplexity of the base and of the new weights */
    struct point now, best;
    bool has_best;
    skf_json *curve;
};

enum skf_err calibrate_tell(struct calibrate *c, uint64_t steps, struct skf_why *why)
{
    c->work += steps;
    skf_progress_tell(&c->ask->progress, SKF_MIN(c->work, c->all_work), c->all_work);
    return is_cancelled(&c->ask->progress) ? skf_fail(why, SKF_ERR_CANCELLED, "cancelled") : SKF_OK;
}

static float price_of(unsigned k)
{
    static const double parts[OCTAVE] = {1.0, 0.9576032806985737, 0.9170040432046712, 0.8781260801866497, 0.8408964152537145,
                                         0.8052451659746271, 0.7711054127039704, 0.7384130729697496, 0.7071067811865476,
                                         0.6771277734684463, 0.6484197773255048, 0.6209289060367422, 0.5946035575013605,
                                         0.5693943173783458, 0.5452538663326288, 0.5221368912137069};
    return (float)ldexp(parts[k % OCTAVE], -(int)(k / OCTAVE));
}

/* Each tensor's error while nothing changes. */
static enum skf_err measure(struct calibrate *c, struct skf_why *why)
{
    return calibrate_fit(c, &(struct calibrate_price){.is_code_fixed = true, .is_scale_fixed = true}, why);
}

static void weigh_alike(struct calibrate *c)
{
    for (size_t i = 0; i < c->n_tensors; i++)
        c->tensors[i].weight = c->tensors[i].before > 0 ? 1 / c->tensors[i].before / (double)c->n_tensors : 1;
}

/* Inputs and weights, as the nearly lossless fit sees them. */
static enum skf_err prepare(struct calibrate *c, struct skf_why *why)
{
    SKF_TRY(calibrate_gather(c, why));
    SKF_TRY(measure(c, why));
    weigh_alike(c);
    SKF_TRY(calibrate_fit(c, &(struct calibrate_price){.bit = price_of(BEST)}, why));
    SKF_TRY(calibrate_gather(c, why));
    SKF_TRY(calibrate_weigh(c, why));
    double *share = skf_calloc(c->n_tensors, sizeof *share);
    if (!share)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < c->n_tensors; i++)
        share[i] = c->tensors[i].weight * c->tensors[i].before;
    enum skf_err e = measure(c, why);
    for (size_t i = 0; i < c->n_tensors; i++) /* the same shares of what the inputs gathered anew make of the errors */
        c->tensors[i].weight = c->tensors[i].before > 0 && share[i] > 0 ? share[i] / c->tensors[i].before : 1;
    skf_free(share);
    return e;
}

static enum skf_err add_point(skf_json *curve, const struct point *p)
{
    skf_json *o = skf_json_obj();
    enum skf_err e = o ? SKF_OK : SKF_ERR_NOMEM;
    if (e == SKF_OK)
        e = skf_json_set(o, "price", skf_json_real((double)price_of(p->k)));
    if (e == SKF_OK)
        e = skf_json_set(o, "delta_bytes", skf_json_int((int64_t)p->bytes));
    if (e == SKF_OK)
        e = skf_json_set(o, "error", skf_json_real(p->error));
    if (e == SKF_OK && !isnan(p->gain))
        e = skf_json_set(o, "gain", skf_json_real(p->gain));
    if (e == SKF_OK)
        return skf_json_push(curve, o);
    skf_json_free(o);
    return e;
}

static enum skf_err measure_gain(struct search *s, struct point *p, struct skf_why *why)
{
    SKF_TRY(skf_quality_measure(s->quality, s->c->made, s->c->ask->out, &s->c->ask->progress, &p->perplexity, why));
    p->gain = (s->from - p->perplexity) / (s->from - s->to);
    return calibrate_tell(s->c, 2, why);
}

/* Makes the image at a price and counts its bytes. */
static enum skf_err try_price(struct search *s, unsigned k, bool is_measured, struct skf_why *why)
{
    struct point p = {.k = k, .gain = NAN};
    const struct calibrate_price price = {.bit = price_of(k)};
    const struct skf_delta_opts o = {.jobs = s->c->ask->jobs, .progress = {.cancel = s->c->ask->progress.cancel}};
    struct skf_delta_stats stats;
    s->now = (struct point){0};
    SKF_TRY(calibrate_fit(s->c, &price, why));
    SKF_TRY(skf_delta_build(s->c->base, s->c->made, NULL, &o, &stats, why));
    p.bytes = stats.bytes;
    p.error = calibrate_error(s->c);
    for (size_t i = 0; i < s->c->n_tensors; i++)
        p.changed += s->c->tensors[i].codes + s->c->tensors[i].scales + !s->c->tensors[i].is_fitted;
    if (is_measured)
        SKF_TRY(measure_gain(s, &p, why));
    s->now = p;
    if (add_point(s->curve, &p) != SKF_OK)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    return calibrate_tell(s->c, 2, why);
}

/* Whether the point is an update and keeps to what was asked for. */
static bool is_within(const struct search *s, const struct point *p)
{
    const struct calibrate_ask *a = s->c->ask;
    return p->changed && (!a->bytes || p->bytes <= a->bytes) && (a->gain <= 0 || p->gain >= a->gain);
}

static void take_best(struct search *s, const struct point *p)
{
    bool is_better = s->c->ask->gain > 0 ? p->bytes < s->best.bytes : p->error < s->best.error;
    if (!s->has_best || is_better)
        s->best = *p;
    s->has_best = true;
}

/* With a bound of bytes the cheapest price that keeps to it, otherwise the dearest that keeps the gain. */
static enum skf_err bisect(struct search *s, struct skf_why *why)
{
    const bool is_gain = s->c->ask->gain > 0;
    unsigned good = is_gain ? CHEAPEST : DEAREST, bad = is_gain ? DEAREST : CHEAPEST;
    while (good > bad + 1 || bad > good + 1) {
        unsigned k = (good + bad) / 2;
        SKF_TRY(try_price(s, k, is_gain, why));
        bool is_good = is_gain ? s->now.gain >= s->c->ask->gain : s->now.bytes <= s->c->ask->bytes;
        if (is_within(s, &s->now))
            take_best(s, &s->now);
        *(is_good ? &good : &bad) = k;
        if (!is_gain && is_good && (double)s->now.bytes > NEAR * (double)s->c->ask->bytes)
            break;
    }
    return SKF_OK;
}

static enum skf_err open_quality(struct search *s, struct skf_why *why)
{
    const struct calibrate_ask *a = s->c->ask;
    const struct skf_model *target = NULL;
    if (!a->text && !(a->gain > 0))
        return SKF_OK;
    SKF_TRY(skf_quality_open(s->c->base, a->text ? a->text : a->calibrate, a->jobs, &s->quality, why));
    SKF_TRY(skf_quality_measure(s->quality, s->c->base, a->base, &a->progress, &s->from, why));
    SKF_TRY(s->c->neu->target(s->c->neu->ctx, &target, why));
    SKF_TRY(skf_quality_measure(s->quality, target, "the new weights unquantized", &a->progress, &s->to, why));
    if (!(s->to < s->from))
        return skf_fail(why, SKF_ERR_REFUSED, "%s: the new weights are no better than the old ones on it (perplexity %.4f, was %.4f)",
                        a->text ? a->text : a->calibrate, s->to, s->from);
    return SKF_OK;
}

static enum skf_err search(struct search *s, struct skf_why *why)
{
    const struct calibrate_ask *a = s->c->ask;
    if (!a->bytes && !(a->gain > 0)) {
        SKF_TRY(try_price(s, BEST, false, why));
        take_best(s, &s->now);
    } else {
        SKF_TRY(bisect(s, why));
    }
    if (!s->has_best)
        return skf_fail(why, SKF_ERR_REFUSED, "%s: %s", a->out,
                        a->gain > 0 ? "no update keeps so much of the gain (within --bytes, if that was given); ask for less"
                                    : "no update that is worth anything has so few bytes; allow more with --bytes");
    if (s->now.k != s->best.k)
        SKF_TRY(try_price(s, s->best.k, false, why));
    if (s->quality && isnan(s->best.gain))
        SKF_TRY(measure_gain(s, &s->best, why));
    return SKF_OK;
}

static enum skf_err put(skf_json *o, const char *name, double v) { return skf_json_set(o, name, skf_json_real(v)); }

static enum skf_err report(struct search *s, skf_json *o)
{
    uint64_t codes = 0, scales = 0, tensors = 0;
    for (size_t i = 0; i < s->c->n_tensors; i++) {
        const struct calibrate_tensor *t = &s->c->tensors[i];
        codes += t->codes;
        scales += t->scales;
        tensors += t->codes || t->scales || !t->is_fitted;
    }
    SKF_TRY(skf_json_set(o, "file", skf_json_str(s->c->ask->out)));
    SKF_TRY(skf_json_set(o, "bytes", skf_json_int((int64_t)s->c->image.size)));
    SKF_TRY(skf_json_set(o, "delta_bytes", skf_json_int((int64_t)s->best.bytes)));
    SKF_TRY(put(o, "price", (double)price_of(s->best.k)));
    SKF_TRY(skf_json_set(o, "tensors_changed", skf_json_int((int64_t)tensors)));
    SKF_TRY(skf_json_set(o, "codes_changed", skf_json_int((int64_t)codes)));
    SKF_TRY(skf_json_set(o, "scales_changed", skf_json_int((int64_t)scales)));
    SKF_TRY(put(o, "error", s->best.error));
    SKF_TRY(skf_json_set(o, "calibration_tokens", skf_json_int((int64_t)s->c->n_windows * s->c->window)));
    if (s->quality) {
        SKF_TRY(put(o, "gain", s->best.gain));
        SKF_TRY(put(o, "perplexity", s->best.perplexity));
        SKF_TRY(put(o, "base_perplexity", s->from));
        SKF_TRY(put(o, "target_perplexity", s->to));
    }
    skf_json *curve = s->curve;
    s->curve = NULL;
    return skf_json_set(o, "curve", curve);
}

static enum skf_err open_files(struct calibrate *c, struct skf_why *why)
{
    SKF_TRY(skf_cli_model_open(c->ask->base, &c->base, why));
    if (!skf_model_gguf(c->base))
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: only GGUF models can be calibrated, this is %s", c->ask->base,
                        skf_format_name(skf_model_format(c->base)));
    const struct skf_source *src = skf_model_source(c->base);
    SKF_TRY(skf_scratch_open(c->ask->out, src->size, &c->image, why));
    SKF_TRY(skf_source_read(src, 0, c->image.p, src->size));
    const struct skf_source image = skf_source_of(c->image.p, c->image.size);
    return skf_model_open_source(&image, c->ask->out, &c->made, why);
}

/* Steps that are likely: windows twice, fits, tries. */
static uint64_t expected(const struct calibrate *c)
{
    const struct calibrate_ask *a = c->ask;
    uint64_t tries = a->bytes || a->gain > 0 ? STEPS + 1 : 1;
    return 2 * c->n_windows + 3 * 4 + 2 * 6 + tries * (6 + (a->gain > 0 ? 2 : 0));
}

enum skf_err skf_calibrate(const struct calibrate_ask *ask, const struct calibrate_new *neu, skf_json *out, struct skf_why *why)
{
    struct calibrate c = {.ask = ask, .neu = neu};
    struct search s = {.c = &c, .curve = skf_json_arr()};
    enum skf_err e = s.curve ? SKF_OK : skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    if (e == SKF_OK)
        e = open_files(&c, why);
    if (e == SKF_OK)
        e = calibrate_open(&c, why);
    c.all_work = expected(&c);
    if (e == SKF_OK)
        e = open_quality(&s, why);
    if (e == SKF_OK)
        e = prepare(&c, why);
    if (e == SKF_OK)
        e = search(&s, why);
    if (e == SKF_OK)
        e = skf_file_write(ask->out, c.image.p, c.image.size, 0644, why);
    if (e == SKF_OK && report(&s, out) != SKF_OK)
        e = skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    if (e == SKF_OK) {
        skf_cli_progress_end();
        skf_quality_note(s.quality);
    }
    skf_json_free(s.curve);
    skf_quality_close(s.quality);
    calibrate_close(&c);
    return e;
}
