/* Keys and values in pages (kv_priv.h). */

#include "base/alloc.h"
#include "base/digest.h"
#include "runtime/kv_page_priv.h"
#include "runtime/kv_spill_priv.h"
#include "runtime/llama_priv.h"

#define BUCKETS 64u

enum skf_err skf_pages_open(const struct skf_llama *l, uint32_t context, uint64_t keep, enum skf_kv_type type, struct skf_pages **out,
                            struct skf_why *why)
{
    if (type == SKF_KV_Q8_0 && l->head_dim % SKF_QBLOCK)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "keys and values as q8_0 need heads of a multiple of %u elements, this model's have %u: take f16",
                        SKF_QBLOCK, l->head_dim);
    struct skf_pages *p = skf_calloc(1, sizeof *p);
    enum skf_err e = p ? skf_random(&p->seed, sizeof p->seed) : SKF_ERR_NOMEM;
    if (e == SKF_OK) {
        p->l = l;
        p->most_pages = context / SKF_KV_PAGE + 1;
        p->type = type;
        p->head_bytes = skf_kv_head_bytes(type, l->head_dim);
        p->page_bytes = p->head_bytes * l->n_kv * l->n_layers;
        p->keep = keep;
        p->n_buckets = BUCKETS;
        p->bucket = skf_calloc(p->n_buckets, sizeof *p->bucket);
        e = p->bucket ? SKF_OK : SKF_ERR_NOMEM;
    }
    if (e == SKF_OK) {
        *out = p;
        return SKF_OK;
    }
    skf_free(p);
    return skf_fail(why, e, "no memory for keys and values: %s", skf_err_name(e));
}

enum skf_kv_type skf_kv_type(const struct skf_pages *p) { return p->type; }

size_t skf_kv_at(const struct skf_pages *p, uint32_t layer, uint32_t head)
{
    return p->head_bytes * ((size_t)layer * p->l->n_kv + head);
}

uint64_t skf_pages_bytes(const struct skf_pages *p, uint32_t positions)
{
    return p->page_bytes * (positions / SKF_KV_PAGE + (positions % SKF_KV_PAGE != 0));
}

void skf_pages_limit(struct skf_pages *p, uint64_t bytes) { p->most = bytes; }

void skf_pages_stats(const struct skf_pages *p, struct skf_pages_stats *s)
{
    *s = p->stats;
    if (p->spill)
        skf_spill_bytes(p->spill, &s->aside_bytes, &s->leaving_bytes);
}

enum skf_err skf_pages_spill(struct skf_pages *p, const char *dir, uint64_t bytes, struct skf_why *why)
{
    return skf_spill_open(dir, bytes, p->page_bytes, &p->spill, why);
}

static void free_page(struct skf_pages *p, struct skf_page *g)
{
    if (g->data)
        p->stats.bytes -= p->page_bytes;
    skf_free(g->data);
    skf_free(g);
}

/* ---- the index ----------------------------------------------------------------------------------------------------------------------- */
uint64_t skf_page_hash(const struct skf_pages *p, const struct skf_page *parent, const int32_t *token)
{
    uint64_t h = p->seed ^ (parent ? parent->hash : 0);
    for (uint32_t i = 0; i < SKF_KV_PAGE; i++) {
        h = (h ^ (uint32_t)token[i]) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return h ^ h >> 32;
}

/* A first page is for those alone who compute with the same; those behind it stand behind it. */
static bool is_of(const struct skf_page *g, const uint8_t *root) { return g->parent || memcmp(g->root, root, sizeof g->root) == 0; }

struct skf_page *skf_page_find(const struct skf_pages *p, const uint8_t *root, const struct skf_page *parent, const int32_t *token, uint64_t hash)
{
    struct skf_page *g = p->bucket[hash % p->n_buckets];
    while (g && !(g->hash == hash && g->parent == parent && is_of(g, root) && memcmp(g->token, token, sizeof g->token) == 0))
        g = g->in_bucket;
    return g;
}

/* Twice as many buckets; with no memory for them the chains grow. */
static void spread_out(struct skf_pages *p)
{
    uint32_t n = 2 * p->n_buckets;
    struct skf_page **to = skf_calloc(n, sizeof *to);
    if (!to)
        return;
    for (uint32_t i = 0; i < p->n_buckets; i++)
        for (struct skf_page *g = p->bucket[i], *next; g; g = next) {
            next = g->in_bucket;
            g->in_bucket = to[g->hash % n];
            to[g->hash % n] = g;
        }
    skf_free(p->bucket);
    p->bucket = to;
    p->n_buckets = n;
}

static struct skf_page **family(struct skf_pages *p, struct skf_page *parent) { return parent ? &parent->children : &p->first; }

/* A page that is not full is only found among its siblings. */
void skf_page_list(struct skf_pages *p, struct skf_page *g, uint64_t hash)
{
    struct skf_page **siblings = family(p, g->parent);
    g->is_listed = true;
    g->hash = hash;
    g->sibling = *siblings;
    *siblings = g;
    if (g->n < SKF_KV_PAGE)
        return;
    if (++p->n_listed > p->n_buckets)
        spread_out(p);
    g->in_bucket = p->bucket[hash % p->n_buckets];
    p->bucket[hash % p->n_buckets] = g;
}

static void unlist(struct skf_pages *p, struct skf_page *g)
{
    struct skf_page **at = family(p, g->parent);
    while (*at != g)
        at = &(*at)->sibling;
    *at = g->sibling;
    if (g->n < SKF_KV_PAGE)
        return;
    for (at = &p->bucket[g->hash % p->n_buckets]; *at != g; at = &(*at)->in_bucket)
        ;
    *at = g->in_bucket;
    p->n_listed--;
}

/* ---- pages that nobody holds ------------------------------------------------------------------------------------------------------------ */
static void put_last(struct line *l, struct skf_page *g)
{
    g->older = l->newest;
    *(l->newest ? &l->newest->newer : &l->oldest) = g;
    l->newest = g;
}

static void take_from(struct line *l, struct skf_page *g)
{
    *(g->older ? &g->older->newer : &l->oldest) = g->newer;
    *(g->newer ? &g->newer->older : &l->newest) = g->older;
    g->older = g->newer = NULL;
}

static void keep(struct skf_pages *p, struct skf_page *g)
{
    put_last(&p->kept, g);
    p->stats.kept_bytes += p->page_bytes;
}

static void take_out(struct skf_pages *p, struct skf_page *g)
{
    take_from(&p->kept, g);
    p->stats.kept_bytes -= p->page_bytes;
}

static void remove_page(struct skf_pages *p, struct skf_page *g)
{
    unlist(p, g);
    free_page(p, g);
    p->stats.evicted++;
}

/* What is listed behind a page stands aside, and is gone, from the leaves up. */
static void forget_behind(struct skf_pages *p, struct skf_page *from)
{
    while (from->children) {
        struct skf_page *g = from->children;
        while (g->children)
            g = g->children;
        take_from(&p->aside, g);
        skf_spill_drop(p->spill, g->slot);
        remove_page(p, g);
    }
}

static void forget(struct skf_pages *p, struct skf_page *g)
{
    forget_behind(p, g);
    take_from(&p->aside, g);
    skf_spill_drop(p->spill, g->slot);
    remove_page(p, g);
}

/* Puts a page aside, for which the oldest there may have to go; false: it was not taken. */
static bool is_put_aside(struct skf_pages *p, struct skf_page *g)
{
    enum skf_err e;
    if (!p->spill)
        return false;
    while ((e = skf_spill_put(p->spill, g->data, &g->slot)) == SKF_ERR_FULL && p->aside.oldest)
        forget(p, p->aside.oldest);
    if (e != SKF_OK)
        return false;
    g->data = NULL;
    g->is_aside = true;
    put_last(&p->aside, g);
    p->stats.bytes -= p->page_bytes;
    p->stats.spilled++;
    return true;
}

/* The oldest page leaves memory. What is listed behind it has left before: whoever held that held it too, and laid it down after that. */
static void evict(struct skf_pages *p)
{
    struct skf_page *g = p->kept.oldest;
    take_out(p, g);
    if (is_put_aside(p, g))
        return;
    forget_behind(p, g);
    remove_page(p, g);
}

/* Room for one page more, where the pool has a bound, and the page. NULL: no memory. */
uint8_t *skf_page_data(struct skf_pages *p)
{
    while (p->most && p->kept.oldest && p->stats.bytes + p->page_bytes > p->most)
        evict(p);
    uint8_t *data = skf_aligned(64, p->page_bytes);
    while (!data && p->kept.oldest) { /* what nobody holds goes before a request fails */
        evict(p);
        data = skf_aligned(64, p->page_bytes);
    }
    if (data)
        p->stats.bytes += p->page_bytes;
    return data;
}

/* Brings a page back to memory that stands aside; false: it is gone, and what stood behind it. */
static bool is_back(struct skf_pages *p, struct skf_page *g)
{
    if (!g->is_aside)
        return true;
    g->refs++; /* so that it does not go for its own room */
    take_from(&p->aside, g);
    uint8_t *data = skf_page_data(p);
    enum skf_err e = data ? skf_spill_get(p->spill, g->slot, data) : SKF_ERR_NOMEM;
    g->refs--;
    if (e == SKF_OK) {
        g->data = data;
        g->is_aside = false;
        keep(p, g);
        p->stats.read_back++;
        return true;
    }
    if (data) { /* the place is free by now */
        p->stats.bytes -= p->page_bytes;
        skf_free(data);
        skf_log(SKF_LOG_WARN, "keys and values that were put aside are lost: %s; they are computed anew", skf_err_name(e));
        forget_behind(p, g);
        remove_page(p, g);
    } else {
        put_last(&p->aside, g);
    }
    return false;
}

static void hold(struct skf_pages *p, struct skf_page *g)
{
    if (g->refs++ == 0 && !g->is_pinned)
        take_out(p, g);
}

static void make_room(struct skf_pages *p)
{
    while (p->kept.oldest && p->stats.kept_bytes + p->stats.pinned_bytes > p->keep)
        evict(p);
}

void skf_page_let_go(struct skf_pages *p, struct skf_page *g)
{
    if (--g->refs > 0)
        return;
    if (!g->is_listed) {
        free_page(p, g);
        return;
    }
    if (g->is_pinned)
        return;
    keep(p, g);
    make_room(p);
}

/* What is in the index, from the leaves up. */
static void free_all(struct skf_pages *p)
{
    for (struct skf_page *g = p->first; g;) {
        if (g->children) {
            g = g->children;
            continue;
        }
        struct skf_page *up = g->parent;
        unlist(p, g);
        free_page(p, g);
        g = up ? up : p->first;
    }
}

void skf_pages_close(struct skf_pages *p)
{
    if (!p)
        return;
    free_all(p);
    skf_spill_close(p->spill);
    skf_free(p->bucket);
    skf_free(p);
}

/* ---- sequences ---------------------------------------------------------------------------------------------------------------------------- */
static enum skf_err new_page(struct skf_kv *kv, struct skf_why *why)
{
    struct skf_pages *p = kv->pool;
    struct skf_page *g = kv->n < p->most_pages ? skf_calloc(1, sizeof *g) : NULL;
    if (g)
        g->data = skf_page_data(p);
    if (!g || !g->data) {
        skf_free(g);
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for the keys and values of %u more positions", SKF_KV_PAGE);
    }
    memset(g->data, 0, p->page_bytes);
    g->refs = 1;
    memcpy(g->root, kv->root, sizeof g->root);
    g->parent = kv->n ? kv->page[kv->n - 1] : NULL;
    kv->page[kv->n] = g;
    kv->data[kv->n++] = g->data;
    return SKF_OK;
}

enum skf_err skf_kv_private(struct skf_pages *p, struct skf_kv *kv, struct skf_why *why)
{
    *kv = (struct skf_kv){.pool = p, .is_private = true};
    kv->page = skf_calloc(p->most_pages, sizeof *kv->page);
    kv->data = skf_calloc(p->most_pages, sizeof *kv->data);
    if (kv->page && kv->data)
        return SKF_OK;
    skf_kv_end(kv, 0);
    return skf_fail(why, SKF_ERR_NOMEM, "no memory for a sequence of %u pages", p->most_pages);
}

static uint32_t agree(const int32_t *a, const int32_t *b, uint32_t n)
{
    uint32_t i = 0;
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

/* The listed page behind `parent` that agrees longest with ids[n], a pinned one before others, and by how many tokens. */
static struct skf_page *nearest(struct skf_pages *p, const uint8_t *root, struct skf_page *parent, const int32_t *ids, uint32_t n, uint32_t *len)
{
    struct skf_page *best = NULL;
    *len = 0;
    for (struct skf_page *g = *family(p, parent); g; g = g->sibling) {
        uint32_t k = is_of(g, root) ? agree(g->token, ids, SKF_MIN(n, g->n)) : 0;
        if (k > *len || (k > 0 && k == *len && g->is_pinned)) {
            best = g;
            *len = k;
        }
    }
    return best;
}

static void copy_positions(const struct skf_pages *p, struct skf_page *to, const struct skf_page *from, uint32_t n)
{
    memcpy(to->data, from->data, p->page_bytes); /* positions from n on are written before anybody looks */
    memcpy(to->token, from->token, n * sizeof *to->token);
    to->n = n;
}

enum skf_err skf_kv_begin(struct skf_pages *p, const uint8_t *root, const int32_t *ids, uint32_t n, uint32_t most, struct skf_kv *kv, uint32_t *n_there,
                          struct skf_why *why)
{
    uint32_t len;
    SKF_TRY(skf_kv_private(p, kv, why));
    kv->is_private = false;
    if (root)
        memcpy(kv->root, root, sizeof kv->root);
    *n_there = 0;
    most = SKF_MIN(most, n);
    while (*n_there + SKF_KV_PAGE <= most) {
        struct skf_page *parent = kv->n ? kv->page[kv->n - 1] : NULL;
        struct skf_page *g = skf_page_find(p, kv->root, parent, ids + *n_there, skf_page_hash(p, parent, ids + *n_there));
        bool was_aside = g && g->is_aside;
        if (!g || !is_back(p, g))
            break;
        hold(p, g);
        p->stats.from_aside += was_aside ? SKF_KV_PAGE : 0;
        kv->page[kv->n] = g;
        kv->data[kv->n++] = g->data;
        *n_there += SKF_KV_PAGE;
    }
    kv->listed = kv->n;
    p->stats.asked += n;
    p->stats.shared += *n_there;
    struct skf_page *held = nearest(p, kv->root, kv->n ? kv->page[kv->n - 1] : NULL, ids + *n_there, most - *n_there, &len);
    if (len == 0 || !is_back(p, held))
        return SKF_OK;
    hold(p, held); /* a page may have to go for the new one: not this */
    enum skf_err e = new_page(kv, why);
    if (e == SKF_OK) {
        copy_positions(p, kv->page[kv->n - 1], held, len);
        *n_there += len;
        p->stats.copied += len;
    }
    skf_page_let_go(p, held);
    if (e != SKF_OK)
        skf_kv_end(kv, 0);
    return e;
}

enum skf_err skf_kv_place(struct skf_kv *kv, uint32_t pos, int32_t token, struct skf_why *why)
{
    if (pos / SKF_KV_PAGE == kv->n)
        SKF_TRY(new_page(kv, why));
    struct skf_page *g = kv->page[pos / SKF_KV_PAGE];
    g->token[pos % SKF_KV_PAGE] = token;
    return SKF_OK;
}

/* A page that stands aside gets the data of one that is the same and not listed, which has none then. */
static void lend(struct skf_pages *p, struct skf_page *g, struct skf_page *from)
{
    take_from(&p->aside, g);
    skf_spill_drop(p->spill, g->slot);
    g->is_aside = false;
    g->data = from->data;
    from->data = NULL;
    keep(p, g);
}

void skf_kv_done(struct skf_kv *kv, uint32_t n)
{
    struct skf_pages *p = kv->pool;
    for (; !kv->is_private && kv->listed < n / SKF_KV_PAGE; kv->listed++) {
        struct skf_page *g = kv->page[kv->listed];
        g->parent = kv->listed ? kv->page[kv->listed - 1] : NULL;
        g->n = SKF_KV_PAGE;
        uint64_t hash = skf_page_hash(p, g->parent, g->token);
        struct skf_page *other = skf_page_find(p, kv->root, g->parent, g->token, hash);
        if (!other) {
            skf_page_list(p, g, hash);
            continue;
        }
        if (other->is_aside) /* what was computed anew takes its place */
            lend(p, other, g);
        hold(p, other); /* another sequence computed the same meanwhile */
        skf_page_let_go(p, g);
        kv->page[kv->listed] = other;
        kv->data[kv->listed] = other->data;
    }
}

/* Lists the last page of a sequence that ends, unless there is already as much; gives back the page that has it, NULL for none. */
static struct skf_page *leave_part(struct skf_kv *kv, uint32_t n)
{
    uint32_t at = n / SKF_KV_PAGE, left = n % SKF_KV_PAGE, len;
    if (kv->is_private || left == 0 || at != kv->listed || at >= kv->n)
        return NULL;
    struct skf_page *g = kv->page[at];
    if (g->is_listed)
        return g;
    g->parent = at ? kv->page[at - 1] : NULL;
    struct skf_pages *p = kv->pool;
    struct skf_page *other = nearest(p, kv->root, g->parent, g->token, left, &len);
    if (other && len == left && is_back(p, other))
        return other;
    g->n = left;
    skf_page_list(p, g, 0);
    return g;
}

static void pin(struct skf_pages *p, struct skf_page *g)
{
    if (!g || g->is_pinned)
        return;
    if (g->refs == 0)
        take_out(p, g);
    g->is_pinned = true;
    p->stats.pinned++;
    p->stats.pinned_bytes += p->page_bytes;
}

enum skf_err skf_kv_pin(struct skf_kv *kv, uint32_t n, struct skf_why *why)
{
    struct skf_pages *p = kv->pool;
    uint64_t more = 0;
    skf_kv_done(kv, n);
    struct skf_page *part = leave_part(kv, n);
    for (uint32_t i = 0; i < kv->listed; i++)
        more += kv->page[i]->is_pinned ? 0 : p->page_bytes;
    more += part && !part->is_pinned ? p->page_bytes : 0;
    if (p->stats.pinned_bytes + more > p->keep)
        return skf_fail(why, SKF_ERR_LIMIT, "%u tokens to stay take %llu bytes more of keys and values, beside %llu that stay already; the cache may keep %llu",
                        n, (unsigned long long)more, (unsigned long long)p->stats.pinned_bytes, (unsigned long long)p->keep);
    for (uint32_t i = 0; i < kv->listed; i++)
        pin(p, kv->page[i]);
    pin(p, part);
    make_room(p);
    return SKF_OK;
}

void skf_kv_end(struct skf_kv *kv, uint32_t n)
{
    if (!kv->pool)
        return;
    if (kv->page && kv->data) {
        skf_kv_done(kv, n);
        (void)leave_part(kv, n);
        while (kv->n > 0) /* the last first: it is to go first */
            skf_page_let_go(kv->pool, kv->page[--kv->n]);
    }
    skf_free(kv->page);
    skf_free(kv->data);
    *kv = (struct skf_kv){0};
}
