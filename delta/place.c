/* The order of chunks made in place (place_priv.h). */
#include "delta/place_priv.h"

#include "base/alloc.h"
#include "base/util.h"
#include "delta/skd_priv.h"

#define PLACE_CHUNKS (1u << 22) /* a plan's memory is bounded */
#define PLACE_OPS 4096          /* of a batch */
#define NO_SLOT UINT32_MAX
#define GONE (1 << 28) /* more than readers can be */

struct place_plan {
    const struct skf_skd *skd;
    uint64_t n, batch, number;
    uint64_t unmade; /* no chunk below waits to be made */
    uint64_t leaves; /* of the tree, a power of two */
    int32_t *least;  /* tree: the fewest readers that a place below the node waits for, without what its parents add */
    int32_t *more;   /* tree: what is added to everything below the node */
    uint32_t *slot;  /* of each chunk that was put aside; NO_SLOT */
    uint8_t *is_made;
    uint32_t *free, *freed; /* slots: to be used, and not before the next batch */
    uint32_t n_free, n_freed, slots;
    struct place_op ops[PLACE_OPS];
};

/* ---- how many readers each place waits for: ranges are added to, and the first place without any is looked for ------------------ */
static void tree_add(struct place_plan *p, uint64_t node, uint64_t from, uint64_t to, uint64_t lo, uint64_t hi, int32_t v)
{
    if (hi < from || to < lo)
        return;
    if (lo <= from && to <= hi) {
        p->least[node] += v;
        p->more[node] += v;
        return;
    }
    uint64_t middle = from + (to - from) / 2;
    tree_add(p, 2 * node, from, middle, lo, hi, v);
    tree_add(p, 2 * node + 1, middle + 1, to, lo, hi, v);
    p->least[node] = SKF_MIN(p->least[2 * node], p->least[2 * node + 1]) + p->more[node];
}

static void add_range(struct place_plan *p, uint64_t lo, uint64_t hi, int32_t v) /* lo to hi, both among them */
{
    if (lo <= hi && hi < p->n)
        tree_add(p, 1, 0, p->leaves - 1, lo, hi, v);
}

static bool has_free_place(const struct place_plan *p, uint64_t *place)
{
    if (p->least[1] != 0)
        return false;
    uint64_t node = 1;
    for (int32_t above = 0; node < p->leaves;) {
        above += p->more[node];
        node = 2 * node + (p->least[2 * node] + above == 0 ? 0 : 1);
    }
    *place = node - p->leaves;
    return true;
}

/* ---- who reads what ------------------------------------------------------------------------------------------------------------ */
/* The first chunk whose place ends behind `at`. */
static uint64_t chunk_at(const struct place_plan *p, uint64_t at)
{
    uint64_t lo = 0, hi = p->n;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        const struct skd_chunk *c = &p->skd->chunks[mid];
        if (c->result_offset + c->result_length <= at)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The k-th range of the source that chunk i reads; false when there are not so many. */
static bool has_read(const struct skf_skd *skd, uint64_t i, uint32_t k, uint64_t *at, uint64_t *n)
{
    const struct skd_chunk *c = &skd->chunks[i];
    if (c->coding == SKF_CODE_MIXED) {
        const struct skd_range *r = (const struct skd_range *)(const void *)skd->ranges.data + c->range;
        if (k >= c->ranges)
            return false;
        *at = r[k].at;
        *n = r[k].n;
        return *n > 0;
    }
    *at = c->source_offset;
    *n = c->source_length;
    return k == 0 && *n > 0;
}

/* Adds v to all places but its own that chunk i reads. */
static void add_reads(struct place_plan *p, uint64_t i, int32_t v)
{
    uint64_t at, n;
    for (uint32_t k = 0; has_read(p->skd, i, k, &at, &n); k++) {
        uint64_t lo = chunk_at(p, at), hi = chunk_at(p, at + n - 1);
        hi = SKF_MIN(hi, p->n - 1);
        if (i < lo || i > hi) {
            add_range(p, lo, hi, v);
            continue;
        }
        if (i > lo)
            add_range(p, lo, i - 1, v);
        add_range(p, i + 1, hi, v);
    }
}

/* A copy to where it stands already. */
static bool is_still(const struct skd_chunk *c) { return c->coding == SKF_CODE_COPY && c->source_offset == c->result_offset; }

static void set_gone(struct place_plan *p, uint64_t i)
{
    p->is_made[i] = 1;
    add_range(p, i, i, GONE);
}

enum skf_err place_plan_new(const struct skf_skd *skd, uint64_t batch, struct place_plan **out, struct skf_why *why)
{
    uint64_t n = skd->info.n_chunks, leaves = 1;
    if (n > PLACE_CHUNKS)
        return skf_fail(why, SKF_ERR_LIMIT, "%llu chunks are too many to be made in place", (unsigned long long)n);
    while (leaves < n)
        leaves *= 2;
    struct place_plan *p = skf_calloc(1, sizeof *p);
    if (!p)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    p->skd = skd;
    p->n = n;
    p->batch = batch;
    p->leaves = leaves;
    p->least = skf_calloc(2 * leaves, sizeof *p->least);
    p->more = skf_calloc(2 * leaves, sizeof *p->more);
    p->slot = skf_calloc(n, sizeof *p->slot);
    p->is_made = skf_calloc(n, 1);
    p->free = skf_calloc(n, sizeof *p->free);
    p->freed = skf_calloc(n, sizeof *p->freed);
    if (!p->least || !p->more || !p->slot || !p->is_made || !p->free || !p->freed) {
        place_plan_free(p);
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    }
    if (n < leaves)
        tree_add(p, 1, 0, leaves - 1, n, leaves - 1, GONE);
    for (uint64_t i = 0; i < n; i++) {
        p->slot[i] = NO_SLOT;
        if (is_still(&skd->chunks[i]))
            set_gone(p, i);
        else
            add_reads(p, i, 1);
    }
    *out = p;
    return SKF_OK;
}

void place_plan_free(struct place_plan *p)
{
    if (!p)
        return;
    skf_free(p->least);
    skf_free(p->more);
    skf_free(p->slot);
    skf_free(p->is_made);
    skf_free(p->free);
    skf_free(p->freed);
    skf_free(p);
}

uint32_t place_plan_slots(const struct place_plan *p) { return p->slots; }

/* The next thing to do, without doing it; false when all is done. */
static bool has_next(struct place_plan *p, struct place_op *op)
{
    uint64_t i;
    if (has_free_place(p, &i)) {
        *op = (struct place_op){.chunk = i, .kind = p->is_made[i] ? PLACE_TAKE : PLACE_MAKE, .slot = p->slot[i]};
    } else {
        while (p->unmade < p->n && p->is_made[p->unmade])
            p->unmade++;
        if (p->unmade == p->n)
            return false;
        *op = (struct place_op){.chunk = p->unmade, .kind = PLACE_ASIDE};
    }
    op->length = p->skd->chunks[op->chunk].result_length;
    return true;
}

static void do_next(struct place_plan *p, struct place_op *op)
{
    uint64_t i = op->chunk;
    if (op->kind != PLACE_TAKE) {
        add_reads(p, i, -1);
        p->is_made[i] = 1;
    }
    if (op->kind == PLACE_ASIDE) {
        op->slot = p->n_free ? p->free[--p->n_free] : p->slots++;
        p->slot[i] = op->slot;
        return;
    }
    if (op->kind == PLACE_TAKE)
        p->freed[p->n_freed++] = op->slot;
    add_range(p, i, i, GONE);
}

void place_plan_next(struct place_plan *p, struct place_batch *b)
{
    uint64_t placed = 0, aside = 0;
    size_t n = 0, takes = 0;
    struct place_op op;
    while (n + takes < PLACE_OPS && has_next(p, &op)) {
        uint64_t *sum = op.kind == PLACE_ASIDE ? &aside : &placed;
        if (*sum + op.length > p->batch)
            break;
        op.at = placed;
        *sum += op.length;
        do_next(p, &op);
        if (op.kind == PLACE_TAKE) /* from the end, backwards: those that make come first */
            p->ops[PLACE_OPS - ++takes] = op;
        else
            p->ops[n++] = op;
    }
    for (size_t k = 0; k < takes; k++)
        p->ops[n + k] = p->ops[PLACE_OPS - takes + k];
    for (uint32_t k = 0; k < p->n_freed; k++)
        p->free[p->n_free++] = p->freed[k];
    p->n_freed = 0;
    *b = (struct place_batch){.ops = p->ops, .n = n + takes, .n_made = n, .number = p->number++};
}
