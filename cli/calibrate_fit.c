/* Every tensor fitted at one price (calibrate.h). Rows are independent of each other; sums are taken in the order of the rows. */
#include <string.h>

#include "base/alloc.h"
#include "cli/calibrate.h"

enum { PIECE = 64 }; /* rows of a task, a multiple of SKF_REFIT_ROWS */
/* Bits of a tensor that changes at all, in the delta: its name and digests; and of the first change of a code and a scale, which lists
 * by columns tell in so few. */
#define TENSOR_BITS 800
#define CODE_BITS   6
#define SCALE_BITS  2
#define REACH       1.5f /* twice is as good in large updates, and worse in small ones */

struct piece { /* what a task found out */
    double before, after, saved;
    uint64_t codes, scales;
};
struct worker {
    struct skf_refit_work *work;
    float *want;
};
struct fitting {
    struct calibrate *c;
    const struct calibrate_price *price;
    struct calibrate_tensor *t;
    struct piece *pieces;
    struct worker *workers;
};

static uint64_t rows_of(const struct calibrate_tensor *t) { return t->base->bytes / t->base->row_bytes; }

static uint8_t *image_of(const struct calibrate *c, const struct calibrate_tensor *t)
{
    return (uint8_t *)c->image.p + t->base->offset;
}

static enum skf_err fit_few(const struct fitting *f, const struct worker *w, uint64_t first, uint32_t count, struct piece *sum,
                            struct skf_why *why)
{
    const struct calibrate_tensor *t = f->t;
    struct skf_refit_result r[SKF_REFIT_ROWS];
    uint8_t *rows = image_of(f->c, t) + first * t->base->row_bytes;
    const struct skf_refit how = {.type = t->base->type,
                                  .columns = (uint32_t)t->base->dims[0],
                                  .inputs = f->c->inputs[t->input].sum,
                                  .price = (float)((double)f->price->bit / t->weight),
                                  .code_bits = CODE_BITS,
                                  .scale_bits = SCALE_BITS,
                                  .reach = REACH,
                                  .is_code_fixed = f->price->is_code_fixed,
                                  .is_scale_fixed = f->price->is_scale_fixed};
    SKF_TRY(f->c->neu->rows(f->c->neu->ctx, t->base, first, count, w->want, why));
    SKF_TRY(skf_source_read(skf_model_source(f->c->base), t->base->offset + first * t->base->row_bytes, rows, count * t->base->row_bytes));
    enum skf_err e = skf_refit_rows(&how, w->work, rows, t->base->row_bytes, w->want, count, r);
    if (e != SKF_OK)
        return skf_fail(why, e, "%s: tensor '%s' has values that are not finite, old or new", f->c->ask->base, t->base->name);
    for (uint32_t k = 0; k < count; k++) {
        sum->before += r[k].before;
        sum->after += r[k].after;
        sum->saved += r[k].saved;
        sum->codes += r[k].codes;
        sum->scales += r[k].scales;
    }
    return SKF_OK;
}

static enum skf_err fit_piece(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct fitting *f = ctx;
    uint64_t first = i * PIECE, end = SKF_MIN(first + PIECE, rows_of(f->t));
    f->pieces[i] = (struct piece){0};
    for (; first < end; first += SKF_REFIT_ROWS)
        SKF_TRY(fit_few(f, &f->workers[worker], first, (uint32_t)SKF_MIN(end - first, SKF_REFIT_ROWS), &f->pieces[i], why));
    return is_cancelled(&f->c->ask->progress) ? skf_fail(why, SKF_ERR_CANCELLED, "cancelled") : SKF_OK;
}

/* A tensor of floats takes the new weights, to nearest. */
static enum skf_err write_floats(const struct calibrate *c, const struct calibrate_tensor *t, struct skf_why *why)
{
    uint64_t n = t->base->dims[0], rows = rows_of(t);
    float *x = skf_alloc(n * sizeof *x);
    enum skf_err e = x ? SKF_OK : skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    for (uint64_t r = 0; e == SKF_OK && r < rows; r++) {
        e = c->neu->rows(c->neu->ctx, t->base, r, 1, x, why);
        if (e == SKF_OK)
            e = skf_quantize(t->base->type, x, image_of(c, t) + r * t->base->row_bytes, n);
    }
    skf_free(x);
    return e;
}

static enum skf_err fit_tensor(struct fitting *f, struct skf_why *why)
{
    struct calibrate_tensor *t = f->t;
    uint64_t n = (rows_of(t) + PIECE - 1) / PIECE;
    if (!t->is_fitted)
        return write_floats(f->c, t, why);
    SKF_TRY(skf_par_for(f->c->ask->jobs, n, fit_piece, f, why));
    t->before = t->after = 0;
    double saved = 0;
    t->codes = t->scales = 0;
    for (uint64_t i = 0; i < n; i++) {
        t->before += f->pieces[i].before;
        t->after += f->pieces[i].after;
        saved += f->pieces[i].saved;
        t->codes += f->pieces[i].codes;
        t->scales += f->pieces[i].scales;
    }
    if (SKF_MAX(saved, t->before - t->after) * t->weight > (double)f->price->bit * TENSOR_BITS)
        return SKF_OK;
    t->after = t->before;
    t->codes = t->scales = 0;
    return skf_source_read(skf_model_source(f->c->base), t->base->offset, image_of(f->c, t), t->base->bytes);
}

enum skf_err calibrate_fit(struct calibrate *c, const struct calibrate_price *p, struct skf_why *why)
{
    struct fitting f = {.c = c, .price = p};
    const unsigned jobs = c->ask->jobs ? c->ask->jobs : skf_cpu_count();
    uint64_t columns = SKF_REFIT_BLOCK, rows = 1;
    enum skf_err e = SKF_OK;
    for (size_t i = 0; i < c->n_tensors; i++) {
        rows = SKF_MAX(rows, rows_of(&c->tensors[i]));
        if (c->tensors[i].is_fitted)
            columns = SKF_MAX(columns, c->tensors[i].base->dims[0]);
    }
    f.pieces = skf_calloc(rows / PIECE + 1, sizeof *f.pieces);
    f.workers = skf_calloc(jobs, sizeof *f.workers);
    if (!f.pieces || !f.workers)
        e = SKF_ERR_NOMEM;
    for (unsigned k = 0; e == SKF_OK && k < jobs; k++) {
        e = skf_refit_work_new((uint32_t)columns, &f.workers[k].work);
        f.workers[k].want = skf_alloc(SKF_REFIT_ROWS * columns * sizeof(float));
        if (!f.workers[k].want)
            e = SKF_ERR_NOMEM;
    }
    if (e != SKF_OK)
        (void)skf_fail(why, e, "no memory for %u threads", jobs);
    for (size_t i = 0; e == SKF_OK && i < c->n_tensors; i++) {
        f.t = &c->tensors[i];
        e = fit_tensor(&f, why);
    }
    for (unsigned k = 0; f.workers && k < jobs; k++) {
        skf_refit_work_free(f.workers[k].work);
        skf_free(f.workers[k].want);
    }
    skf_free(f.workers);
    skf_free(f.pieces);
    return e == SKF_OK ? calibrate_tell(c, 4, why) : e;
}

double calibrate_error(const struct calibrate *c)
{
    double sum = 0;
    for (size_t i = 0; i < c->n_tensors; i++)
        sum += c->tensors[i].after * c->tensors[i].weight;
    return sum;
}
