/*
 * Byte-pair merging of one piece: symbols in a linked list, possible merges in a heap by (rank, place), O(n log n) also for a piece
 * that is the whole text.  An entry whose symbols have changed since it was made is passed over.
 */
#include "base/alloc.h"
#include "runtime/tokenizer_priv.h"

struct symbol {
    int32_t id; /* -1: a byte that no token spells, or merged into its left neighbour */
    uint32_t left, right;
};
struct offer {
    uint32_t rank, at;
    int32_t left, right, id;
};
struct skf_bpe {
    struct symbol *symbols;
    struct offer *heap;
    size_t cap, n_heap;
};
#define NONE UINT32_MAX

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

const struct skf_merge_rule *skf_merges_find(const struct skf_merges *m, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right, mask = ((uint64_t)1 << m->bits) - 1;
    uint64_t i = mix(pair ^ m->seed) & mask;
    while (m->rules[i].pair != pair && m->rules[i].pair != UINT64_MAX)
        i = (i + 1) & mask;
    return &m->rules[i]; /* the rule, or the empty place where it would stand */
}

struct skf_bpe *skf_bpe_new(void) { return skf_calloc(1, sizeof(struct skf_bpe)); }

void skf_bpe_free(struct skf_bpe *b)
{
    if (!b)
        return;
    skf_free(b->symbols);
    skf_free(b->heap);
    skf_free(b);
}

static enum skf_err room(struct skf_bpe *b, size_t n)
{
    if (n <= b->cap)
        return SKF_OK;
    if (n >= NONE / 2)
        return SKF_ERR_LIMIT;
    size_t cap = n < 256 ? 256 : 2 * n;
    skf_free(b->symbols);
    skf_free(b->heap);
    b->cap = 0;
    b->symbols = skf_calloc(cap, sizeof *b->symbols);
    b->heap = skf_calloc(cap, 2 * sizeof *b->heap); /* n - 1 at first; each merge takes one away and makes two at most */
    if (!b->symbols || !b->heap)
        return SKF_ERR_NOMEM;
    b->cap = cap;
    return SKF_OK;
}

static bool is_before(const struct offer *a, const struct offer *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void push(struct skf_bpe *b, struct offer o)
{
    size_t i = b->n_heap++;
    for (; i > 0 && is_before(&o, &b->heap[(i - 1) / 2]); i = (i - 1) / 2)
        b->heap[i] = b->heap[(i - 1) / 2];
    b->heap[i] = o;
}

static struct offer pop(struct skf_bpe *b)
{
    struct offer top = b->heap[0], last = b->heap[--b->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= b->n_heap)
            break;
        if (child + 1 < b->n_heap && is_before(&b->heap[child + 1], &b->heap[child]))
            child++;
        if (!is_before(&b->heap[child], &last))
            break;
        b->heap[i] = b->heap[child];
        i = child;
    }
    b->heap[i] = last;
    return top;
}

/* Offers to merge the symbol at `at` with its right neighbour, if a rule says so. */
static void offer_at(struct skf_bpe *b, const struct skf_merges *m, uint32_t at)
{
    uint32_t right = at == NONE ? NONE : b->symbols[at].right;
    if (right == NONE || b->symbols[at].id < 0 || b->symbols[right].id < 0)
        return;
    const struct skf_merge_rule *r = skf_merges_find(m, b->symbols[at].id, b->symbols[right].id);
    if (r->pair != UINT64_MAX)
        push(b, (struct offer){r->rank, at, b->symbols[at].id, b->symbols[right].id, r->id});
}

enum skf_err skf_bpe_piece(struct skf_bpe *b, const struct skf_merges *m, const int32_t byte_id[256], const char *p, size_t n,
                           int32_t *out, size_t *n_out)
{
    SKF_TRY(room(b, n));
    b->n_heap = 0;
    for (uint32_t i = 0; i < n; i++)
        b->symbols[i] = (struct symbol){byte_id[(unsigned char)p[i]], i ? i - 1 : NONE, i + 1 < n ? i + 1 : NONE};
    for (uint32_t i = 0; i < n; i++)
        offer_at(b, m, i);
    while (b->n_heap) {
        struct offer o = pop(b);
        struct symbol *s = &b->symbols[o.at];
        if (s->id != o.left || s->right == NONE || b->symbols[s->right].id != o.right)
            continue;
        struct symbol *gone = &b->symbols[s->right];
        s->id = o.id;
        gone->id = -1;
        s->right = gone->right;
        if (s->right != NONE)
            b->symbols[s->right].left = o.at;
        offer_at(b, m, s->left);
        offer_at(b, m, o.at);
    }
    for (uint32_t i = 0; i != NONE && n > 0; i = b->symbols[i].right)
        if (b->symbols[i].id >= 0)
            out[(*n_out)++] = b->symbols[i].id;
    return SKF_OK;
}
