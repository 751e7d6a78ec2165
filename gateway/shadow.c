/*
 * Shadows: a share of a model's greedy requests is also given to a version that is not to answer yet.  What it says is compared, token by token,
 * with what the client is sent, and thrown away.  One request a shadow at a time, and nothing that becomes of it touches the client's.
 */
#include "base/alloc.h"
#include "base/digest.h"
#include "base/util.h"
#include "gateway/gateway_priv.h"

#define TOKENS_MOST 512u /* of each answer that are compared */

struct said {
    int32_t token[TOKENS_MOST];
    uint32_t n, made;
    uint64_t us;
    bool is_done;
};
struct gw_shadow {
    struct gw_shadow *next;
    uint64_t id; /* of the request, on both connections */
    struct gw_link *main, *link;
    struct said by[2]; /* main's, the shadow's */
};

static struct gw_shadow **find_(struct skf_gw *g, uint64_t id)
{
    struct gw_shadow **at = &g->shadows;
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

static void drop_(struct skf_gw *g, struct gw_shadow **at)
{
    struct gw_shadow *s = *at;
    *at = s->next;
    s->link->active--;
    pthread_cond_broadcast(&g->changed);
    skf_free(s);
}

static bool is_busy_(const struct skf_gw *g, const struct gw_link *l)
{
    for (const struct gw_shadow *s = g->shadows; s; s = s->next)
        if (s->link == l)
            return true;
    return false;
}

/* The request goes to `main` just now. */
void skf_gw_shadow_(struct skf_gw *g, const struct gw_link *main, const struct skf_gw_ask *ask, uint64_t id)
{
    uint32_t dice = 0;
    struct gw_link *l = g->links;
    while (l && !(l->is_routed && l->shadow_permille && l->connected && !l->is_leaving && strcmp(l->model, main->model) == 0))
        l = l->next;
    if (!l || !ask->is_greedy || ask->n > 1 || is_busy_(g, l) || *find_(g, id) || skf_random(&dice, sizeof dice) != SKF_OK ||
        dice % 1000 >= l->shadow_permille)
        return;
    struct gw_shadow *s = skf_calloc(1, sizeof *s);
    if (!s || skf_gw_link_send_(l, ask->frame, ask->frame_len) != SKF_OK) {
        skf_free(s);
        return;
    }
    s->id = id;
    s->main = (struct gw_link *)(uintptr_t)main;
    s->link = l;
    s->next = g->shadows;
    g->shadows = s;
    l->active++;
}

static void compare_(struct gw_link *l, const struct said *main, const struct said *shadow)
{
    uint32_t most = SKF_MAX(main->n, shadow->n), n = 0;
    while (n < main->n && n < shadow->n && main->token[n] == shadow->token[n])
        n++;
    l->compared.requests++;
    l->compared.tokens += most;
    l->compared.equal += n;
    l->compared.main_tokens += main->made;
    l->compared.main_us += main->us;
    l->compared.shadow_tokens += shadow->made;
    l->compared.shadow_us += shadow->us;
}

static struct said *side_(struct gw_shadow *s, const struct gw_link *l) { return l == s->link ? &s->by[1] : l == s->main ? &s->by[0] : NULL; }

bool is_gw_shadow_token_(struct gw_link *l, uint64_t id, int32_t token)
{
    struct gw_shadow *s = *find_(l->g, id);
    struct said *by = s ? side_(s, l) : NULL;
    if (by && by->n < TOKENS_MOST)
        by->token[by->n++] = token;
    return l->shadow_permille || (by && l == s->link);
}

bool is_gw_shadow_finished_(struct gw_link *l, const Skiff__V1__Finished *f)
{
    struct gw_shadow **at = find_(l->g, f->id), *s = *at;
    struct said *by = s ? side_(s, l) : NULL;
    bool is_theirs = by && l == s->link, is_whole = strcmp(f->reason, "stop") == 0 || strcmp(f->reason, "length") == 0;
    if (!by)
        return l->shadow_permille > 0;
    by->is_done = true;
    by->made = f->completion_tokens;
    by->us = f->decode_us;
    if (is_theirs && !is_whole)
        l->failed++;
    if (!is_whole) { /* nothing to compare with */
        if (!s->by[1].is_done)
            skf_gw_link_cancel_(s->link, s->id);
        drop_(l->g, at);
    } else if (s->by[0].is_done && s->by[1].is_done) {
        compare_(s->link, &s->by[0], &s->by[1]);
        drop_(l->g, at);
    }
    return is_theirs;
}

void skf_gw_shadow_gone_(struct skf_gw *g, const struct gw_link *l, uint64_t id)
{
    for (struct gw_shadow **at = &g->shadows; *at;) {
        struct gw_shadow *s = *at;
        bool is_main = s->main == l && !s->by[0].is_done;
        if ((!id || s->id == id) && (s->link == l || is_main)) {
            if (s->link != l && !s->by[1].is_done)
                skf_gw_link_cancel_(s->link, s->id);
            drop_(g, at);
        } else {
            at = &s->next;
        }
    }
}
