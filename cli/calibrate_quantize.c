/* skiff quantize --base --calibrate: a new model's weights, by their names in the old version, as those to calibrate for (quantize.h). */
#include "base/alloc.h"
#include "cli/calibrate.h"
#include "cli/cli.h"
#include "cli/quantize.h"

struct quantizing {
    const struct quantize_args *a;
    struct skf_model *in, *base;
};

/* Its counterpart; the one that is missing or shaped otherwise is refused. */
static enum skf_err find(const struct quantizing *q, const struct skf_tensor *t, const struct skf_tensor **in, struct skf_why *why)
{
    *in = skf_model_find(q->in, t->name);
    bool is_alike = *in != NULL;
    for (int i = 0; is_alike && i < SKF_MAX_DIMS; i++)
        is_alike = (*in)->dims[i] == t->dims[i];
    if (!is_alike)
        return skf_fail(why, SKF_ERR_ARG, "%s: tensor '%s' of %s %s; with --calibrate both must have the same tensors", q->a->in, t->name,
                        q->a->base, *in ? "has another shape" : "is not there");
    return SKF_OK;
}

static enum skf_err read_rows(const struct skf_model *m, const struct skf_tensor *t, uint64_t first, uint64_t count, float *x)
{
    uint8_t *raw = skf_alloc(count * t->row_bytes);
    enum skf_err e = raw ? skf_source_read(skf_model_source(m), t->offset + first * t->row_bytes, raw, count * t->row_bytes) : SKF_ERR_NOMEM;
    for (uint64_t r = 0; e == SKF_OK && r < count; r++)
        e = skf_dequantize(t->type, raw + r * t->row_bytes, x + r * t->dims[0], t->dims[0]);
    skf_free(raw);
    return e;
}

/* All of a tensor's bytes are the old ones. */
static bool is_same(const struct quantizing *q, const struct skf_tensor *a, const struct skf_tensor *b)
{
    uint8_t x[4096], y[4096];
    bool is = a->type == b->type && a->bytes == b->bytes;
    for (uint64_t at = 0; is && at < a->bytes; at += sizeof x) {
        uint64_t n = SKF_MIN(a->bytes - at, sizeof x);
        is = skf_source_read(skf_model_source(q->base), a->offset + at, x, n) == SKF_OK &&
             skf_source_read(skf_model_source(q->in), b->offset + at, y, n) == SKF_OK && memcmp(x, y, n) == 0;
    }
    return is;
}

static enum skf_err has(void *ctx, const struct skf_tensor *base, bool *is_new, struct skf_why *why)
{
    struct quantizing *q = ctx;
    const struct skf_tensor *in;
    SKF_TRY(find(q, base, &in, why));
    *is_new = !is_same(q, base, in);
    return SKF_OK;
}

static enum skf_err rows(void *ctx, const struct skf_tensor *base, uint64_t first, uint64_t count, float *x, struct skf_why *why)
{
    struct quantizing *q = ctx;
    const struct skf_tensor *in;
    SKF_TRY(find(q, base, &in, why));
    enum skf_err e = read_rows(q->in, in, first, count, x);
    return e == SKF_OK ? e : skf_fail(why, e, "%s: tensor '%s' cannot be read as numbers (%s)", q->a->in, in->name, skf_err_name(e));
}

static enum skf_err target(void *ctx, const struct skf_model **m, struct skf_why *why)
{
    struct quantizing *q = ctx;
    *m = q->in;
    return skf_model_gguf(q->in) ? SKF_OK
                                 : skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: not GGUF, so its quality cannot be measured", q->a->in);
}

enum skf_err skf_cli_quantize_calibrated(const struct quantize_args *a, skf_json *report, struct skf_why *why)
{
    struct quantizing q = {.a = a};
    const struct calibrate_new neu = {&q, has, rows, target};
    const struct calibrate_ask ask = {.base = a->base, .out = a->out, .calibrate = a->calibrate, .text = a->text, .bytes = a->bytes,
                                      .gain = a->gain, .jobs = a->jobs, .progress = a->progress};
    if (a->budget >= 0)
        return skf_fail(why, SKF_ERR_ARG, "--budget does not go with --calibrate; say --gain 90%% or --bytes 100K");
    if (a->method)
        return skf_fail(why, SKF_ERR_ARG, "--method does not go with --calibrate");
    enum skf_err e = skf_cli_model_open(a->in, &q.in, why);
    if (e == SKF_OK)
        e = skf_cli_model_open(a->base, &q.base, why);
    if (e == SKF_OK)
        e = skf_calibrate(&ask, &neu, report, why);
    skf_model_close(q.base);
    skf_model_close(q.in);
    return e;
}
