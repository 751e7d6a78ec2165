/*
 * A trie of what the tokens say, laid out in the order of their texts, each node with the place behind its subtree: it is gone
 * through from front to back, and what is not possible is skipped (as llguidance does).
 */
#include "runtime/grammar_priv.h"

#include "base/alloc.h"
#include "base/util.h"

struct word {
    const char *p;
    uint32_t n;
    int32_t id;
};

static int by_text(const void *a, const void *b)
{
    const struct word *x = a, *y = b;
    int c = memcmp(x->p, y->p, SKF_MIN(x->n, y->n));
    return c ? c : x->n != y->n ? (x->n < y->n ? -1 : 1) : (x->id > y->id) - (x->id < y->id);
}

static uint32_t shared(const struct word *a, const struct word *b)
{
    uint32_t k = 0;
    while (k < a->n && k < b->n && a->p[k] == b->p[k])
        k++;
    return k;
}

/* path[d]: the node at depth d of the word before. */
static void lay(struct skf_vocab *v, const struct word *w, uint32_t n, uint32_t *path)
{
    uint32_t depth = 0; /* of the word before */
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = i ? shared(&w[i - 1], &w[i]) : 0;
        if (i && k == w[i].n && w[i - 1].n == w[i].n) { /* the same text: behind the others */
            int32_t last = v->nodes[path[k]].token;
            while (v->same[last] >= 0)
                last = v->same[last];
            v->same[last] = w[i].id;
            continue;
        }
        for (; depth > k; depth--)
            v->nodes[path[depth]].skip = v->n;
        for (; depth < w[i].n; v->n++) {
            v->nodes[v->n] = (struct skf_trie_node){0, -1, (uint16_t)(depth + 1), (uint8_t)w[i].p[depth]};
            path[++depth] = v->n;
        }
        v->nodes[path[depth]].token = w[i].id;
        v->depth = SKF_MAX(v->depth, depth);
    }
    for (; depth > 0; depth--)
        v->nodes[path[depth]].skip = v->n;
}

/* Texts that may stand in an answer: none of a control token, nor one longer than anything that makes sense. */
static uint32_t collect(struct skf_vocab *v, struct word *w, uint32_t *longest, size_t *bytes)
{
    uint32_t n = 0;
    for (int32_t id = 0; id < (int32_t)v->n_tokens; id++) {
        size_t len = 0;
        const char *p = skf_tokenizer_text(v->tk, id, &len);
        v->same[id] = -1;
        if (is_tokenizer_stop(v->tk, id)) {
            v->stops[v->n_stops++] = id;
        } else if (p && len > 0 && len < 1024 && !is_tokenizer_control(v->tk, id)) {
            w[n++] = (struct word){p, (uint32_t)len, id};
            *longest = SKF_MAX(*longest, (uint32_t)len);
            *bytes += len;
        }
    }
    return n;
}

enum skf_err skf_vocab_new(const struct skf_tokenizer *tk, struct skf_vocab **out)
{
    uint32_t n = skf_tokenizer_size(tk), longest = 0;
    size_t bytes = 0;
    struct skf_vocab *v = skf_calloc(1, sizeof *v);
    struct word *w = skf_calloc((size_t)n + 1, sizeof *w);
    uint32_t *path = NULL;
    enum skf_err e = SKF_ERR_NOMEM;
    if (!v || !w)
        goto out;
    v->tk = tk;
    v->n_tokens = n;
    v->same = skf_calloc((size_t)n + 1, sizeof *v->same);
    v->stops = skf_calloc((size_t)n + 1, sizeof *v->stops);
    if (!v->same || !v->stops)
        goto out;
    uint32_t many = collect(v, w, &longest, &bytes);
    path = skf_calloc((size_t)longest + 1, sizeof *path);
    v->nodes = skf_calloc(bytes + 1, sizeof *v->nodes); /* untouched memory of what is shared is never there */
    if (!path || !v->nodes)
        goto out;
    if (many)
        qsort(w, many, sizeof *w, by_text);
    lay(v, w, many, path);
    struct skf_trie_node *fit = skf_realloc(v->nodes, ((size_t)v->n + 1) * sizeof *fit);
    v->nodes = fit ? fit : v->nodes;
    e = SKF_OK;
out:
    skf_free(w);
    skf_free(path);
    if (e == SKF_OK)
        *out = v;
    else
        skf_vocab_free(v);
    return e;
}

void skf_vocab_free(struct skf_vocab *v)
{
    if (!v)
        return;
    skf_free(v->nodes);
    skf_free(v->same);
    skf_free(v->stops);
    skf_free(v);
}
