/* States of a pushdown automaton, found as they are needed (grammar_priv.h). */
#include "runtime/grammar_priv.h"

#include "base/alloc.h"
#include "base/util.h"

enum {
    STATES_MAX = 4096,
    PLACES_MAX = 1 << 17, /* of all states */
    FRAMES_MAX = 1 << 15,
    SET_MAX = 1024,       /* places of one state */
    WORK_MAX = 4096,      /* places visited on the way to one state */
    SEEN = 4 * WORK_MAX,  /* hash tables: powers of two */
    STATE_PLACES = 4 * STATES_MAX,
    FRAME_PLACES = 4 * FRAMES_MAX
};

static uint32_t mix(uint64_t a, uint64_t b)
{
    uint64_t h = (a << 32 | b) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32 ^ h);
}

enum skf_err skf_machine_new(const struct skf_grammar *g, struct skf_machine **out)
{
    struct skf_machine *m = skf_calloc(1, sizeof *m);
    if (!m)
        return SKF_ERR_NOMEM;
    m->g = g;
    m->states_room = 32;
    m->places_room = 2 * SET_MAX;
    m->frames_room = 64;
    m->states = skf_calloc(m->states_room, sizeof *m->states);
    m->next = skf_calloc((size_t)m->states_room * g->n_classes, sizeof *m->next);
    m->places = skf_calloc(m->places_room, sizeof *m->places);
    m->frames = skf_calloc(m->frames_room, sizeof *m->frames);
    m->state_index = skf_calloc(STATE_PLACES, sizeof *m->state_index);
    m->frame_index = skf_calloc(FRAME_PLACES, sizeof *m->frame_index);
    m->seen = skf_calloc(SEEN, sizeof *m->seen);
    m->work = skf_calloc(WORK_MAX, sizeof *m->work);
    if (!m->states || !m->next || !m->places || !m->frames || !m->state_index || !m->frame_index || !m->seen || !m->work) {
        skf_machine_free(m);
        return SKF_ERR_NOMEM;
    }
    m->n_states = SKF_STATE_FIRST;
    m->n_frames = 1;
    *out = m;
    return SKF_OK;
}

void skf_machine_free(struct skf_machine *m)
{
    if (!m)
        return;
    for (uint32_t i = 0; m->states && i < m->n_states; i++)
        skf_free(m->states[i].mask);
    skf_free(m->states);
    skf_free(m->next);
    skf_free(m->places);
    skf_free(m->frames);
    skf_free(m->state_index);
    skf_free(m->frame_index);
    skf_free(m->seen);
    skf_free(m->work);
    skf_free(m);
}

static void fail(struct skf_machine *m, enum skf_err e)
{
    if (m->err == SKF_OK)
        m->err = e;
}

/* More room in an array, up to `most` things. */
static bool is_room(struct skf_machine *m, void **array, size_t size, uint32_t need, uint32_t *room, uint32_t most)
{
    if (need <= *room)
        return true;
    uint32_t more = *room;
    while (more < need)
        more *= 2;
    if (more > most) {
        fail(m, SKF_ERR_FULL);
        return false;
    }
    void *p = skf_realloc(*array, more * size);
    if (!p) {
        fail(m, SKF_ERR_NOMEM);
        return false;
    }
    *array = p;
    *room = more;
    return true;
}

/* ---- stacks ---------------------------------------------------------------------------------------------------------------------- */
/* The stack with `back` on top of `below`; 0 with an error set. */
static uint32_t push(struct skf_machine *m, uint32_t below, uint32_t back)
{
    uint32_t at = mix(below, back) % FRAME_PLACES;
    for (; m->frame_index[at]; at = (at + 1) % FRAME_PLACES) {
        const struct skf_frame *f = &m->frames[m->frame_index[at]];
        if (f->below == below && f->back == back)
            return m->frame_index[at];
    }
    if (!is_room(m, (void **)&m->frames, sizeof *m->frames, m->n_frames + 1, &m->frames_room, FRAMES_MAX))
        return 0;
    m->frames[m->n_frames] = (struct skf_frame){below, back, m->frames[below].depth + 1};
    m->frame_index[at] = m->n_frames;
    return m->n_frames++;
}

/* ---- what follows without a byte ---------------------------------------------------------------------------------------------------- */
static void visit(struct skf_machine *m, uint32_t node, uint32_t stack)
{
    uint32_t at = mix(node, stack) % SEEN;
    for (; m->seen[at].stamp == m->stamp; at = (at + 1) % SEEN)
        if (m->seen[at].at.node == node && m->seen[at].at.stack == stack)
            return;
    if (m->n_work == WORK_MAX) {
        fail(m, SKF_ERR_LIMIT);
        return;
    }
    m->seen[at] = (struct seen){{node, stack}, m->stamp};
    m->work[m->n_work++] = (struct skf_place){node, stack};
}

static void begin_set(struct skf_machine *m)
{
    if (++m->stamp == 0) {
        memset(m->seen, 0, SEEN * sizeof *m->seen);
        m->stamp = 1;
    }
    m->n_work = m->n_set = 0;
    m->is_done = false;
    m->err = SKF_OK;
}

static void call(struct skf_machine *m, const struct skf_edge *x, uint32_t stack)
{
    const struct skf_node *behind = &m->g->nodes[x->to];
    if (!(behind->n == 0 && behind->is_final)) { /* a call at the end goes back where this rule would */
        if (m->frames[stack].depth >= SKF_GRAMMAR_DEPTH_MAX)
            return; /* this way of going on is closed */
        stack = push(m, stack, x->to);
    }
    if (m->err == SKF_OK)
        visit(m, x->start, stack);
}

/* From what was visited: the places that wait for a byte, put behind those of all states. */
static void close_set(struct skf_machine *m)
{
    for (uint32_t i = 0; i < m->n_work && m->err == SKF_OK; i++) {
        struct skf_place p = m->work[i];
        const struct skf_node *at = &m->g->nodes[p.node];
        m->spent += 1 + at->n;
        if (at->has_bytes) {
            if (m->n_set == SET_MAX)
                fail(m, SKF_ERR_LIMIT);
            else if (is_room(m, (void **)&m->places, sizeof *m->places, m->n_places + m->n_set + 1, &m->places_room, PLACES_MAX))
                m->places[m->n_places + m->n_set++] = p;
        }
        if (at->is_final && p.stack == 0)
            m->is_done = true;
        else if (at->is_final)
            visit(m, m->frames[p.stack].back, m->frames[p.stack].below);
        for (uint32_t k = at->first; k < at->first + at->n && m->err == SKF_OK; k++) {
            const struct skf_edge *x = &m->g->edges[k];
            if (x->kind == SKF_EDGE_EMPTY)
                visit(m, x->to, p.stack);
            else if (x->kind == SKF_EDGE_CALL)
                call(m, x, p.stack);
        }
    }
}

static int by_place(const void *a, const void *b)
{
    const struct skf_place *x = a, *y = b;
    return x->node != y->node ? (x->node < y->node ? -1 : 1) : x->stack != y->stack ? (x->stack < y->stack ? -1 : 1) : 0;
}

/* The state of the places that were collected. */
static uint32_t settle(struct skf_machine *m)
{
    struct skf_place *set = m->places + m->n_places;
    uint32_t h = m->is_done ? 0x5bd1e995u : 0;
    if (m->err != SKF_OK)
        return SKF_STATE_UNKNOWN;
    if (m->n_set == 0 && !m->is_done)
        return SKF_STATE_DEAD;
    if (m->n_set > 1)
        qsort(set, m->n_set, sizeof *set, by_place);
    for (uint32_t i = 0; i < m->n_set; i++)
        h = mix(h ^ set[i].node, set[i].stack) + h * 31;
    uint32_t at = h % STATE_PLACES;
    for (; m->state_index[at]; at = (at + 1) % STATE_PLACES) {
        const struct skf_state *s = &m->states[m->state_index[at]];
        if (s->n == m->n_set && s->is_done == m->is_done && (s->n == 0 || memcmp(m->places + s->first, set, s->n * sizeof *set) == 0))
            return m->state_index[at];
    }
    uint32_t room = m->states_room;
    if (!is_room(m, (void **)&m->states, sizeof *m->states, m->n_states + 1, &m->states_room, STATES_MAX))
        return SKF_STATE_UNKNOWN;
    if (m->states_room > room) {
        size_t was = (size_t)room * m->g->n_classes, is = (size_t)m->states_room * m->g->n_classes;
        uint32_t *next = skf_realloc(m->next, is * sizeof *next);
        if (!next) {
            m->states_room = room; /* what is longer than it says does no harm */
            fail(m, SKF_ERR_NOMEM);
            return SKF_STATE_UNKNOWN;
        }
        memset(next + was, 0, (is - was) * sizeof *next);
        m->next = next;
    }
    m->states[m->n_states] = (struct skf_state){m->n_places, m->n_set, m->is_done, NULL};
    m->n_places += m->n_set;
    m->state_index[at] = m->n_states;
    return m->n_states++;
}

uint32_t skf_machine_at(struct skf_machine *m, uint32_t node, uint32_t stack)
{
    begin_set(m);
    visit(m, node, stack);
    close_set(m);
    return settle(m);
}

uint32_t skf_machine_find(struct skf_machine *m, uint32_t state, uint8_t byte)
{
    if (state == SKF_STATE_DEAD)
        return SKF_STATE_DEAD;
    size_t cell = (size_t)state * m->g->n_classes + m->g->class_of[byte];
    const struct skf_state s = m->states[state];
    begin_set(m);
    for (uint32_t i = 0; i < s.n; i++) {
        struct skf_place p = m->places[s.first + i];
        const struct skf_node *at = &m->g->nodes[p.node];
        for (uint32_t k = at->first; k < at->first + at->n; k++) {
            const struct skf_edge *x = &m->g->edges[k];
            if (x->kind == SKF_EDGE_BYTES && byte >= x->lo && byte <= x->hi)
                visit(m, x->to, p.stack);
        }
        m->spent += at->n;
    }
    close_set(m);
    uint32_t to = settle(m);
    if (to != SKF_STATE_UNKNOWN)
        m->next[cell] = to;
    return to;
}

/* ---- making room -------------------------------------------------------------------------------------------------------------------- */
/* Marks the stacks of the places of these states; the places one behind the other in `kept`. */
static void list_kept(const struct skf_machine *m, uint32_t *const states[], size_t n, struct skf_place *kept, uint32_t *number)
{
    for (size_t i = 0; i < n; i++) {
        const struct skf_state *s = &m->states[*states[i]];
        for (uint32_t k = 0; k < s->n; k++) {
            *kept = m->places[s->first + k];
            for (uint32_t f = kept++->stack; f && !number[f]; f = m->frames[f].below)
                number[f] = 1;
        }
    }
}

static void forget(struct skf_machine *m)
{
    memset(m->frame_index, 0, FRAME_PLACES * sizeof *m->frame_index);
    memset(m->state_index, 0, STATE_PLACES * sizeof *m->state_index);
    memset(m->next, 0, (size_t)m->states_room * m->g->n_classes * sizeof *m->next);
    m->n_states = SKF_STATE_FIRST;
    m->n_places = 0;
    m->n_frames = 1;
}

enum skf_err skf_machine_empty(struct skf_machine *m, uint32_t *const states[], size_t n)
{
    size_t total = 0;
    uint32_t n_frames = m->n_frames;
    for (size_t i = 0; i < n; i++)
        total += m->states[*states[i]].n;
    struct skf_place *kept = skf_calloc(total + 1, sizeof *kept), *at = kept;
    struct skf_state *was = skf_calloc(n + 1, sizeof *was);
    uint32_t *number = skf_calloc(n_frames, sizeof *number);
    if (!kept || !was || !number) {
        skf_free(kept);
        skf_free(was);
        skf_free(number);
        return SKF_ERR_NOMEM;
    }
    list_kept(m, states, n, kept, number);
    for (size_t i = 0; i < n; i++)
        was[i] = m->states[*states[i]];
    for (uint32_t i = 0; i < m->n_states; i++) {
        skf_free(m->states[i].mask);
        m->states[i].mask = NULL;
    }
    forget(m);
    begin_set(m);
    for (uint32_t f = 1; f < n_frames; f++) { /* one below is always older */
        struct skf_frame frame = m->frames[f];
        if (number[f])
            number[f] = push(m, number[frame.below], frame.back);
    }
    for (size_t i = 0; i < n && m->err == SKF_OK; i++) {
        begin_set(m);
        m->is_done = was[i].is_done;
        for (; m->n_set < was[i].n; at++)
            if (is_room(m, (void **)&m->places, sizeof *m->places, m->n_places + m->n_set + 1, &m->places_room, PLACES_MAX))
                m->places[m->n_places + m->n_set++] = (struct skf_place){at->node, number[at->stack]};
            else
                break;
        if (*states[i] >= SKF_STATE_FIRST)
            *states[i] = settle(m);
    }
    skf_free(kept);
    skf_free(was);
    skf_free(number);
    return m->err;
}
