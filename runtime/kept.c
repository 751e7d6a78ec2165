/*
 * Matrices laid out for the kernels once and kept in the store (store/layout.h): made by a worker that was started for that alone, mapped by
 * those that serve.  The number of a part is that of the matrix (llama_priv.h), its kind the type.
 */
#include "runtime/lanes_priv.h"

#include "base/alloc.h"
#include "base/file.h"
#include "kernels/lanes.h"
#include "runtime/tokenizer_priv.h"
#include "store/layout.h"

_Static_assert(SKF_LANES_FORMAT == SKF_LAYOUT_LANES, "the agent knows the kernels' layout by the store's number");

#define SLICE ((uint64_t)1 << 20) /* bytes laid out at a time */

/* ---- using one ------------------------------------------------------------------------------------------------------------ */

struct copying {
    const uint8_t *from;
    uint8_t *to;
    uint64_t n;
};
struct copy_one {
    const struct copying *c;
    uint64_t at;
};

static enum skf_err copy_guarded(void *ctx, struct skf_why *why)
{
    const struct copy_one *o = ctx;
    (void)why;
    memcpy(o->c->to + o->at, o->c->from + o->at, (size_t)SKF_MIN(SLICE, o->c->n - o->at));
    return SKF_OK;
}

static enum skf_err copy_slice(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct copy_one o = {ctx, i * SLICE};
    (void)worker;
    return skf_map_guard(copy_guarded, &o, why);
}

/* *base: where the body lies, in memory of our own when there is enough of it. */
static enum skf_err place(struct skf_llama *l, enum skf_repack repack, unsigned threads, const uint8_t **base, struct skf_why *why)
{
    struct copying c = {0};
    SKF_TRY(skf_layout_verify(l->kept_layout, threads, why));
    *base = c.from = skf_layout_body(l->kept_layout, &c.n);
    if (repack == SKF_REPACK_SHARED || !(c.to = l->kept_lanes = skf_lanes_memory(c.n, repack == SKF_REPACK_ON)))
        return SKF_OK;
    *base = c.to;
    return skf_par_for(threads, (c.n + SLICE - 1) / SLICE, copy_slice, &c, why);
}

static void drop(struct skf_llama *l)
{
    skf_layout_close(l->kept_layout);
    l->kept_layout = NULL;
}

void skf_llama_kept(struct skf_llama *l, const struct skf_source *src, const struct skf_engine_kept *kept, enum skf_repack repack,
                    unsigned threads)
{
    struct skf_why why = {{0}};
    const uint8_t *base = NULL;
    uint32_t n = 0, of = 0;
    uint64_t total;
    enum skf_err e = skf_layout_open(kept->dir, kept->root, SKF_LANES_FORMAT, &l->kept_layout, &why);
    if (e == SKF_OK)
        e = place(l, repack, threads, &base, &why);
    if (e != SKF_OK) {
        skf_log(e == SKF_ERR_NOT_FOUND ? SKF_LOG_DEBUG : SKF_LOG_WARN, "kept layout not used: %s", why.text);
        drop(l);
        skf_free(l->kept_lanes);
        l->kept_lanes = NULL;
        return;
    }
    const uint8_t *body = skf_layout_body(l->kept_layout, &total);
    for (uint32_t k = 0; k < skf_llama_matrices(l); k++) {
        struct skf_weight *w = skf_llama_matrix(l, k);
        uint64_t bytes = w->packed ? 0 : skf_lanes_size(w);
        const uint8_t *part = bytes ? skf_layout_part(l->kept_layout, k, (uint32_t)w->type, bytes) : NULL;
        of += bytes > 0;
        if (!part)
            continue;
        w->lanes = base + (part - body);
        skf_weight_idle(src, w);
        n++;
    }
    skf_log(SKF_LOG_INFO, "%u of %u matrices as they were laid out before, %llu bytes %s", n, of, (unsigned long long)total,
            l->kept_lanes ? "copied" : "shared");
    if (l->kept_lanes)
        drop(l);
}

/* ---- making one ----------------------------------------------------------------------------------------------------------- */

struct piece { /* groups from .. to - 1 of the matrix of part i */
    uint32_t part, from, to;
};
struct laying {
    struct skf_llama *l;
    struct skf_layout_maker *maker;
    struct skf_layout_part *parts;
    uint32_t n_parts;
    struct piece *pieces;
    uint64_t n_pieces;
    uint8_t **buffer; /* of each thread, `most` bytes */
    uint64_t most;
    unsigned threads;
};

static uint32_t groups_of(const struct skf_weight *w) { return (w->rows + SKF_LANES - 1) / SKF_LANES; }

static enum skf_err lay_piece(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    const struct laying *y = ctx;
    const struct piece *p = &y->pieces[i];
    const struct skf_weight *w = skf_llama_matrix(y->l, y->parts[p->part].number);
    uint64_t group = y->parts[p->part].bytes / groups_of(w);
    /* Each group is put at its own place in the whole; the buffer stands for the bytes from the first one on. */
    uint8_t *whole = (uint8_t *)((uintptr_t)y->buffer[worker] - p->from * group);
    skf_lanes_lay(w, p->from, p->to, whole);
    return skf_layout_write(y->maker, p->part, p->from * group, y->buffer[worker], (size_t)((p->to - p->from) * group), why);
}

static uint32_t step_of(const struct laying *y, uint32_t part)
{
    uint64_t group = y->parts[part].bytes / groups_of(skf_llama_matrix(y->l, y->parts[part].number));
    return (uint32_t)SKF_MAX(SLICE / group, (uint64_t)1);
}

static enum skf_err plan(struct laying *y, uint64_t *bytes, struct skf_why *why)
{
    uint32_t all = skf_llama_matrices(y->l);
    y->parts = skf_calloc(all, sizeof *y->parts);
    for (uint32_t k = 0; y->parts && k < all; k++) {
        const struct skf_weight *w = skf_llama_matrix(y->l, k);
        uint64_t n = w->packed ? 0 : skf_lanes_size(w); /* what is packed is not multiplied from its rows */
        if (!n)
            continue;
        y->parts[y->n_parts] = (struct skf_layout_part){k, (uint32_t)w->type, n};
        uint32_t step = step_of(y, y->n_parts++);
        y->n_pieces += (groups_of(w) + step - 1) / step;
        y->most = SKF_MAX(y->most, n / groups_of(w) * step);
        *bytes += n;
    }
    y->pieces = y->parts ? skf_calloc((size_t)y->n_pieces + 1, sizeof *y->pieces) : NULL;
    y->buffer = skf_calloc(y->threads, sizeof *y->buffer);
    bool ok = y->pieces && y->buffer;
    for (unsigned i = 0; ok && i < y->threads; i++)
        ok = (y->buffer[i] = skf_aligned(64, (size_t)y->most + 64)) != NULL;
    if (!ok)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory to lay out matrices");
    struct piece *p = y->pieces;
    for (uint32_t i = 0; i < y->n_parts; i++) {
        uint32_t groups = groups_of(skf_llama_matrix(y->l, y->parts[i].number)), step = step_of(y, i);
        for (uint32_t g = 0; g < groups; g += SKF_MIN(step, groups - g))
            *p++ = (struct piece){i, g, g + SKF_MIN(step, groups - g)};
    }
    return SKF_OK;
}

static void forget(struct laying *y)
{
    for (unsigned i = 0; y->buffer && i < y->threads; i++)
        skf_free(y->buffer[i]);
    skf_free(y->buffer);
    skf_free(y->pieces);
    skf_free(y->parts);
}

static enum skf_err make(struct skf_llama *l, const struct skf_engine_kept *kept, enum skf_repack repack, unsigned threads, uint64_t *bytes,
                         struct skf_why *why)
{
    struct laying y = {.l = l, .threads = threads};
    uint64_t n = 0;
    enum skf_err e;
    SKF_GO(e, plan(&y, &n, why));
    if (!y.n_parts)
        goto out;
    SKF_GO(e, skf_layout_begin(kept->dir, kept->root, SKF_LANES_FORMAT, y.parts, y.n_parts, repack == SKF_REPACK_ON ? 0 : n, &y.maker, why));
    e = skf_par_for(threads, y.n_pieces, lay_piece, &y, why);
    if (e == SKF_OK) {
        e = skf_layout_commit(y.maker, threads, why);
        *bytes = n;
    } else {
        skf_layout_abort(y.maker);
    }
out:
    forget(&y);
    return e;
}

static bool is_kept_well(const struct skf_engine_kept *kept, unsigned threads, uint64_t *bytes)
{
    struct skf_layout *l = NULL;
    struct skf_why why = {{0}};
    enum skf_err e = skf_layout_open(kept->dir, kept->root, SKF_LANES_FORMAT, &l, &why);
    if (e == SKF_OK)
        e = skf_layout_verify(l, threads, &why);
    if (e == SKF_OK)
        *bytes = skf_layout_bytes(l);
    else if (e != SKF_ERR_NOT_FOUND)
        skf_log(SKF_LOG_WARN, "kept layout is made anew: %s", why.text);
    skf_layout_close(l);
    return e == SKF_OK;
}

enum skf_err skf_engine_lay_out(const struct skf_model *m, const struct skf_engine_kept *kept, enum skf_repack repack, unsigned threads,
                                uint64_t *bytes, struct skf_why *why)
{
    const struct skf_gguf *g = skf_model_gguf(m);
    struct skf_tokenizer *tk = NULL;
    struct skf_llama *l = NULL;
    enum skf_isa isa;
    *bytes = 0;
    threads = threads ? threads : skf_cpu_count();
    if (repack == SKF_REPACK_OFF || is_kept_well(kept, threads, bytes))
        return SKF_OK;
    if (!g)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "only GGUF models can be run, this is %s", skf_format_name(skf_model_format(m)));
    enum skf_err e;
    SKF_GO(e, skf_isa_pick(&isa, why));
    SKF_GO(e, skf_tokenizer_load(g, &tk, why));
    SKF_GO(e, skf_llama_load(m, skf_tokenizer_size(tk), &l, why));
    SKF_GO(e, skf_llama_pack(l, skf_model_source(m), isa, threads, why));
    e = make(l, kept, repack, threads, bytes, why);
out:
    skf_llama_free(l);
    skf_tokenizer_free(tk);
    return e;
}
