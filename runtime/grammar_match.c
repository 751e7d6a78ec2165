/* Which tokens may come next, and going on by one (grammar_priv.h). */
#include "runtime/grammar_priv.h"

#include "base/alloc.h"
#include "base/util.h"

enum {
    APART_MAX = 8,          /* places that are looked at one by one; more are gone through together */
    LOCAL_BYTES = 16 << 20, /* of what a grammar keeps by node */
    MASK_BYTES = 16 << 20,  /* and by state */
    SPENT_MAX = 2 << 20     /* places visited for one token: some tens of milliseconds */
};

/* What may follow a node while nothing below it is popped. */
struct skf_local {
    uint32_t n_tokens, n_ends;
    uint64_t *bits;   /* of all tokens; or NULL, and */
    int32_t *tokens;  /* the tokens, where they are few */
    uint32_t *ends;   /* nodes of the trie at which what was called is over, and below which there is more */
    size_t bytes;
};

void skf_local_free(struct skf_local *l)
{
    if (!l)
        return;
    skf_free(l->bits);
    skf_free(l->tokens);
    skf_free(l->ends);
    skf_free(l);
}

struct skf_match {
    struct skf_match *next; /* of the grammar's, once it has begun */
    struct skf_grammar *g;
    const struct skf_vocab *v;
    uint32_t state;
    bool has_begun;
    uint32_t *path;         /* states by depth while the trie is gone through */
    uint64_t *mask, *scratch;
    uint32_t *ends, n_ends; /* [v->n] */
};

static size_t words_of(const struct skf_vocab *v) { return ((size_t)v->n_tokens + 63) / 64; }

enum skf_err skf_match_new(struct skf_grammar *g, const struct skf_vocab *v, struct skf_match **out)
{
    struct skf_match *x = skf_calloc(1, sizeof *x);
    if (!x)
        return SKF_ERR_NOMEM;
    x->g = g;
    x->v = v;
    x->path = skf_calloc((size_t)v->depth + 1, sizeof *x->path);
    x->mask = skf_calloc(words_of(v) + 1, sizeof *x->mask);
    x->scratch = skf_calloc(words_of(v) + 1, sizeof *x->scratch);
    x->ends = skf_calloc((size_t)v->n + 1, sizeof *x->ends);
    if (x->path && x->mask && x->scratch && x->ends) {
        *out = x;
        return SKF_OK;
    }
    skf_match_free(x);
    return SKF_ERR_NOMEM;
}

void skf_match_free(struct skf_match *x)
{
    if (!x)
        return;
    struct skf_match **at = &x->g->matches;
    while (x->has_begun && *at != x)
        at = &(*at)->next;
    if (x->has_begun)
        *at = x->next;
    skf_free(x->path);
    skf_free(x->mask);
    skf_free(x->scratch);
    skf_free(x->ends);
    skf_free(x);
}

/* The machine forgets what no answer that is under way needs. */
static enum skf_err make_room(struct skf_grammar *g)
{
    size_t n = 0, k = 0;
    for (const struct skf_match *x = g->matches; x; x = x->next)
        n++;
    uint32_t **states = skf_calloc(n + 1, sizeof *states);
    if (!states)
        return SKF_ERR_NOMEM;
    for (struct skf_match *x = g->matches; x; x = x->next)
        states[k++] = &x->state;
    enum skf_err e = skf_machine_empty(g->machine, states, n);
    skf_free(states);
    g->mask_bytes = 0;
    return e;
}

static enum skf_err begin(struct skf_match *x)
{
    struct skf_machine *m = x->g->machine;
    if (x->has_begun)
        return SKF_OK;
    uint32_t s = skf_machine_at(m, x->g->start, 0);
    if (s == SKF_STATE_UNKNOWN && m->err == SKF_ERR_FULL) {
        SKF_TRY(make_room(x->g));
        s = skf_machine_at(m, x->g->start, 0);
    }
    if (s == SKF_STATE_UNKNOWN)
        return m->err == SKF_ERR_NOMEM ? m->err : SKF_ERR_LIMIT;
    x->state = s;
    x->has_begun = true;
    x->next = x->g->matches;
    x->g->matches = x;
    return SKF_OK;
}

/* ---- through the trie ---------------------------------------------------------------------------------------------------------------- */
/*
 * Sets the bits of the tokens that `state` allows of the nodes from `from` to `to`, which stand below depth `above`. With `is_local` the
 * nodes where the grammar may end and the trie goes on are listed in x->ends.
 */
static enum skf_err walk(struct skf_match *x, uint32_t state, uint32_t from, uint32_t to, uint32_t above, bool is_local, uint64_t *bits)
{
    struct skf_machine *m = x->g->machine;
    const struct skf_vocab *v = x->v;
    x->path[above] = state;
    for (uint32_t i = from; i < to;) {
        const struct skf_trie_node *t = &v->nodes[i];
        uint32_t s = skf_machine_step(m, x->path[t->depth - 1], t->byte);
        if (s == SKF_STATE_DEAD) {
            i = t->skip;
            continue;
        }
        if (s == SKF_STATE_UNKNOWN || m->spent > SPENT_MAX)
            return s == SKF_STATE_UNKNOWN ? m->err : SKF_ERR_LIMIT;
        x->path[t->depth] = s;
        for (int32_t id = t->token; id >= 0; id = v->same[id])
            bits[id / 64] |= (uint64_t)1 << id % 64;
        if (is_local && m->states[s].is_done && t->skip > i + 1)
            x->ends[x->n_ends++] = i;
        i = m->states[s].n ? i + 1 : t->skip;
    }
    return SKF_OK;
}

static enum skf_err keep_local(struct skf_match *x, const uint64_t *bits, struct skf_local **out)
{
    size_t words = words_of(x->v), n = 0;
    struct skf_local *l = skf_calloc(1, sizeof *l);
    if (!l)
        return SKF_ERR_NOMEM;
    for (size_t w = 0; w < words; w++)
        n += (size_t)__builtin_popcountll(bits[w]);
    l->n_tokens = (uint32_t)n;
    l->n_ends = x->n_ends;
    l->bytes = sizeof *l + x->n_ends * sizeof *l->ends + SKF_MIN(n * sizeof *l->tokens, words * sizeof *bits);
    l->ends = skf_memdup(x->ends, x->n_ends * sizeof *l->ends);
    if (n * sizeof *l->tokens < words * sizeof *bits) {
        l->tokens = skf_alloc(n * sizeof *l->tokens);
        n = 0;
        for (size_t w = 0; l->tokens && w < words; w++)
            for (uint64_t b = bits[w]; b; b &= b - 1)
                l->tokens[n++] = (int32_t)(w * 64) + __builtin_ctzll(b);
    } else {
        l->bits = skf_memdup(bits, words * sizeof *bits);
    }
    if (!l->ends || (!l->tokens && !l->bits)) {
        skf_local_free(l);
        return SKF_ERR_NOMEM;
    }
    *out = l;
    return SKF_OK;
}

static enum skf_err local_of(struct skf_match *x, uint32_t node, struct skf_local **out)
{
    struct skf_grammar *g = x->g;
    *out = g->local[node];
    if (*out)
        return SKF_OK;
    uint32_t s = skf_machine_at(g->machine, node, 0);
    if (s == SKF_STATE_UNKNOWN)
        return g->machine->err;
    memset(x->scratch, 0, words_of(x->v) * sizeof *x->scratch);
    x->n_ends = 0;
    SKF_TRY(walk(x, s, 0, x->v->n, 0, true, x->scratch));
    if (g->local_bytes > LOCAL_BYTES) {
        for (uint32_t i = 0; i < g->n_nodes; i++) {
            skf_local_free(g->local[i]);
            g->local[i] = NULL;
        }
        g->local_bytes = 0;
    }
    SKF_TRY(keep_local(x, x->scratch, &g->local[node]));
    g->local_bytes += g->local[node]->bytes;
    *out = g->local[node];
    return SKF_OK;
}

/* Adds what one place allows: its node's tokens, and those that go on behind what the stack holds. */
static enum skf_err add_place(struct skf_match *x, struct skf_place p)
{
    struct skf_machine *m = x->g->machine;
    struct skf_local *l = NULL;
    SKF_TRY(local_of(x, p.node, &l));
    if (l->bits) {
        for (size_t w = 0; w < words_of(x->v); w++)
            x->mask[w] |= l->bits[w];
    } else {
        for (uint32_t i = 0; i < l->n_tokens; i++)
            x->mask[l->tokens[i] / 64] |= (uint64_t)1 << l->tokens[i] % 64;
    }
    if (p.stack == 0 || l->n_ends == 0)
        return SKF_OK;
    uint32_t behind = skf_machine_at(m, m->frames[p.stack].back, m->frames[p.stack].below);
    if (behind == SKF_STATE_UNKNOWN)
        return m->err;
    for (uint32_t i = 0; i < l->n_ends; i++) {
        const struct skf_trie_node *t = &x->v->nodes[l->ends[i]];
        SKF_TRY(walk(x, behind, l->ends[i] + 1, t->skip, t->depth, false, x->mask));
    }
    return SKF_OK;
}

static enum skf_err add_places(struct skf_match *x)
{
    struct skf_machine *m = x->g->machine;
    const struct skf_state s = m->states[x->state];
    memset(x->mask, 0, words_of(x->v) * sizeof *x->mask);
    if (s.n > APART_MAX)
        return walk(x, x->state, 0, x->v->n, 0, false, x->mask);
    for (uint32_t i = 0; i < s.n; i++)
        SKF_TRY(add_place(x, m->places[s.first + i]));
    return SKF_OK;
}

/* A copy for the next answer that comes here. Without memory for it there is none. */
static void keep_mask(struct skf_match *x)
{
    struct skf_machine *m = x->g->machine;
    size_t bytes = words_of(x->v) * sizeof *x->mask;
    if (x->g->mask_bytes + bytes > MASK_BYTES) {
        for (uint32_t i = 0; i < m->n_states; i++) {
            skf_free(m->states[i].mask);
            m->states[i].mask = NULL;
        }
        x->g->mask_bytes = 0;
    }
    m->states[x->state].mask = skf_memdup(x->mask, bytes);
    x->g->mask_bytes += bytes;
}

enum skf_err skf_match_mask(struct skf_match *x, const uint64_t **mask)
{
    struct skf_machine *m = x->g->machine;
    enum skf_err e = SKF_ERR_FULL;
    SKF_TRY(begin(x));
    *mask = m->states[x->state].mask;
    if (*mask)
        return SKF_OK;
    m->spent = 0;
    for (int tries = 0; e == SKF_ERR_FULL && tries < 2; tries++) {
        if (tries)
            SKF_TRY(make_room(x->g));
        e = add_places(x);
    }
    if (e != SKF_OK)
        return e == SKF_ERR_FULL ? SKF_ERR_LIMIT : e;
    for (uint32_t i = 0; m->states[x->state].is_done && i < x->v->n_stops; i++)
        x->mask[x->v->stops[i] / 64] |= (uint64_t)1 << x->v->stops[i] % 64;
    keep_mask(x);
    *mask = x->mask;
    return SKF_OK;
}

enum skf_err skf_match_take(struct skf_match *x, int32_t id)
{
    struct skf_machine *m = x->g->machine;
    size_t n = 0;
    const char *p = skf_tokenizer_text(x->v->tk, id, &n);
    SKF_TRY(begin(x));
    if (is_tokenizer_stop(x->v->tk, id))
        return SKF_OK;
    for (size_t i = 0; i < n; i++) {
        uint32_t s = skf_machine_step(m, x->state, (uint8_t)p[i]);
        if (s == SKF_STATE_UNKNOWN && m->err == SKF_ERR_FULL) {
            SKF_TRY(make_room(x->g));
            s = skf_machine_step(m, x->state, (uint8_t)p[i]);
        }
        if (s == SKF_STATE_UNKNOWN)
            return m->err == SKF_ERR_NOMEM ? SKF_ERR_NOMEM : SKF_ERR_LIMIT;
        if (s == SKF_STATE_DEAD)
            return SKF_ERR_ARG;
        x->state = s;
    }
    return SKF_OK;
}

bool is_match_over(const struct skf_match *x) { return x->has_begun && x->g->machine->states[x->state].n == 0; }
