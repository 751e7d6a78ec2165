/*
 * Compiling what was built: nodes and edges, without those that lead nowhere; nothing in it calls itself without a byte between
 * (grammar_priv.h).
 */
#include "runtime/grammar_priv.h"

#include "base/alloc.h"
#include "base/util.h"

struct maker {
    const struct skf_gb *b;
    struct skf_node *nodes;
    struct skf_edge *edges;
    uint32_t n_nodes, n_edges, nodes_room, edges_room;
    uint32_t *starts; /* of rules */
    enum skf_err err;
};

static uint32_t node(struct maker *m)
{
    if (m->err != SKF_OK)
        return 0;
    if (m->n_nodes == m->nodes_room) {
        uint32_t room = m->nodes_room ? 2 * m->nodes_room : 256;
        struct skf_node *more = room <= SKF_GRAMMAR_NODES_MAX ? skf_realloc(m->nodes, room * sizeof *more) : NULL;
        if (!more) {
            m->err = room <= SKF_GRAMMAR_NODES_MAX ? SKF_ERR_NOMEM : SKF_ERR_LIMIT;
            return 0;
        }
        m->nodes = more;
        m->nodes_room = room;
    }
    m->nodes[m->n_nodes] = (struct skf_node){0};
    return m->n_nodes++;
}

static void edge(struct maker *m, struct skf_edge x)
{
    if (m->err != SKF_OK)
        return;
    if (m->n_edges == m->edges_room) {
        uint32_t room = m->edges_room ? 2 * m->edges_room : 512;
        struct skf_edge *more = room <= SKF_GRAMMAR_EDGES_MAX ? skf_realloc(m->edges, room * sizeof *more) : NULL;
        if (!more) {
            m->err = room <= SKF_GRAMMAR_EDGES_MAX ? SKF_ERR_NOMEM : SKF_ERR_LIMIT;
            return;
        }
        m->edges = more;
        m->edges_room = room;
    }
    m->edges[m->n_edges++] = x;
}

static void empty(struct maker *m, uint32_t from, uint32_t to) { edge(m, (struct skf_edge){.from = from, .to = to, .kind = SKF_EDGE_EMPTY}); }

/* The expression from a node to another. Each call makes an edge at the least, so the bounds on those bound the time. */
static void lay(struct maker *m, uint32_t x, uint32_t from, uint32_t to);

static void lay_rep(struct maker *m, const struct skf_gx *g, uint32_t from, uint32_t to)
{
    for (uint32_t i = 0; i < g->min && m->err == SKF_OK; i++) {
        uint32_t behind = node(m);
        lay(m, g->first, from, behind);
        from = behind;
    }
    if (g->max == SKF_GRAMMAR_NO_MAX) {
        uint32_t loop = node(m);
        empty(m, from, loop);
        lay(m, g->first, loop, loop);
        from = loop;
    } else {
        for (uint32_t i = g->min; i < g->max && m->err == SKF_OK; i++) {
            uint32_t behind = node(m);
            empty(m, from, to);
            lay(m, g->first, from, behind);
            from = behind;
        }
    }
    empty(m, from, to);
}

static void lay(struct maker *m, uint32_t x, uint32_t from, uint32_t to)
{
    const struct skf_gx *g = &m->b->x[x];
    if (m->err != SKF_OK)
        return;
    if (g->kind == SKF_GX_BYTES) {
        edge(m, (struct skf_edge){from, to, 0, SKF_EDGE_BYTES, g->lo, g->hi});
    } else if (g->kind == SKF_GX_CALL) {
        edge(m, (struct skf_edge){from, to, m->starts[g->min], SKF_EDGE_CALL, 0, 0});
    } else if (g->kind == SKF_GX_REP) {
        lay_rep(m, g, from, to);
    } else if (g->kind == SKF_GX_ALT) {
        for (uint32_t p = g->first; p; p = m->b->x[p].next)
            lay(m, p, from, to);
    } else {
        for (uint32_t p = g->first; p && m->b->x[p].next; p = m->b->x[p].next) {
            uint32_t behind = node(m);
            lay(m, p, from, behind);
            from = behind;
        }
        if (g->last)
            lay(m, g->last, from, to);
        else
            empty(m, from, to);
    }
}

static void lay_rules(struct maker *m)
{
    for (uint32_t i = 0; i < m->b->n_rules; i++)
        m->starts[i] = node(m);
    for (uint32_t i = 0; i < m->b->n_rules && m->err == SKF_OK; i++) {
        uint32_t end = node(m);
        if (m->err == SKF_OK)
            m->nodes[end].is_final = true;
        if (m->b->bodies[i]) {
            /* A loop back to the start would let a call begin in the middle. */
            uint32_t begin = node(m);
            empty(m, m->starts[i], begin);
            lay(m, m->b->bodies[i], begin, end);
        }
    }
}

static int by_node(const void *a, const void *b)
{
    const struct skf_edge *x = a, *y = b;
    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    return x->lo != y->lo ? (x->lo < y->lo ? -1 : 1) : x->to != y->to ? (x->to < y->to ? -1 : 1) : 0;
}

/* Sorts the edges under their nodes. */
static void list_edges(struct skf_node *nodes, uint32_t n_nodes, struct skf_edge *edges, uint32_t n)
{
    if (n)
        qsort(edges, n, sizeof *edges, by_node);
    for (uint32_t i = 0; i < n_nodes; i++)
        nodes[i].n = 0, nodes[i].has_bytes = false;
    for (uint32_t i = n; i-- > 0;) {
        struct skf_node *at = &nodes[edges[i].from];
        at->first = i;
        at->n++;
        at->has_bytes |= edges[i].kind == SKF_EDGE_BYTES;
    }
}

/* ---- which nodes can come to an end --------------------------------------------------------------------------------------------------- */
/* Edges by the node that they lead to, and calls by the start that they call. */
struct back {
    uint32_t *head, *next;
};

static enum skf_err back_new(struct back *k, uint32_t nodes, uint32_t edges)
{
    k->head = skf_calloc((size_t)nodes + 1, sizeof *k->head);
    k->next = skf_calloc((size_t)edges + 1, sizeof *k->next);
    return k->head && k->next ? SKF_OK : SKF_ERR_NOMEM;
}
static void back_free(struct back *k)
{
    skf_free(k->head);
    skf_free(k->next);
}

/* can[node]: the end of its rule is reached from it; with bytes, or (is_empty) without any. */
static enum skf_err spread(const struct skf_node *nodes, uint32_t n_nodes, const struct skf_edge *edges, uint32_t n, bool is_empty, bool *can)
{
    struct back to = {0}, call = {0};
    enum skf_err e;
    uint32_t *work = skf_calloc((size_t)n_nodes + 1, sizeof *work), n_work = 0;
    SKF_GO(e, work ? SKF_OK : SKF_ERR_NOMEM);
    SKF_GO(e, back_new(&to, n_nodes, n));
    SKF_GO(e, back_new(&call, n_nodes, n));
    for (uint32_t i = 0; i < n; i++) {
        if (is_empty && edges[i].kind == SKF_EDGE_BYTES)
            continue;
        to.next[i] = to.head[edges[i].to];
        to.head[edges[i].to] = i + 1;
        if (edges[i].kind == SKF_EDGE_CALL) {
            call.next[i] = call.head[edges[i].start];
            call.head[edges[i].start] = i + 1;
        }
    }
    for (uint32_t i = 0; i < n_nodes; i++)
        if ((can[i] = nodes[i].is_final))
            work[n_work++] = i;
    while (n_work > 0) {
        uint32_t at = work[--n_work];
        for (int which = 0; which < 2; which++) {
            const struct back *k = which ? &call : &to;
            for (uint32_t i = k->head[at]; i; i = k->next[i - 1]) {
                const struct skf_edge *x = &edges[i - 1];
                if (can[x->from] || !can[x->to] || (x->kind == SKF_EDGE_CALL && !can[x->start]))
                    continue;
                can[x->from] = true;
                work[n_work++] = x->from;
            }
        }
    }
out:
    back_free(&to);
    back_free(&call);
    skf_free(work);
    return e;
}

/* ---- calls without progress ------------------------------------------------------------------------------------------------------------ */
/* Tarjan's strongly connected components (1972) over what is reached without a byte, by a stack of our own. */
struct scc {
    const struct maker *m;
    const bool *can_be_empty;
    uint32_t *index, *low, *stack, *path, *edge; /* index 0: not seen */
    bool *is_on;
    uint32_t n_stack, n_path, n;
    bool is_bad;
};

static void scc_enter(struct scc *s, uint32_t v)
{
    s->index[v] = s->low[v] = ++s->n;
    s->stack[s->n_stack++] = v;
    s->is_on[v] = true;
    s->path[s->n_path] = v;
    s->edge[s->n_path++] = 0;
}

/* The k-th node that is reached from v without a byte; false when there is none. Calls count twice: into the rule and over it. */
static bool is_reached(const struct scc *s, uint32_t v, uint32_t k, uint32_t *to, bool *is_there)
{
    const struct skf_node *at = &s->m->nodes[v];
    if (k >= 2 * at->n)
        return false;
    const struct skf_edge *x = &s->m->edges[at->first + k / 2];
    *to = k % 2 && x->kind == SKF_EDGE_CALL ? x->start : x->to;
    *is_there = k % 2 ? x->kind == SKF_EDGE_CALL : x->kind == SKF_EDGE_EMPTY || (x->kind == SKF_EDGE_CALL && s->can_be_empty[x->start]);
    return true;
}

static void scc_from(struct scc *s, uint32_t root)
{
    scc_enter(s, root);
    while (s->n_path > 0) {
        uint32_t v = s->path[s->n_path - 1], w = 0;
        bool is_there = false;
        if (is_reached(s, v, s->edge[s->n_path - 1]++, &w, &is_there)) {
            if (is_there && !s->index[w])
                scc_enter(s, w);
            else if (is_there && s->is_on[w])
                s->low[v] = SKF_MIN(s->low[v], s->index[w]);
            continue;
        }
        s->n_path--;
        if (s->n_path > 0)
            s->low[s->path[s->n_path - 1]] = SKF_MIN(s->low[s->path[s->n_path - 1]], s->low[v]);
        if (s->low[v] != s->index[v])
            continue;
        while (true) { /* low becomes the component's number */
            w = s->stack[--s->n_stack];
            s->is_on[w] = false;
            s->low[w] = v;
            if (w == v)
                break;
        }
    }
}

static enum skf_err find_left_recursion(const struct maker *m, bool *is_bad)
{
    size_t n = (size_t)m->n_nodes + 1;
    bool *can_be_empty = skf_calloc(n, sizeof(bool));
    struct scc s = {.m = m, .can_be_empty = can_be_empty};
    uint32_t *all = skf_calloc(5 * n, sizeof *all);
    enum skf_err e = all && can_be_empty ? SKF_OK : SKF_ERR_NOMEM;
    s.is_on = skf_calloc(n, sizeof(bool));
    if (e == SKF_OK)
        e = s.is_on ? spread(m->nodes, m->n_nodes, m->edges, m->n_edges, true, can_be_empty) : SKF_ERR_NOMEM;
    if (e == SKF_OK) {
        s.index = all;
        s.low = all + n;
        s.stack = all + 2 * n;
        s.path = all + 3 * n;
        s.edge = all + 4 * n;
        for (uint32_t v = 0; v < m->n_nodes; v++)
            if (!s.index[v])
                scc_from(&s, v);
        for (uint32_t i = 0; i < m->n_edges; i++)
            *is_bad |= m->edges[i].kind == SKF_EDGE_CALL && s.low[m->edges[i].from] == s.low[m->edges[i].start];
    }
    skf_free(can_be_empty);
    skf_free(all);
    skf_free(s.is_on);
    return e;
}

/* ---- all of it ---------------------------------------------------------------------------------------------------------------------------- */
static enum skf_err drop_dead_ends(struct maker *m, struct skf_why *why)
{
    bool *can = skf_calloc((size_t)m->n_nodes + 1, sizeof *can);
    enum skf_err e = can ? spread(m->nodes, m->n_nodes, m->edges, m->n_edges, false, can) : SKF_ERR_NOMEM;
    if (e == SKF_OK && !can[m->starts[0]])
        e = skf_fail(why, SKF_ERR_ARG, "there is no text that the grammar allows");
    uint32_t kept = 0;
    for (uint32_t i = 0; e == SKF_OK && i < m->n_edges; i++) {
        const struct skf_edge *x = &m->edges[i];
        if (can[x->to] && (x->kind != SKF_EDGE_CALL || can[x->start]))
            m->edges[kept++] = *x;
    }
    m->n_edges = e == SKF_OK ? kept : m->n_edges;
    skf_free(can);
    return e;
}

static void classify(struct skf_grammar *g)
{
    bool cut[257] = {[0] = true};
    for (uint32_t i = 0; i < g->n_edges; i++)
        if (g->edges[i].kind == SKF_EDGE_BYTES)
            cut[g->edges[i].lo] = cut[g->edges[i].hi + 1] = true;
    for (unsigned b = 0; b < 256; b++) {
        if (cut[b])
            g->byte_of[g->n_classes++] = (uint8_t)b;
        g->class_of[b] = (uint8_t)(g->n_classes - 1);
    }
}

static enum skf_err make_all(struct maker *m, struct skf_why *why)
{
    bool is_bad = false;
    m->starts = skf_calloc((size_t)m->b->n_rules + 1, sizeof *m->starts);
    if (!m->starts)
        return SKF_ERR_NOMEM;
    lay_rules(m);
    if (m->err == SKF_ERR_LIMIT)
        return skf_fail(why, SKF_ERR_LIMIT, "the grammar is too large: it comes to more than %u nodes or %u edges", SKF_GRAMMAR_NODES_MAX,
                        SKF_GRAMMAR_EDGES_MAX);
    SKF_TRY(m->err);
    SKF_TRY(drop_dead_ends(m, why));
    list_edges(m->nodes, m->n_nodes, m->edges, m->n_edges);
    SKF_TRY(find_left_recursion(m, &is_bad));
    return is_bad ? skf_fail(why, SKF_ERR_ARG, "a rule of the grammar calls itself before anything was said (left recursion)") : SKF_OK;
}

enum skf_err skf_grammar_compile(const struct skf_gb *b, struct skf_grammar **out, struct skf_why *why)
{
    struct maker m = {.b = b};
    struct skf_grammar *g = NULL;
    if (b->err != SKF_OK)
        return b->err;
    if (b->n_rules == 0)
        return skf_fail(why, SKF_ERR_ARG, "the grammar has no rule");
    enum skf_err e = make_all(&m, why);
    if (e == SKF_OK && (!(g = skf_calloc(1, sizeof *g)) || !(g->local = skf_calloc((size_t)m.n_nodes, sizeof(void *)))))
        e = SKF_ERR_NOMEM;
    if (e == SKF_OK) {
        g->nodes = m.nodes;
        g->edges = m.edges;
        g->n_nodes = m.n_nodes;
        g->n_edges = m.n_edges;
        g->start = m.starts[0];
        m.nodes = NULL;
        m.edges = NULL;
        classify(g);
        e = skf_machine_new(g, &g->machine);
    }
    skf_free(m.nodes);
    skf_free(m.edges);
    skf_free(m.starts);
    if (e == SKF_OK)
        *out = g;
    else
        skf_grammar_free(g);
    return e == SKF_ERR_NOMEM ? skf_fail(why, e, "no memory for a grammar") : e;
}

void skf_grammar_free(struct skf_grammar *g)
{
    if (!g)
        return;
    for (uint32_t i = 0; g->local && i < g->n_nodes; i++)
        skf_local_free(g->local[i]);
    skf_machine_free(g->machine);
    skf_free(g->local);
    skf_free(g->nodes);
    skf_free(g->edges);
    skf_free(g);
}
