/*
 * The writing of a plan (quantize.h): pieces of whole rows are made by all threads into a buffer, which is then written in order,
 * so that memory is bounded and the bytes do not depend on the number of threads.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "model/model_priv.h"
#include "model/quant.h"
#include "model/quant_priv.h"
#include "model/quantize.h"

enum { PIECE = 1 << 16 /* elements, or one row */, BATCH = 16 << 20 /* bytes */, BATCH_PIECES = 64 };

struct run {
    const struct skf_model *m;
    const char *name;
    const struct skf_quantize_plan *plan;
    const struct skf_quantize_opts *o;
    struct skf_gguf_out *out;
    uint8_t *buffer;
    float threshold; /* of the whole model */
    atomic_uint_fast64_t zeroed;
    uint64_t done, pruned;
};

/* One tensor being made; a piece is `group` rows. */
struct making {
    struct run *r;
    const struct skf_quantize_line *l;
    uint64_t rows, group, row_bytes, first; /* the batch begins with piece `first` */
    float threshold;
    struct skf_prune_search search;
    atomic_uint_fast64_t *bins;
};

static struct making making_of(struct run *r, const struct skf_quantize_line *l)
{
    const struct skf_tensor *t = l->from;
    struct making k = {.r = r, .l = l, .rows = t->bytes / t->row_bytes, .threshold = r->threshold};
    uint64_t fit = PIECE / t->dims[0];
    k.group = fit ? fit : 1;
    k.row_bytes = k.rows ? l->bytes / k.rows : 0;
    return k;
}

static uint64_t pieces_of(const struct making *k) { return (k->rows + k->group - 1) / k->group; }

/* ---- reading ------------------------------------------------------------------------------------------------------------- */
static enum skf_err not_finite(const struct making *k, uint64_t row, uint64_t column, float v, struct skf_why *why)
{
    const struct skf_tensor *t = k->l->from;
    return skf_fail(why, SKF_ERR_FORMAT, "%s: tensor '%.*s' holds %s at row %llu, column %llu", k->r->name,
                    (int)SKF_MIN_NAME(strlen(t->name)), t->name, v != v ? "a value that is no number" : "an infinite value",
                    (unsigned long long)row, (unsigned long long)column);
}

/* The rows of a piece as float32, all finite; *x with skf_free. */
static enum skf_err load(const struct making *k, uint64_t piece, float **x, uint64_t *rows, struct skf_why *why)
{
    const struct skf_tensor *t = k->l->from;
    uint64_t first = piece * k->group, n = t->dims[0];
    *rows = SKF_MIN(k->group, k->rows - first);
    uint8_t *scratch = skf_alloc(*rows * t->row_bytes);
    const uint8_t *raw;
    *x = skf_alloc(*rows * n * sizeof **x);
    enum skf_err e = SKF_ERR_NOMEM;
    if (!scratch || !*x)
        goto out;
    SKF_GO(e, skf_source_view(skf_model_source(k->r->m), t->offset + first * t->row_bytes, *rows * t->row_bytes, scratch, &raw));
    SKF_GO(e, skf_dequantize(t->type, raw, *x, *rows * n));
    for (uint64_t i = 0; i < *rows * n; i++) {
        if (!(fabsf((*x)[i]) <= FLT_MAX)) {
            e = not_finite(k, first + i / n, i % n, (*x)[i], why);
            break;
        }
    }
out:
    skf_free(scratch);
    if (e == SKF_OK)
        return e;
    skf_free(*x);
    *x = NULL;
    return e == SKF_ERR_FORMAT ? e : skf_fail(why, e, "%s: tensor '%s': %s", k->r->name, t->name, skf_err_name(e));
}

/* ---- pruning ------------------------------------------------------------------------------------------------------------- */
/* The importance of a row's inputs; NULL when all are alike. */
static const float *importance_of(const struct making *k, uint64_t row)
{
    const struct skf_tensor *t = k->l->from;
    return k->l->importance ? k->l->importance + row / t->dims[1] % t->dims[2] * t->dims[0] : NULL;
}

/* What the weights of a row matter: into `room`, or `x` itself. */
static const float *scores_of(const struct making *k, const float *x, uint64_t row, float *room)
{
    const float *importance = importance_of(k, row);
    if (!importance)
        return x;
    for (uint64_t i = 0; i < k->l->from->dims[0]; i++)
        room[i] = x[i] * sqrtf(importance[i]);
    return room;
}

static enum skf_err count_piece(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct making *k = ctx;
    float *x, *room;
    uint64_t rows, n = k->l->from->dims[0], bins[SKF_PRUNE_BINS] = {0};
    (void)worker;
    if (is_cancelled(k->r->o->progress))
        return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
    SKF_TRY(load(k, i, &x, &rows, why));
    room = skf_alloc(n * sizeof *room);
    for (uint64_t r = 0; room && r < rows; r++)
        skf_prune_count(&k->search, scores_of(k, x + r * n, i * k->group + r, room), n, bins);
    skf_free(x);
    skf_free(room);
    if (!room)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", k->r->name);
    for (size_t b = 0; b < SKF_PRUNE_BINS; b++)
        if (bins[b])
            atomic_fetch_add(&k->bins[b], bins[b]);
    return SKF_OK;
}

/* The threshold under which `share` of the elements of `only` (NULL: of every pruned tensor) lie. */
static enum skf_err find_threshold(struct run *r, const struct skf_quantize_line *only, float *threshold, struct skf_why *why)
{
    atomic_uint_fast64_t *bins = skf_calloc(SKF_PRUNE_BINS, sizeof *bins);
    struct skf_prune_search s = {0};
    uint64_t plain[SKF_PRUNE_BINS], elements = 0;
    enum skf_err e = SKF_OK;
    if (!bins)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", r->name);
    for (size_t i = 0; i < r->plan->n; i++) {
        const struct skf_quantize_line *l = &r->plan->lines[i];
        if (l->is_pruned && (!only || l == only))
            elements += l->from->bytes / l->from->row_bytes * l->from->dims[0];
    }
    s.rank = (uint64_t)(r->o->prune->share * (double)elements);
    *threshold = 0; /* nothing but what is zero already */
    if (s.rank == 0)
        goto out;
    while (s.pass < SKF_PRUNE_PASSES) {
        for (size_t b = 0; b < SKF_PRUNE_BINS; b++)
            atomic_store(&bins[b], 0);
        for (size_t i = 0; i < r->plan->n; i++) {
            const struct skf_quantize_line *l = &r->plan->lines[i];
            if (!l->is_pruned || (only && l != only))
                continue;
            struct making k = making_of(r, l);
            k.search = s;
            k.bins = bins;
            SKF_GO(e, skf_par_for(r->o->jobs, pieces_of(&k), count_piece, &k, why));
        }
        for (size_t b = 0; b < SKF_PRUNE_BINS; b++)
            plain[b] = atomic_load(&bins[b]);
        skf_prune_step(&s, plain);
    }
    *threshold = skf_prune_found(&s);
out:
    skf_free(bins);
    return e;
}

/* The piece's rows from `first` on. */
static enum skf_err prune(struct making *k, float *x, uint64_t first, uint64_t rows, struct skf_why *why)
{
    const struct skf_prune *p = k->r->o->prune;
    uint64_t n = k->l->from->dims[0], zeros = 0;
    float *room = skf_alloc(n * sizeof *room);
    if (!room)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", k->r->name);
    for (uint64_t r = 0; r < rows; r++) {
        const float *score = scores_of(k, x + r * n, first + r, room);
        zeros += p->of ? skf_prune_groups(x + r * n, score, n, p) : skf_prune_small(x + r * n, score, n, k->threshold);
    }
    skf_free(room);
    atomic_fetch_add(&k->r->zeroed, zeros);
    return SKF_OK;
}

/* ---- making -------------------------------------------------------------------------------------------------------------- */
/* One scale for the whole row: that of its largest value. Blocks of Q8_0 that all repeat it. */
static void int8_row(const float *x, uint8_t *q, uint64_t n)
{
    float most = 0;
    for (uint64_t i = 0; i < n; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    uint16_t half = skf_f32_to_f16(most / 127.0f);
    float d = skf_f16_to_f32(half);
    for (uint64_t i = 0; i < n; i++) {
        if (i % 32 == 0) {
            skf_put_le16(q, half);
            q += 2;
        }
        *q++ = (uint8_t)skf_round_127(d > 0 ? x[i] / d : 0.0f);
    }
}

/* A half that overflows makes a whole block infinite. */
static enum skf_err check_range(const struct making *k, float *x, uint64_t row, const uint8_t *q, struct skf_why *why)
{
    const struct skf_tensor *t = k->l->from;
    float most = 0, at = 0;
    for (uint64_t i = 0; i < t->dims[0]; i++) {
        if (fabsf(x[i]) > most) {
            most = fabsf(x[i]);
            at = x[i];
        }
    }
    if (most < 65000.0f)
        return SKF_OK;
    SKF_TRY(skf_dequantize(k->l->type, q, x, t->dims[0]));
    for (uint64_t i = 0; i < t->dims[0]; i++)
        if (!(fabsf(x[i]) <= FLT_MAX))
            return skf_fail(why, SKF_ERR_FORMAT, "%s: tensor '%.*s' holds %g in row %llu, too large for %s", k->r->name,
                            (int)SKF_MIN_NAME(strlen(t->name)), t->name, (double)at, (unsigned long long)row,
                            skf_type_info((uint32_t)k->l->type)->name);
    return SKF_OK;
}

static enum skf_err make_row(const struct making *k, float *x, uint64_t row, uint8_t *q, struct skf_why *why)
{
    const struct skf_quantize_line *l = k->l;
    const struct skf_tensor *t = l->from;
    if (l->is_row_scaled)
        int8_row(x, q, t->dims[0]);
    else if (l->is_pruned)
        SKF_TRY(skf_quantize_sparse(l->type, x, importance_of(k, row), q, t->dims[0]));
    else
        SKF_TRY(skf_quantize_weighed(l->type, x, importance_of(k, row), q, t->dims[0]));
    return check_range(k, x, row, q, why);
}

static enum skf_err make_piece(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct making *k = ctx;
    float *x;
    uint64_t rows, n = k->l->from->dims[0];
    (void)worker;
    if (is_cancelled(k->r->o->progress))
        return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
    SKF_TRY(load(k, k->first + i, &x, &rows, why));
    enum skf_err e = k->l->is_pruned ? prune(k, x, (k->first + i) * k->group, rows, why) : SKF_OK;
    for (uint64_t r = 0; e == SKF_OK && r < rows; r++)
        e = make_row(k, x + r * n, (k->first + i) * k->group + r, k->r->buffer + (i * k->group + r) * k->row_bytes, why);
    skf_free(x);
    return e;
}

static enum skf_err tell(struct run *r, uint64_t n, struct skf_why *why)
{
    r->done += n;
    skf_progress_tell(r->o->progress, r->done, r->plan->bytes);
    return is_cancelled(r->o->progress) ? skf_fail(why, SKF_ERR_CANCELLED, "cancelled") : SKF_OK;
}

static enum skf_err make_tensor(struct run *r, const struct skf_quantize_line *l, struct skf_why *why)
{
    struct making k = making_of(r, l);
    uint64_t pieces = pieces_of(&k), batch = BATCH / (k.group * k.row_bytes);
    batch = SKF_MIN(SKF_MAX(batch, 1), BATCH_PIECES);
    if (l->is_pruned) {
        r->pruned += k.rows * l->from->dims[0];
        if (!r->o->prune->of && !r->o->prune->is_global)
            SKF_TRY(find_threshold(r, l, &k.threshold, why));
    }
    r->buffer = skf_alloc(SKF_MIN(batch, pieces) * k.group * k.row_bytes);
    if (!r->buffer)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", r->name);
    enum skf_err e = SKF_OK;
    for (k.first = 0; e == SKF_OK && k.first < pieces; k.first += batch) {
        uint64_t n = SKF_MIN(batch, pieces - k.first), rows = SKF_MIN(n * k.group, k.rows - k.first * k.group);
        e = skf_par_for(r->o->jobs, n, make_piece, &k, why);
        if (e == SKF_OK)
            e = skf_gguf_out_data(r->out, r->buffer, rows * k.row_bytes, why);
        if (e == SKF_OK)
            e = tell(r, rows * k.row_bytes, why);
    }
    skf_free(r->buffer);
    r->buffer = NULL;
    return e;
}

static enum skf_err copy_tensor(struct run *r, const struct skf_tensor *t, struct skf_why *why)
{
    const struct skf_source *src = skf_model_source(r->m);
    for (uint64_t at = 0; at < t->bytes;) {
        const uint8_t *p;
        uint64_t n;
        SKF_TRY(src->span(src->ctx, t->offset + at, &p, &n));
        n = SKF_MIN(n, SKF_MIN(t->bytes - at, (uint64_t)BATCH));
        SKF_TRY(skf_gguf_out_data(r->out, p, n, why));
        SKF_TRY(tell(r, n, why));
        at += n;
    }
    return SKF_OK;
}

/* ---- the head ------------------------------------------------------------------------------------------------------------- */
static bool is_key(const struct skf_gguf_kv *kv, const char *key)
{
    return kv->key.n == strlen(key) && memcmp(kv->key.p, key, kv->key.n) == 0;
}

/* Whether a key of the source gives way to one of those to be added. */
static bool is_replaced(const struct skf_quantize_opts *o, const struct skf_gguf_kv *kv)
{
    for (size_t i = 0; i < o->n_extra; i++)
        if (kv->key.n == o->extra[i].key.n && memcmp(kv->key.p, o->extra[i].key.p, kv->key.n) == 0)
            return true;
    return false;
}

static enum skf_err put_head(struct run *r)
{
    static const char file_type[] = "general.file_type", version[] = "general.quantization_version";
    const struct skf_gguf *g = skf_model_gguf(r->m);
    bool has_type = false, has_version = false, is_quantized = false;
    for (uint64_t i = 0; i < g->n_kv; i++) {
        bool is_type = is_key(&g->kv[i], file_type);
        has_type = has_type || is_type;
        has_version = has_version || is_key(&g->kv[i], version);
        if (is_replaced(r->o, &g->kv[i]))
            continue;
        SKF_TRY(is_type ? skf_gguf_out_u32(r->out, file_type, r->o->kind->file_type) : skf_gguf_out_kv(r->out, &g->kv[i]));
    }
    for (size_t i = 0; i < r->plan->n; i++)
        is_quantized = is_quantized || skf_type_info((uint32_t)r->plan->lines[i].type)->block > 1;
    if (!has_type)
        SKF_TRY(skf_gguf_out_u32(r->out, file_type, r->o->kind->file_type));
    if (!has_version && is_quantized)
        SKF_TRY(skf_gguf_out_u32(r->out, version, 2));
    for (size_t i = 0; i < r->o->n_extra; i++)
        SKF_TRY(skf_gguf_out_kv(r->out, &r->o->extra[i]));
    for (size_t i = 0; i < r->plan->n; i++) {
        struct skf_tensor t = *r->plan->lines[i].from;
        t.type = r->plan->lines[i].type;
        SKF_TRY(skf_gguf_out_tensor(r->out, &t));
    }
    return SKF_OK;
}

enum skf_err skf_quantize_write(const struct skf_model *m, const char *name, const struct skf_quantize_plan *plan,
                                const struct skf_quantize_opts *o, const char *out_path, struct skf_quantize_stats *stats,
                                struct skf_why *why)
{
    struct run r = {.m = m, .name = name, .plan = plan, .o = o};
    uint64_t begun = skf_now_ns();
    enum skf_err e;
    *stats = (struct skf_quantize_stats){0};
    e = skf_gguf_out_new(skf_model_gguf(m)->alignment, &r.out);
    if (e == SKF_OK)
        e = put_head(&r);
    if (e != SKF_OK) {
        e = skf_fail(why, e, "%s: its head cannot be written anew (%s)", name, skf_err_name(e));
        goto out;
    }
    if (o->prune && o->prune->is_global && !o->prune->of)
        SKF_GO(e, find_threshold(&r, NULL, &r.threshold, why));
    SKF_GO(e, skf_gguf_out_begin(r.out, out_path, why));
    for (size_t i = 0; i < plan->n; i++) {
        const struct skf_quantize_line *l = &plan->lines[i];
        bool is_copied = l->type == l->from->type && !l->is_row_scaled && !l->is_pruned;
        SKF_GO(e, is_copied ? copy_tensor(&r, l->from, why) : make_tensor(&r, l, why));
    }
    SKF_GO(e, skf_gguf_out_commit(r.out, why));
out:
    skf_gguf_out_free(r.out);
    stats->pruned = r.pruned;
    stats->zeroed = atomic_load(&r.zeroed);
    stats->seconds = (double)(skf_now_ns() - begun) / 1e9;
    return e;
}
