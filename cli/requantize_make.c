/* Candidates of `skiff quantize --base` (requantize_priv.h). */
#include <float.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/digest.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/requantize_priv.h"
#include "delta/delta.h"

enum { PIECE = 1 << 20, PATH_SPACE = 4096, RANK_MOST = 16 };

static const char *const methods[] = {"sample", "uniform", "sign", "topk", "lowrank"}; /* by enum requant_method */
/* Below this distance from the old values, in steps, the new weights are taken for the old ones and small changes. */
#define DRIFTED 0.15
/* Changes of floats are first rounded to this many times their root mean square: what is smaller is mostly noise of the training. */
#define FLOAT_ROUND 3.0

/* ---- the plain file ------------------------------------------------------------------------------------------------------------ */
/* The types of the base's tensors, so that each has the grid it can stay on. */
static enum skf_err rules_of_base(const struct requant *r, struct skf_quantize_rule **rules, size_t *n)
{
    size_t count;
    const struct skf_tensor *t = skf_model_tensors(r->base, &count);
    *rules = skf_calloc(count + 1, sizeof **rules);
    *n = 0;
    if (!*rules)
        return SKF_ERR_NOMEM;
    for (size_t i = 0; i < count; i++) {
        const struct skf_quantize_kind *kind = skf_quantize_kind(skf_type_info((uint32_t)t[i].type)->name);
        if (kind && t[i].n_dims >= 2 && skf_model_find(r->in, t[i].name))
            (*rules)[(*n)++] = (struct skf_quantize_rule){t[i].name, kind};
    }
    return SKF_OK;
}

/* The type that most of the base's matrices have. */
static const struct skf_quantize_kind *kind_of_base(const struct requant *r)
{
    size_t n;
    const struct skf_tensor *t = skf_model_tensors(r->base, &n);
    const struct skf_quantize_kind *best = NULL;
    uint64_t most = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t all = 0;
        for (size_t k = 0; k < n && t[i].n_dims >= 2; k++)
            all += t[k].type == t[i].type && t[k].n_dims >= 2 ? t[k].dims[0] * (t[k].bytes / t[k].row_bytes) : 0;
        const struct skf_quantize_kind *kind = all > most ? skf_quantize_kind(skf_type_info((uint32_t)t[i].type)->name) : NULL;
        if (kind) {
            most = all;
            best = kind;
        }
    }
    return best;
}

/* Says in the file that it is not exactly what the training made. */
static struct skf_gguf_kv lossy_mark(uint8_t raw[24], const char *method)
{
    uint64_t n = strlen(method);
    skf_put_le64(raw, n);
    memcpy(raw + 8, method, n);
    return (struct skf_gguf_kv){{"skiff.lossy.method", strlen("skiff.lossy.method")},
                                {.type = SKF_GGUF_STRING, .count = 1, .raw = raw, .raw_len = 8 + n}};
}

static enum skf_err write_plain(struct requant *r, const struct skf_quantize_opts *o, const char *path, struct skf_why *why)
{
    struct skf_quantize_plan plan = {0};
    struct skf_quantize_stats stats;
    enum skf_err e = skf_quantize_plan(r->in, r->a->in, o, &plan, why);
    if (e == SKF_OK)
        e = skf_quantize_write(r->in, r->a->in, &plan, o, path, &stats, why);
    skf_quantize_plan_free(&plan);
    if (e == SKF_OK)
        e = skf_model_open(path, &r->plain, why);
    (void)unlink(path); /* the mapping keeps it */
    return e;
}

static enum skf_err make_plain(struct requant *r, struct skf_why *why)
{
    struct skf_quantize_rule *rules = NULL;
    uint8_t raw[24];
    char path[PATH_SPACE];
    struct skf_gguf_kv mark = lossy_mark(raw, methods[r->method]);
    struct skf_quantize_opts o = {.kind = r->a->kind, .jobs = r->a->jobs, .progress = &r->a->progress};
    int n = snprintf(path, sizeof path, "%s.%ld.part", r->a->out, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof path)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: the name is too long", r->a->out);
    const struct skf_quantize_kind *old = kind_of_base(r);
    if (!old)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: holds matrices of no type that can be written", r->a->base);
    if (o.kind && o.kind->type != old->type)
        return skf_fail(why, SKF_ERR_ARG, "%s: its matrices are %s, which --type %s does not keep; leave --type out", r->a->base, old->name,
                        o.kind->name);
    if (!is_regrid_type(old->type))
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: the grid of %s cannot be kept; f32, f16, bf16, q8_0, q4_0 to q5_1 and q4_k to q6_k can",
                        r->a->base, old->name);
    o.kind = o.kind ? o.kind : old;
    r->is_lossy = skf_type_info((uint32_t)o.kind->type)->block == 1;
    if (r->is_lossy) {
        o.extra = &mark;
        o.n_extra = 1;
    }
    enum skf_err e = rules_of_base(r, &rules, &o.n_rules);
    o.rules = rules;
    e = e == SKF_OK ? write_plain(r, &o, path, why) : skf_fail(why, e, "out of memory");
    skf_free(rules);
    return e;
}

/* ---- what is rewritten ----------------------------------------------------------------------------------------------------------- */
static bool is_like(const struct skf_tensor *a, const struct skf_tensor *b)
{
    return a && b && a->n_dims == b->n_dims && memcmp(a->dims, b->dims, sizeof a->dims) == 0;
}

static bool is_readable(enum skf_type t)
{
    float x[256];
    uint8_t zero[1024] = {0};
    const struct skf_type_info *info = skf_type_info((uint32_t)t);
    return info->block <= SKF_COUNT(x) && info->block_bytes <= sizeof zero && skf_dequantize(t, zero, x, info->block) == SKF_OK;
}

static enum skf_err list_tensors(struct requant *r, struct skf_why *why)
{
    size_t n;
    uint64_t pieces = 0;
    const struct skf_tensor *t = skf_model_tensors(r->plain, &n);
    r->tensors = skf_calloc(n + 1, sizeof *r->tensors);
    if (!r->tensors)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        const struct skf_tensor *in = skf_model_find(r->in, t[i].name), *base = skf_model_find(r->base, t[i].name);
        if (t[i].n_dims < 2 || !is_like(&t[i], base) || !is_like(&t[i], in) || base->type != t[i].type || !is_regrid_type(t[i].type) ||
            !is_readable(in->type) || t[i].bytes == 0)
            continue;
        r->tensors[r->n_tensors++] = (struct requant_tensor){.out = &t[i], .in = in, .base = base,
                                                             .is_embedding = strcmp(t[i].name, "token_embd.weight") == 0};
        pieces += t[i].bytes / t[i].row_bytes / (PIECE / t[i].row_bytes + 1) + 1;
    }
    if (!r->n_tensors)
        return skf_fail(why, SKF_ERR_ARG, "%s: has no matrix in common with %s, of one shape and type; is it the same model?",
                        r->a->base, r->a->in);
    r->pieces = skf_calloc(pieces, sizeof *r->pieces);
    if (!r->pieces)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < r->n_tensors; i++) {
        const struct skf_tensor *o = r->tensors[i].out;
        uint64_t rows = o->bytes / o->row_bytes, group = PIECE / o->row_bytes + 1;
        for (uint64_t at = 0; at < rows; at += group)
            r->pieces[r->n_pieces++] = (struct requant_piece){(uint32_t)i, at, SKF_MIN(group, rows - at)};
    }
    return SKF_OK;
}

/* Rows of the three files; memory of one task. */
struct rows {
    const struct requant *r;
    const struct requant_tensor *t;
    uint8_t *old, *in;
    float *x, *was;
};

static void rows_free(struct rows *w)
{
    skf_free(w->old);
    skf_free(w->in);
    skf_free(w->x);
    skf_free(w->was);
}

static enum skf_err rows_open(const struct requant *r, const struct requant_tensor *t, struct rows *w, struct skf_why *why)
{
    uint64_t n = t->out->dims[0];
    *w = (struct rows){r, t, skf_alloc(t->base->row_bytes), skf_alloc(t->in->row_bytes), skf_alloc(n * sizeof(float)),
                       skf_alloc(n * sizeof(float))};
    if (w->old && w->in && w->x && w->was)
        return SKF_OK;
    rows_free(w);
    return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
}

/* Row i: the old bytes, and the new weights as numbers. */
static enum skf_err rows_read(const struct rows *w, uint64_t i)
{
    const struct requant_tensor *t = w->t;
    SKF_TRY(skf_source_read(skf_model_source(w->r->base), t->base->offset + i * t->base->row_bytes, w->old, t->base->row_bytes));
    SKF_TRY(skf_source_read(skf_model_source(w->r->in), t->in->offset + i * t->in->row_bytes, w->in, t->in->row_bytes));
    return skf_dequantize(t->in->type, w->in, w->x, t->in->dims[0]);
}

static enum skf_err change_of_row(void *ctx, uint64_t i, float *change)
{
    struct rows *w = ctx;
    SKF_TRY(rows_read(w, i));
    SKF_TRY(skf_dequantize(w->t->base->type, w->old, w->was, w->t->out->dims[0]));
    for (uint64_t e = 0; e < w->t->out->dims[0]; e++)
        change[e] = w->x[e] - w->was[e];
    return SKF_OK;
}

/* Changes are sums and means: one number that is none, or is infinite, would spread or vanish without a word. */
static enum skf_err check_finite(const char *file, const struct requant_tensor *t, uint64_t row, const float *x, struct skf_why *why)
{
    for (uint64_t i = 0; i < t->out->dims[0]; i++)
        if (!(fabsf(x[i]) <= FLT_MAX))
            return skf_fail(why, SKF_ERR_FORMAT, "%s: tensor '%s' holds %s at row %llu, column %llu", file, t->out->name,
                            x[i] != x[i] ? "a value that is no number" : "an infinite value", (unsigned long long)row,
                            (unsigned long long)i);
    return SKF_OK;
}

static enum skf_err look_at(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct requant *r = ctx;
    struct requant_tensor *t = &r->tensors[i];
    struct skf_regrid_place place = {0};
    struct rows w;
    (void)worker;
    SKF_TRY(rows_open(r, t, &w, why));
    enum skf_err e = SKF_OK;
    uint64_t n = t->out->dims[0];
    bool is_float = skf_type_info((uint32_t)t->out->type)->block == 1, is_told = false;
    for (uint64_t k = 0; e == SKF_OK && k < t->out->bytes / t->out->row_bytes; k++) {
        SKF_GO(e, rows_read(&w, k));
        SKF_GO(e, skf_dequantize(t->base->type, w.old, w.was, n));
        is_told = true;
        SKF_GO(e, check_finite(r->a->in, t, k, w.x, why));
        if (r->method >= REQUANT_SIGN) /* the other ways take the new weights there */
            SKF_GO(e, check_finite(r->a->base, t, k, w.was, why));
        is_told = false;
        skf_lossy_add(&t->stats, w.was, w.x, n);
        if (!is_float)
            e = skf_regrid_place(t->out->type, w.old, w.x, n, &place);
    }
    if (place.n) {
        t->is_drifted = place.apart < DRIFTED * (double)place.n;
        t->moved = (float)((double)place.moved / (double)place.n);
    }
out:
    rows_free(&w);
    if (e == SKF_OK && is_cancelled(&r->a->progress))
        return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
    return e == SKF_OK || is_told ? e : skf_fail(why, e, "%s: tensor '%s' cannot be read (%s)", r->a->in, t->out->name, skf_err_name(e));
}

/* The same number for the same seed and name, wherever the tensor stands. */
static uint64_t seed_of(const struct requant *r, const char *name)
{
    uint8_t digest[SKF_DIGEST];
    skf_sha256(name, strlen(name), digest);
    return skf_le64(digest) ^ (r->a->seed + 1) * 0x9e3779b97f4a7c15u;
}

/* ---- a candidate --------------------------------------------------------------------------------------------------------------- */
/* first * by^n; no libm, whose last bit is not the same everywhere. */
static float grown(float first, float by, unsigned n)
{
    while (n--)
        first *= by;
    return first;
}

static void set_sample(struct requant_tensor *t, unsigned level)
{
    float n = (float)t->stats.n, old = sqrtf((float)(t->stats.square_old / n)), change = sqrtf((float)(t->stats.square / n));
    /* Half an octave a level, as a share of the root mean square of the tensor's values; and of a cell, what the codes move by. */
    t->how.regrid.step = grown(0.008f, 1.41421356f, level - 1) * old;
    t->how.regrid.keep = grown(0.05f, 1.5f, level - 1) * t->moved;
    t->how.regrid.edge = grown(0.5f, 1.12f, level - 1);
    t->how.regrid.round = (float)FLOAT_ROUND * change;
}

static void set_how(const struct requant *r, struct requant_tensor *t, unsigned level)
{
    const struct skf_lossy_stats *s = &t->stats;
    t->how = (struct skf_lossy){.way = level == REQUANT_ALONE ? SKF_LOSSY_ALONE : SKF_LOSSY_REGRID,
                                .regrid = {.is_drifted = t->is_drifted, .seed = seed_of(r, t->out->name)}};
    if (level == 0 || level == REQUANT_ALONE || s->n == 0)
        return;
    switch (r->method) {
    case REQUANT_SAMPLE:
        set_sample(t, level);
        break;
    case REQUANT_UNIFORM:
        t->how.regrid.round = sqrtf((float)(s->square / (double)s->n)) * grown(0.63f, 1.25992105f, level - 1);
        break;
    case REQUANT_SIGN:
        t->how.way = SKF_LOSSY_SIGN;
        t->how.size = (float)(s->size / (double)s->n);
        break;
    case REQUANT_TOPK:
        t->how.way = SKF_LOSSY_LARGE;
        t->how.size = skf_lossy_reached(s, (double)grown(0.5f, 0.70710678f, level - 1));
        break;
    default:
        t->how.way = SKF_LOSSY_FACTORS;
        t->how.rank = SKF_MAX((unsigned)RANK_MOST >> level / 2, 1u);
        t->how.factors = t->factors;
    }
}

static enum skf_err make_piece(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct requant *r = ctx;
    const struct requant_piece *p = &r->pieces[i];
    const struct requant_tensor *t = &r->tensors[p->tensor];
    const struct skf_source *plain = skf_model_source(r->plain);
    struct rows w;
    (void)worker;
    if (is_cancelled(&r->a->progress))
        return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
    SKF_TRY(rows_open(r, t, &w, why));
    enum skf_err e = SKF_OK;
    for (uint64_t k = p->row; e == SKF_OK && k < p->row + p->rows; k++) {
        uint64_t at = t->out->offset + k * t->out->row_bytes;
        SKF_GO(e, rows_read(&w, k));
        SKF_GO(e, skf_source_read(plain, at, r->map + at, t->out->row_bytes));
        e = skf_lossy_row(t->out->type, w.old, r->map + at, w.x, t->out->dims[0], k * t->out->dims[0], &t->how, w.was);
    }
out:
    rows_free(&w);
    return e == SKF_OK ? e : skf_fail(why, e, "%s: tensor '%s' cannot be written (%s)", r->a->in, t->out->name, skf_err_name(e));
}

static enum skf_err make(struct requant *r, unsigned matrices, unsigned embedding, struct skf_why *why)
{
    struct skf_source s = skf_source_of(r->map, r->size);
    if (r->has_now && r->now.matrices == matrices && r->now.embedding == embedding)
        return SKF_OK;
    skf_model_close(r->made);
    r->made = NULL;
    r->has_now = false;
    for (size_t i = 0; i < r->n_tensors; i++)
        set_how(r, &r->tensors[i], r->tensors[i].is_embedding ? embedding : matrices);
    SKF_TRY(skf_par_for(r->a->jobs, r->n_pieces, make_piece, r, why));
    SKF_TRY(skf_model_open_source(&s, r->a->out, &r->made, why));
    r->now = (struct requant_try){.matrices = matrices, .embedding = embedding};
    r->has_now = true;
    return SKF_OK;
}

/* Remembers what is known of a candidate. */
static struct requant_try *known(struct requant *r, unsigned matrices, unsigned embedding)
{
    for (size_t i = 0; i < r->n_tries; i++)
        if (r->tries[i].matrices == matrices && r->tries[i].embedding == embedding)
            return &r->tries[i];
    if (r->n_tries == REQUANT_TRIES)
        return NULL;
    r->tries[r->n_tries] = (struct requant_try){.matrices = matrices, .embedding = embedding};
    return &r->tries[r->n_tries++];
}

enum skf_err requant_try(struct requant *r, unsigned matrices, unsigned embedding, bool is_measured, struct requant_try *t,
                         struct skf_why *why)
{
    struct requant_try *k = known(r, matrices, embedding);
    struct skf_delta_stats stats;
    struct skf_delta_opts o = {.jobs = r->a->jobs, .progress = {.cancel = r->a->progress.cancel}};
    if (!k)
        return skf_fail(why, SKF_ERR_INTERNAL, "%s: the search does not end", r->a->out);
    if (k->bytes == 0 || (is_measured && k->perplexity == 0))
        SKF_TRY(make(r, matrices, embedding, why));
    if (k->bytes == 0) {
        SKF_TRY(skf_delta_build(r->base, r->made, NULL, &o, &stats, why));
        k->bytes = stats.bytes;
    }
    if (is_measured && k->perplexity == 0)
        SKF_TRY(skf_quality_measure(r->quality, r->made, r->a->out, &r->a->progress, &k->perplexity, why));
    *t = *k;
    skf_progress_tell(&r->a->progress, r->n_tries, REQUANT_TRIES); /* how long it takes is not known: that it goes on is shown */
    return SKF_OK;
}

enum skf_err requant_write(struct requant *r, const struct requant_try *t, struct skf_why *why)
{
    struct skf_draft *draft = NULL;
    SKF_TRY(make(r, t->matrices, t->embedding, why));
    SKF_TRY(skf_draft_open(r->a->out, r->size, 0644, &draft, why));
    enum skf_err e = SKF_OK;
    for (uint64_t at = 0, n; e == SKF_OK && at < r->size; at += n) {
        n = SKF_MIN(r->size - at, (uint64_t)PIECE);
        e = skf_draft_write_at(draft, at, r->map + at, n, why);
    }
    if (e == SKF_OK)
        return skf_draft_commit(draft, why);
    skf_draft_abort(draft);
    return e;
}

/* ---- opening --------------------------------------------------------------------------------------------------------------------- */
static enum skf_err find_factors(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct requant *r = ctx;
    struct requant_tensor *t = &r->tensors[i];
    uint64_t columns = t->out->dims[0];
    struct rows w;
    (void)worker;
    SKF_TRY(rows_open(r, t, &w, why));
    float *next = skf_calloc(RANK_MOST + 1, columns * sizeof *next);
    t->factors = skf_calloc(RANK_MOST, columns * sizeof *t->factors);
    enum skf_err e = SKF_ERR_NOMEM;
    if (next && t->factors)
        e = skf_lossy_factors(t->out->bytes / t->out->row_bytes, columns, RANK_MOST, change_of_row, &w, t->factors, next,
                              next + RANK_MOST * columns);
    skf_free(next);
    rows_free(&w);
    return e == SKF_OK ? e : skf_fail(why, e, "tensor '%s': its factors cannot be found (%s)", t->out->name, skf_err_name(e));
}

/* Room for a candidate, as large as the model: beside the output, not in memory. */
static enum skf_err open_map(struct requant *r, struct skf_why *why)
{
    r->size = skf_model_source(r->plain)->size;
    SKF_TRY(skf_scratch_open(r->a->out, r->size, &r->scratch, why));
    r->map = r->scratch.p;
    return skf_source_read(skf_model_source(r->plain), 0, r->map, r->size);
}

static enum skf_err take_method(struct requant *r, struct skf_why *why)
{
    for (unsigned i = 0; i < SKF_COUNT(methods); i++) {
        if (r->a->method && strcmp(r->a->method, methods[i]) == 0) {
            r->method = (enum requant_method)i;
            return SKF_OK;
        }
    }
    if (!r->a->method)
        return SKF_OK;
    return skf_fail(why, SKF_ERR_ARG, "--method %s is not known; sample, uniform, sign, topk and lowrank are", r->a->method);
}

bool has_drifted(const struct requant *r)
{
    for (size_t i = 0; i < r->n_tensors; i++)
        if (r->tensors[i].is_drifted)
            return true;
    return false;
}

static enum skf_err measure_bounds(struct requant *r, struct skf_why *why)
{
    const char *text = r->a->text ? r->a->text : r->a->calibrate;
    if (!text)
        return SKF_OK;
    SKF_TRY(skf_quality_open(r->plain, text, r->a->jobs, &r->quality, why));
    SKF_TRY(skf_quality_measure(r->quality, r->plain, r->a->in, &r->a->progress, &r->perplexity, why));
    if (r->a->gain <= 0)
        return SKF_OK;
    SKF_TRY(skf_quality_measure(r->quality, r->base, r->a->base, &r->a->progress, &r->base_perplexity, why));
    /* Of a change that plain rounding loses, the gain is that of the weights as they are. */
    r->goal = r->perplexity;
    return has_drifted(r) ? skf_quality_measure(r->quality, r->in, r->a->in, &r->a->progress, &r->goal, why) : SKF_OK;
}

enum skf_err requant_open(struct requant *r, const struct quantize_args *a, struct skf_why *why)
{
    *r = (struct requant){.a = a};
    SKF_TRY(take_method(r, why));
    SKF_TRY(skf_cli_model_open(a->in, &r->in, why));
    SKF_TRY(skf_cli_model_open(a->base, &r->base, why));
    if (!skf_model_gguf(r->in) || !skf_model_gguf(r->base))
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: not a GGUF file", skf_model_gguf(r->in) ? a->base : a->in);
    SKF_TRY(make_plain(r, why));
    if (a->method && !r->is_lossy)
        return skf_fail(why, SKF_ERR_ARG, "--method is for float versions, not for %s", a->out);
    SKF_TRY(list_tensors(r, why));
    SKF_TRY(open_map(r, why));
    SKF_TRY(skf_par_for(a->jobs, r->n_tensors, look_at, r, why));
    if (r->method == REQUANT_LOWRANK)
        SKF_TRY(skf_par_for(a->jobs, r->n_tensors, find_factors, r, why));
    return measure_bounds(r, why);
}

void requant_close(struct requant *r)
{
    skf_quality_close(r->quality);
    skf_model_close(r->made);
    skf_scratch_close(&r->scratch);
    for (size_t i = 0; i < r->n_tensors; i++)
        skf_free(r->tensors[i].factors);
    skf_free(r->tensors);
    skf_free(r->pieces);
    skf_model_close(r->plain);
    skf_model_close(r->base);
    skf_model_close(r->in);
}
