/*
 * The cut (model.h): which byte belongs to which chunk is a function of the file alone, so that a publisher, a distributor
 * and a box come to the same chunks and the same root without asking each other.
 */
#include "base/alloc.h"
#include "base/file.h"
#include "model/model_priv.h"
#include "model/model.h"

struct plan {
    struct skf_cut *cut;
    uint64_t cap;
};

static enum skf_err push(struct plan *p, uint64_t offset, uint64_t length)
{
    struct skf_cut *c = p->cut;
    if (c->n == p->cap) {
        uint64_t cap = p->cap ? p->cap * 2 : 256;
        struct skf_chunk *more = skf_realloc(c->chunks, cap * sizeof *more);
        if (!more)
            return SKF_ERR_NOMEM;
        c->chunks = more;
        p->cap = cap;
    }
    c->chunks[c->n++] = (struct skf_chunk){.offset = offset, .length = (uint32_t)length};
    return SKF_OK;
}

/* Cuts [at, at + n) into pieces of `step` bytes, a last one of what remains. */
static enum skf_err cut_even(struct plan *p, uint64_t at, uint64_t n, uint64_t step)
{
    while (n) {
        uint64_t take = n < step ? n : step;
        SKF_TRY(push(p, at, take));
        at += take;
        n -= take;
    }
    return SKF_OK;
}

static enum skf_err cut_tensor(struct plan *p, const struct skf_tensor *t)
{
    if (t->row_bytes <= SKF_CHUNK_MAX)
        return cut_even(p, t->offset, t->bytes, SKF_CHUNK_MAX / t->row_bytes * t->row_bytes);
    const struct skf_type_info *ti = skf_type_info((uint32_t)t->type);
    uint64_t step = SKF_CHUNK_MAX / ti->block_bytes * ti->block_bytes;
    for (uint64_t at = 0; at < t->bytes; at += t->row_bytes)
        SKF_TRY(cut_even(p, t->offset + at, t->row_bytes, step));
    return SKF_OK;
}

static enum skf_err plan_cut(const struct skf_model *m, struct skf_cut *cut)
{
    struct plan p = {.cut = cut};
    size_t n;
    const struct skf_tensor *t = skf_model_tensors(m, &n);
    uint64_t at = 0;
    cut->size = skf_model_source(m)->size;
    for (size_t i = 0; i < n; i++) {
        SKF_TRY(cut_even(&p, at, t[i].offset - at, SKF_CHUNK_MAX));
        SKF_TRY(cut_tensor(&p, &t[i]));
        at = t[i].offset + t[i].bytes;
    }
    return cut_even(&p, at, cut->size - at, SKF_CHUNK_MAX);
}

struct hashing {
    const struct skf_source *src;
    struct skf_cut *cut;
    const struct skf_progress *progress;
    uint64_t each; /* chunks a step */
    atomic_uint_fast64_t done;
};

/* Chunks that are hashed at once: as many as that is best with, fewer where every thread is to have some. */
struct hash_some {
    const struct hashing *h;
    struct skf_chunk *chunk;
    unsigned n;
};

static enum skf_err hash_copy(const struct skf_source *src, struct skf_chunk *c, struct skf_why *why)
{
    uint8_t *copy = skf_alloc(c->length);
    if (!copy)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a chunk");
    enum skf_err e = skf_source_read(src, c->offset, copy, c->length);
    if (e == SKF_OK)
        skf_sha256(copy, c->length, c->digest);
    skf_free(copy);
    return e;
}

static enum skf_err hash_chunks(void *ctx, struct skf_why *why)
{
    const struct hash_some *some = ctx;
    const struct skf_source *src = some->h->src;
    struct skf_message m[SKF_SHA256_MANY] = {{0}};
    unsigned whole = 0;
    for (unsigned k = 0; k < some->n; k++) {
        struct skf_chunk *c = &some->chunk[k];
        const uint8_t *p;
        uint64_t n;
        SKF_TRY(src->span(src->ctx, c->offset, &p, &n));
        if (n >= c->length)
            m[whole++] = (struct skf_message){p, c->length, c->digest};
        else
            SKF_TRY(hash_copy(src, c, why)); /* it lies in pieces */
    }
    skf_sha256_many(m, whole);
    return SKF_OK;
}

static enum skf_err hash_step(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct hashing *h = ctx;
    uint64_t first = i * h->each, begun = skf_now_ns(), bytes = 0;
    struct hash_some some = {h, &h->cut->chunks[first], (unsigned)SKF_MIN(h->each, h->cut->n - first)};
    (void)worker;
    if (is_cancelled(h->progress))
        return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
    SKF_TRY(skf_map_guard(hash_chunks, &some, why));
    for (unsigned k = 0; k < some.n; k++)
        bytes += some.chunk[k].length;
    skf_progress_rest(h->progress, begun);
    skf_progress_tell(h->progress, atomic_fetch_add(&h->done, bytes) + bytes, h->cut->size);
    return SKF_OK;
}

enum skf_err skf_cut_make(const struct skf_model *m, unsigned jobs, const struct skf_progress *progress,
                          struct skf_cut *cut, struct skf_why *why)
{
    *cut = (struct skf_cut){0};
    enum skf_err e = plan_cut(m, cut);
    if (e != SKF_OK) {
        skf_cut_free(cut);
        return skf_fail(why, e, "no memory for the chunk table");
    }
    struct hashing h = {.src = skf_model_source(m), .cut = cut, .progress = progress};
    uint64_t share = cut->n / (4 * (uint64_t)(jobs ? jobs : skf_cpu_count()));
    h.each = SKF_MAX(SKF_MIN(share, (uint64_t)skf_sha256_lanes()), 2u);
    e = skf_par_for(jobs, (cut->n + h.each - 1) / h.each, hash_step, &h, why);
    if (e != SKF_OK) {
        skf_cut_free(cut);
        return e;
    }
    struct skf_merkle tree;
    skf_merkle_init(&tree);
    for (uint64_t i = 0; i < cut->n; i++)
        skf_merkle_add(&tree, cut->chunks[i].digest, cut->chunks[i].length);
    skf_merkle_root(&tree, cut->root);
    return SKF_OK;
}

void skf_cut_free(struct skf_cut *cut)
{
    skf_free(cut->chunks);
    *cut = (struct skf_cut){0};
}
