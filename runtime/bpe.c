/*
 * Merging of one piece: symbols in a linked list, possible merges in a heap by (rank, place), O(n log n) also for a piece
 * that is the whole text.  An entry whose symbols have changed since it was made is passed over.
 *
 * Byte-level BPE starts from bytes and merges the pairs that were learnt; SentencePiece's BPE starts from characters and merges where the two
 * texts together are a token, that of the best score first, and spells by bytes what is no token in the end.
 */
#include "base/alloc.h"
#include "runtime/tokenizer_priv.h"
#include "runtime/unicode_priv.h"

struct symbol {
    int32_t id; /* -1: no token, or merged into its left neighbour */
    uint32_t left, right;
    uint32_t at, n; /* its bytes; n == 0: merged into its left neighbour */
};
struct offer {
    uint32_t rank, at;
    uint32_t n_left, n_right; /* what the two symbols were then: bytes */
    int32_t id;
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

/* Whether the symbols at `at` and right of it merge, by which rank and to what. */
struct source {
    const struct skf_merges *merges; /* NULL: by text */
    const struct skf_tokenizer *tk;
    const char *text;
};
static bool is_pair(const struct source *s, const struct symbol *l, const struct symbol *r, struct offer *o)
{
    if (!s->merges)
        return is_tokenizer_word(s->tk, s->text + l->at, l->n + r->n, &o->id, &o->rank);
    if (l->id < 0 || r->id < 0)
        return false;
    const struct skf_merge_rule *rule = skf_merges_find(s->merges, l->id, r->id);
    o->id = rule->id;
    o->rank = rule->rank;
    return rule->pair != UINT64_MAX;
}

static void offer_at(struct skf_bpe *b, const struct source *s, uint32_t at)
{
    uint32_t right = at == NONE ? NONE : b->symbols[at].right;
    if (right == NONE)
        return;
    const struct symbol *l = &b->symbols[at], *r = &b->symbols[right];
    struct offer o = {.at = at, .n_left = l->n, .n_right = r->n};
    if (is_pair(s, l, r, &o))
        push(b, o);
}

/* Symbols 0 .. count - 1 are there. */
static void merge(struct skf_bpe *b, const struct source *s, uint32_t count)
{
    b->n_heap = 0;
    for (uint32_t i = 0; i < count; i++)
        offer_at(b, s, i);
    while (b->n_heap) {
        struct offer o = pop(b);
        struct symbol *l = &b->symbols[o.at];
        if (l->n != o.n_left || l->right == NONE || b->symbols[l->right].n != o.n_right)
            continue;
        struct symbol *gone = &b->symbols[l->right];
        l->id = o.id;
        l->n += gone->n;
        gone->id = -1;
        gone->n = 0;
        l->right = gone->right;
        if (l->right != NONE)
            b->symbols[l->right].left = o.at;
        offer_at(b, s, l->left);
        offer_at(b, s, o.at);
    }
}

static void link_up(struct skf_bpe *b, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        b->symbols[i].left = i ? i - 1 : NONE;
        b->symbols[i].right = i + 1 < count ? i + 1 : NONE;
    }
}

enum skf_err skf_bpe_piece(struct skf_bpe *b, const struct skf_merges *m, const int32_t byte_id[256], const char *p, size_t n,
                           int32_t *out, size_t *n_out)
{
    const struct source s = {.merges = m};
    SKF_TRY(room(b, n));
    for (uint32_t i = 0; i < n; i++)
        b->symbols[i] = (struct symbol){byte_id[(unsigned char)p[i]], 0, 0, i, 1};
    link_up(b, (uint32_t)n);
    merge(b, &s, (uint32_t)n);
    for (uint32_t i = 0; i != NONE && n > 0; i = b->symbols[i].right)
        if (b->symbols[i].id >= 0)
            out[(*n_out)++] = b->symbols[i].id;
    return SKF_OK;
}

enum skf_err skf_bpe_text(struct skf_bpe *b, const struct skf_tokenizer *tk, const int32_t byte_id[256], const char *p, size_t n,
                          int32_t *out, size_t *n_out)
{
    const struct source s = {.tk = tk, .text = p};
    uint32_t count = 0;
    SKF_TRY(room(b, n));
    for (size_t at = 0, len; at < n; at += len) {
        uint32_t rank;
        struct symbol *y = &b->symbols[count++];
        (void)skf_utf8_get(p + at, n - at, &len);
        *y = (struct symbol){-1, 0, 0, (uint32_t)at, (uint32_t)len};
        if (!is_tokenizer_word(tk, p + at, len, &y->id, &rank))
            y->id = -1;
    }
    link_up(b, count);
    merge(b, &s, count);
    for (uint32_t i = 0; i != NONE && count > 0; i = b->symbols[i].right) {
        const struct symbol *y = &b->symbols[i];
        if (y->id >= 0)
            out[(*n_out)++] = y->id;
        for (uint32_t k = 0; y->id < 0 && k < y->n; k++)
            if (byte_id[(unsigned char)p[y->at + k]] >= 0)
                out[(*n_out)++] = byte_id[(unsigned char)p[y->at + k]];
    }
    return SKF_OK;
}
