/*
 * A delta from two models: cut both, find what is there already, code the rest chunk by chunk on all threads, then write head,
 * index and payloads in order.  The bytes depend on the two models and the level alone, never on the threads.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "delta/build_priv.h"
#include "delta/pair_priv.h"

static enum skf_err no_memory(struct skf_why *why) { return skf_fail(why, SKF_ERR_NOMEM, "out of memory"); }

/* ---- sides ----------------------------------------------------------------------------------------------------------------------- */

enum skf_err build_add_side(struct build *b, uint32_t tensor, enum skf_coding coding, const uint8_t *p, size_t n,
                            struct skf_why *why)
{
    struct build_side *s = &b->sides[tensor];
    if (n == 0 || n > SKF_SIDE_MAX || s->n)
        return skf_fail(why, SKF_ERR_INTERNAL, "a side of %zu bytes", n);
    if (!(s->p = skf_memdup(p, n)))
        return no_memory(why);
    s->n = (uint32_t)n;
    s->coding = (uint8_t)coding;
    skf_sha256(p, n, s->digest);
    return build_spool_put(&b->spool, p, n, &s->spooled, why);
}

const uint8_t *build_side_of(const struct build *b, uint32_t t, enum skf_coding coding, size_t *n)
{
    bool has = t != SKD_NO_TENSOR && b->sides[t].n && b->sides[t].coding == coding;
    *n = has ? b->sides[t].n : 0;
    return has ? b->sides[t].p : NULL;
}

static void chunk_done(struct build *b, uint64_t i)
{
    struct build_side *s = b->tensor_of[i] == SKD_NO_TENSOR ? NULL : &b->sides[b->tensor_of[i]];
    if (!s || b->chunks[i].coding == SKF_CODE_COPY || atomic_fetch_sub(&s->left, 1) != 1)
        return;
    skf_free(s->p);
    s->p = NULL;
}

/* ---- steps, which a file cut short under them must not end by a signal ------------------------------------------------------------ */
struct step {
    struct build *b;
    unsigned worker;
    uint64_t i;
    enum { CODE, SIDE, PACK } what;
};

static enum skf_err run_step(void *ctx, struct skf_why *why)
{
    struct step *s = ctx;
    if (s->what == CODE)
        return build_chunk(s->b, s->worker, s->i, why);
    return s->what == SIDE ? build_find_side(s->b, s->worker, s->i, why) : build_pack_piece(s->b, s->worker, s->i, why);
}

static enum skf_err guarded(struct step *s, struct skf_why *why)
{
    struct build *b = s->b;
    uint64_t begun = skf_now_ns();
    enum skf_err e = skf_map_guard(run_step, s, why);
    skf_progress_rest(b->progress, begun);
    if (e == SKF_ERR_IO) { /* a step that was left may hold a lock; those of others refuse */
        for (unsigned k = 0; k < BUILD_HEAVY; k++)
            (void)pthread_mutex_unlock(&b->heavy[k].lock);
        (void)pthread_mutex_unlock(&b->adapter_lock);
    }
    return e;
}

static enum skf_err chunk_step(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    SKF_TRY(guarded(&(struct step){.b = ctx, .worker = worker, .i = i}, why));
    chunk_done(ctx, i);
    return SKF_OK;
}

static enum skf_err side_step(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    return guarded(&(struct step){.b = ctx, .worker = worker, .i = i, .what = SIDE}, why);
}

static enum skf_err pack_step(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    return guarded(&(struct step){.b = ctx, .worker = worker, .i = i, .what = PACK}, why);
}

static void init_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t a;
    (void)pthread_mutexattr_init(&a);
    (void)pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK); /* whose owner alone can unlock it */
    (void)pthread_mutex_init(lock, &a);
    (void)pthread_mutexattr_destroy(&a);
}

/* ---- progress: hashing both, coding what is not there, and packing some of it are one way, on which a byte hashed is an eighth of one coded */
#define HASH_STEP 8

static void tell_whole(void *ctx, uint64_t done, uint64_t total)
{
    const struct build *b = ctx;
    skf_progress_tell(b->whole, SKF_MIN(b->before + done / b->step, b->all), b->all);
}

static void begin_progress(struct build *b, const struct skf_progress *whole)
{
    uint64_t old = b->old_source->size / HASH_STEP, neu = b->neu_source->size;
    b->whole = whole;
    b->pace = (struct skf_progress){.fn = tell_whole, .ctx = b, .cancel = whole->cancel, .share = whole->share};
    b->progress = &b->pace;
    b->step = HASH_STEP;
    b->all = old + neu / HASH_STEP + neu;
}

static void begin_coding(struct build *b)
{
    b->before = (b->old_cut.size + b->also_cut.size + b->neu_cut.size) / HASH_STEP;
    b->step = 1;
    b->all = b->before;
    for (uint64_t i = 0; i < b->neu_cut.n; i++)
        b->all += b->chunks[i].coding == SKF_CODE_COPY ? 0 : b->neu_cut.chunks[i].length;
    b->all += b->may_pack;
}

/* ---- the plan -------------------------------------------------------------------------------------------------------------------- */

struct had { /* chunks that are there already */
    const struct skf_cut *cut;
    struct skf_by_digest by;
    uint64_t at, likely; /* where the cut's bytes begin in the source */
};

/* Makes r a copy of a chunk with c's bytes, if there is one. Both go on side by side: of chunks that are alike the one in the same place is the
 * best to copy. */
static bool is_copied(struct had *h, const struct skf_chunk *c, struct skd_out_chunk *r)
{
    uint64_t from = skf_by_digest_find(&h->by, c, h->likely);
    if (from != UINT64_MAX) {
        r->coding = SKF_CODE_COPY;
        r->source_offset = h->at + h->cut->chunks[from].offset;
        r->source_length = c->length;
        h->likely = from + 1;
    } else if (h->likely < h->cut->n && h->cut->chunks[h->likely].length == c->length) {
        h->likely++;
    }
    return from != UINT64_MAX;
}

/* Each chunk's record as far as it is known before coding: place, digest, copies; and the tensor it lies in. */
static enum skf_err place_chunks(struct build *b, struct skf_why *why, bool *needs_anchors)
{
    uint64_t n = b->neu_cut.n;
    size_t t = 0;
    struct had have[2] = {{.cut = &b->old_cut}, {.cut = &b->also_cut, .at = b->old_cut.size}};
    b->chunks = skf_calloc(n, sizeof *b->chunks);
    b->spooled = skf_calloc(n, sizeof *b->spooled);
    b->tensor_of = skf_calloc(n, sizeof *b->tensor_of);
    b->alone = skf_calloc(n, sizeof *b->alone);
    if (!b->chunks || !b->spooled || !b->tensor_of || !b->alone || skf_by_digest_make(&b->old_cut, &have[0].by) != SKF_OK)
        return no_memory(why);
    if (skf_by_digest_make(&b->also_cut, &have[1].by) != SKF_OK) {
        skf_by_digest_free(&have[0].by);
        return no_memory(why);
    }
    *needs_anchors = false;
    for (uint64_t i = 0; i < n; i++) {
        const struct skf_chunk *c = &b->neu_cut.chunks[i];
        struct skd_out_chunk *r = &b->chunks[i];
        r->result_offset = c->offset;
        r->result_length = c->length;
        memcpy(r->result_digest, c->digest, SKF_DIGEST);
        while (t < b->n_tensors && b->tensors[t].offset + b->tensors[t].bytes <= c->offset)
            t++;
        bool is_inside = t < b->n_tensors && b->tensors[t].offset <= c->offset;
        b->tensor_of[i] = is_inside ? (uint32_t)t : SKD_NO_TENSOR;
        if (is_copied(&have[0], c, r) || (b->also && is_copied(&have[1], c, r)))
            continue;
        r->coding = SKF_CODE_RAW;
        if (is_inside)
            atomic_fetch_add(&b->sides[t].left, 1);
        *needs_anchors = *needs_anchors || !is_inside || (!b->pairs[t] && !build_cast_of(b, (uint32_t)t));
        b->may_pack += is_inside ? 0 : c->length;
    }
    skf_by_digest_free(&have[0].by);
    skf_by_digest_free(&have[1].by);
    return SKF_OK;
}

static enum skf_err open_workers(struct build *b, struct skf_why *why)
{
    b->workers = skf_calloc(b->jobs, sizeof *b->workers);
    if (!b->workers)
        return no_memory(why);
    for (unsigned i = 0; i < b->jobs; i++) {
        b->workers[i].out = b->workers[i].trial = SKF_BUF_INIT(SKF_CHUNK_MAX);
        if (skf_work_init(&b->workers[i].work) != SKF_OK)
            return no_memory(why);
    }
    return SKF_OK;
}

static void close_workers(struct build *b)
{
    for (unsigned i = 0; b->workers && i < b->jobs; i++) {
        struct build_worker *w = &b->workers[i];
        skf_work_free(&w->work);
        skf_buf_free(&w->out);
        skf_buf_free(&w->trial);
        skf_area_free(&w->room.rest);
        skf_area_free(&w->room.zeros);
        skf_area_free(&w->neu);
        skf_area_free(&w->old);
        skf_area_free(&w->best);
        skf_area_free(&w->check);
        skf_area_free(&w->adapter);
        skf_area_free(&w->place);
    }
    skf_free(b->workers);
    b->workers = NULL;
    for (unsigned i = 0; i < BUILD_HEAVY; i++) {
        skf_zenc_free(b->heavy[i].enc);
        struct build_heavy *h = &b->heavy[i];
        struct skf_area *all[] = {&h->source, &h->match, &h->room.rest, &h->room.zeros};
        for (size_t k = 0; k < SKF_COUNT(all); k++)
            skf_area_free(all[k]);
        skf_buf_free(&h->trial);
        skf_buf_free(&h->out);
        b->heavy[i].enc = NULL;
    }
}

static struct skd_out_tensor packed_record(const struct build *b, const struct build_pack *p)
{
    struct skd_out_tensor r = {.type = SKF_T_I8, .row_bytes = 1, .offset = b->chunks[p->first].result_offset, .bytes = p->bytes,
                               .side_length = p->n, .side_coding = SKF_CODE_PACK, .side_spooled = p->spooled};
    memcpy(r.side_digest, p->digest, SKF_DIGEST);
    return r;
}

/* The directory: tensors that some INT or ADAPTER chunk refers to, and packed pieces. */
static enum skf_err list_tensors(const struct build *b, struct skd_out_tensor **out, uint64_t *n, struct skf_why *why)
{
    *n = 0;
    *out = skf_calloc(b->n_tensors + b->n_packs, sizeof **out);
    if (!*out)
        return no_memory(why);
    uint32_t last = SKD_NO_TENSOR;
    struct skd_out_tensor *r = NULL;
    const struct build_pack *pack = b->packs;
    for (uint64_t i = 0; i < b->neu_cut.n; i++) {
        for (; pack && pack < b->packs + b->n_packs && pack->first <= i; pack++)
            if (pack->n)
                (*out)[(*n)++] = packed_record(b, pack);
        if (b->chunks[i].coding != SKF_CODE_INT && b->chunks[i].coding != SKF_CODE_ADAPTER)
            continue;
        if (b->tensor_of[i] != last) {
            last = b->tensor_of[i];
            const struct skf_tensor *t = &b->tensors[last], *o = b->pairs[last];
            r = &(*out)[(*n)++];
            *r = (struct skd_out_tensor){.type = t->type,
                                         .row_bytes = t->row_bytes, .offset = t->offset, .bytes = t->bytes,
                                         .source_offset = o->offset, .source_bytes = o->bytes};
        }
        const struct build_side *s = &b->sides[last];
        if (s->n && s->coding == b->chunks[i].coding) {
            r->side_length = s->n;
            r->side_coding = s->coding;
            r->side_spooled = s->spooled;
            memcpy(r->side_digest, s->digest, SKF_DIGEST);
        }
    }
    return SKF_OK;
}

/* One payload from the spool to its place. */
static enum skf_err move_payload(const struct build *b, struct skf_draft *d, uint8_t *piece, uint64_t spooled, uint64_t n,
                                 uint64_t *at, struct skf_why *why)
{
    for (uint64_t k; n; n -= k, spooled += k, *at += k) {
        k = SKF_MIN(n, (uint64_t)SKF_CHUNK_MAX);
        SKF_TRY(build_spool_get(&b->spool, spooled, piece, k, why));
        SKF_TRY(skf_draft_write_at(d, *at, piece, k, why));
    }
    return SKF_OK;
}

/* Head, index, payloads. With out_path NULL only the size is found. */
static enum skf_err write_out(struct build *b, const char *out_path, uint64_t *size, struct skf_why *why)
{
    struct skf_draft *d = NULL;
    struct skf_buf index = SKF_BUF_INIT(SKF_SKD_INDEX_MAX);
    struct skd_out_tensor *tensors = NULL;
    uint8_t *piece = NULL;
    struct skd_out o = {.source_root = b->old_cut.root, .result_root = b->neu_cut.root, .source_size = b->old_cut.size,
                        .result_size = b->neu_cut.size, .chunks = b->chunks};
    if (is_also_used(b)) {
        o.also_size = b->also_cut.size;
        o.also_root = b->also_cut.root;
    }
    enum skf_err e = SKF_OK;
    if (b->chunks) { /* otherwise the identity */
        o.n_chunks = b->neu_cut.n;
        SKF_GO(e, list_tensors(b, &tensors, &o.n_tensors, why));
        o.tensors = tensors;
    }
    e = skd_write_index(&o, &index);
    if (e != SKF_OK) {
        (void)skf_fail(why, e, "the delta's index cannot be written: %s", skf_err_name(e));
        goto out;
    }
    *size = index.len;
    b->side_bytes = 0;
    for (uint64_t i = 0; i < o.n_tensors; i++)
        b->side_bytes += tensors[i].side_length;
    *size += b->side_bytes;
    for (uint64_t i = 0; i < o.n_chunks; i++)
        *size += b->chunks[i].payload_length;
    if (!out_path)
        goto out;
    if (!(piece = skf_alloc(SKF_CHUNK_MAX)))
        SKF_GO(e, no_memory(why));
    skf_draft_sweep_of(out_path, NULL); /* what killed runs left */
    SKF_GO(e, skf_draft_open(out_path, *size, 0644, &d, why));
    SKF_GO(e, skf_draft_write_at(d, 0, index.data, index.len, why));
    uint64_t at = index.len;
    for (uint64_t i = 0; i < o.n_tensors; i++)
        SKF_GO(e, move_payload(b, d, piece, tensors[i].side_spooled, tensors[i].side_length, &at, why));
    for (uint64_t i = 0; i < o.n_chunks; i++)
        SKF_GO(e, move_payload(b, d, piece, b->spooled[i], b->chunks[i].payload_length, &at, why));
    struct skf_draft *done = d;
    d = NULL;
    e = skf_draft_commit(done, why);
out:
    skf_draft_abort(d);
    skf_free(piece);
    skf_free(tensors);
    skf_buf_free(&index);
    return e;
}

static void tell(const struct build *b, const struct skf_delta_opts *opts, struct skf_delta_stats *stats)
{
    stats->chunks = b->neu_cut.n;
    stats->side_bytes = b->side_bytes;
    memcpy(stats->source_root, b->old_cut.root, SKF_DIGEST);
    memcpy(stats->result_root, b->neu_cut.root, SKF_DIGEST);
    stats->has_also = is_also_used(b);
    memcpy(stats->also_root, b->also_cut.root, SKF_DIGEST);
    for (uint64_t i = 0; i < b->neu_cut.n; i++) {
        const struct skf_chunk *c = &b->neu_cut.chunks[i];
        struct skf_skd_chunk k = {.result_offset = c->offset, .result_length = c->length, .source_offset = c->offset,
                                  .source_length = c->length, .coding = SKF_CODE_COPY, .side = SKF_NO_SIDE};
        if (b->chunks) {
            const struct skd_out_chunk *r = &b->chunks[i];
            k.coding = (enum skf_coding)r->coding;
            k.payload_length = r->payload_length;
            k.source_offset = r->source_offset;
            k.source_length = r->source_length;
        }
        stats->coding_chunks[k.coding]++;
        stats->coding_bytes[k.coding] += k.payload_length;
        if (opts->chunk)
            opts->chunk(opts->chunk_ctx, &k);
    }
}

static enum skf_err pack(struct build *b, struct skf_why *why)
{
    unsigned jobs;
    uint64_t bytes;
    close_workers(b); /* packing takes as much memory as coding did */
    if (build_plan_packs(b, &jobs, &bytes) != SKF_OK)
        return no_memory(why);
    atomic_fetch_add(&b->done, b->may_pack - bytes);
    return skf_par_for(jobs, b->n_packs, pack_step, b, why);
}

static enum skf_err build_all(struct build *b, const char *out_path, struct skf_delta_stats *stats, struct skf_why *why)
{
    bool needs_anchors = false;
    SKF_TRY(skf_cut_make(b->old, b->jobs, b->progress, &b->old_cut, why));
    b->before = b->old_cut.size / HASH_STEP;
    SKF_TRY(build_cut_also(b, why));
    SKF_TRY(skf_cut_make(b->neu, b->jobs, b->progress, &b->neu_cut, why));
    if (memcmp(b->old_cut.root, b->neu_cut.root, SKF_DIGEST) == 0)
        return write_out(b, out_path, &stats->bytes, why);
    b->jobs = SKF_MIN(b->jobs, BUILD_JOBS);
    b->tensors = skf_model_tensors(b->neu, &b->n_tensors);
    SKF_TRY(skf_pairs_make(b->old, b->neu, &b->pairs, why));
    SKF_TRY(build_pair_also(b, why));
    b->sides = skf_calloc(b->n_tensors, sizeof *b->sides);
    b->adapted = skf_calloc(b->n_tensors, 1);
    if (!b->sides || !b->adapted)
        return no_memory(why);
    SKF_TRY(place_chunks(b, why, &needs_anchors));
    begin_coding(b);
    if (needs_anchors && b->old_cut.size)
        SKF_TRY(skf_anchors_make(b->old_source, b->jobs, b->progress, &b->anchors, why));
    if (out_path)
        SKF_TRY(build_spool_open(&b->spool, out_path, why));
    SKF_TRY(open_workers(b, why));
    SKF_TRY(skf_par_for(b->jobs, b->n_tensors, side_step, b, why));
    SKF_TRY(skf_par_for(b->jobs, b->neu_cut.n, chunk_step, b, why));
    SKF_TRY(pack(b, why));
    return write_out(b, out_path, &stats->bytes, why);
}

enum skf_err skf_delta_build(const struct skf_model *old, const struct skf_model *neu, const char *out_path,
                             const struct skf_delta_opts *opts, struct skf_delta_stats *stats, struct skf_why *why)
{
    static const struct skf_delta_opts plain;
    uint64_t begun = skf_now_ns();
    opts = opts ? opts : &plain;
    struct build b = {.old = old,
                      .neu = neu,
                      .old_source = skf_model_source(old),
                      .neu_source = skf_model_source(neu),
                      .spool = {.fd = -1},
                      .jobs = opts->jobs ? opts->jobs : skf_cpu_count(),
                      .level = opts->level,
                      .adapter = opts->adapter,
                      .also = opts->also};
    if (b.also && b.adapter)
        return skf_fail(why, SKF_ERR_ARG, "an adapter and another version are two ways; a delta goes one of them");
    build_join(&b);
    begin_progress(&b, &opts->progress);
    init_lock(&b.adapter_lock);
    for (unsigned i = 0; i < BUILD_HEAVY; i++)
        init_lock(&b.heavy[i].lock);
    *stats = (struct skf_delta_stats){0};
    enum skf_err e = build_all(&b, out_path, stats, why);
    if (e == SKF_OK)
        tell(&b, opts, stats);
    stats->seconds = (double)(skf_now_ns() - begun) / 1e9;
    close_workers(&b);
    build_free_packs(&b);
    build_spool_close(&b.spool);
    skf_anchors_free(b.anchors);
    for (uint64_t i = 0; b.chunks && i < b.neu_cut.n; i++)
        skf_free(b.chunks[i].ranges);
    skf_free(b.chunks);
    skf_free(b.spooled);
    skf_free(b.tensor_of);
    skf_free(b.pairs);
    for (size_t i = 0; b.sides && i < b.n_tensors; i++)
        skf_free(b.sides[i].p);
    skf_free(b.sides);
    skf_free(b.adapted);
    skf_free(b.also_tensors);
    skf_cut_free(&b.also_cut);
    skf_cut_free(&b.old_cut);
    skf_cut_free(&b.neu_cut);
    for (unsigned i = 0; i < BUILD_HEAVY; i++)
        (void)pthread_mutex_destroy(&b.heavy[i].lock);
    (void)pthread_mutex_destroy(&b.adapter_lock);
    return e;
}
