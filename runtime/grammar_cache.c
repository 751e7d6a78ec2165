/* Compiled grammars, kept (grammar_cache.h). */
#include "runtime/grammar_cache.h"

#include <pthread.h>

#include "base/alloc.h"
#include "base/digest.h"
#include "base/util.h"
#include "runtime/schema_priv.h"
#include "runtime/tools_priv.h"

#define KEPT_MAX 32u                      /* that nobody uses */
#define USED_MAX ((size_t)256 << 20)      /* bytes of those in use */

struct skf_kept {
    struct skf_kept *next; /* the last used in front */
    uint8_t digest[SKF_DIGEST];
    enum skf_form form;
    unsigned uses;
    size_t bytes;
    struct skf_grammar *g;
};
struct skf_grammars {
    const struct skf_tokenizer *tk;
    pthread_mutex_t lock;
    struct skf_kept *kept;
    struct skf_vocab *vocab;
    size_t used;
};

enum skf_err skf_grammars_new(const struct skf_tokenizer *tk, struct skf_grammars **out)
{
    struct skf_grammars *gs = skf_calloc(1, sizeof *gs);
    if (!gs || pthread_mutex_init(&gs->lock, NULL)) {
        skf_free(gs);
        return SKF_ERR_NOMEM;
    }
    gs->tk = tk;
    *out = gs;
    return SKF_OK;
}

static void free_kept(struct skf_kept *k)
{
    skf_grammar_free(k->g);
    skf_free(k);
}

void skf_grammars_free(struct skf_grammars *gs)
{
    if (!gs)
        return;
    while (gs->kept) {
        struct skf_kept *k = gs->kept;
        gs->kept = k->next;
        free_kept(k);
    }
    skf_vocab_free(gs->vocab);
    (void)pthread_mutex_destroy(&gs->lock);
    skf_free(gs);
}

static enum skf_err compile(enum skf_form form, const char *text, size_t n, struct skf_grammar **g, struct skf_why *why)
{
    if (form == SKF_FORM_SCHEMA)
        return skf_grammar_schema(text, n, g, why);
    if (form == SKF_FORM_OBJECT)
        return skf_grammar_object(g, why);
    if (form == SKF_FORM_TOOLS)
        return skf_grammar_tools(text, n, g, why);
    return skf_grammar_gbnf(text, n, g, why);
}

/* Moves the one that is wanted to the front. */
static struct skf_kept *find_(struct skf_grammars *gs, enum skf_form form, const uint8_t d[SKF_DIGEST])
{
    for (struct skf_kept **at = &gs->kept; *at; at = &(*at)->next) {
        struct skf_kept *k = *at;
        if (k->form != form || memcmp(k->digest, d, SKF_DIGEST) != 0)
            continue;
        *at = k->next;
        k->next = gs->kept;
        gs->kept = k;
        return k;
    }
    return NULL;
}

/* Those that nobody uses, but for the last few, go. */
static void drop_(struct skf_grammars *gs)
{
    unsigned idle = 0;
    for (struct skf_kept **at = &gs->kept; *at;) {
        struct skf_kept *k = *at;
        if (k->uses > 0 || ++idle <= KEPT_MAX) {
            at = &k->next;
        } else {
            *at = k->next;
            free_kept(k);
        }
    }
}

/* A grammar that is not there yet; compiled without the lock, which the stepping thread may want. */
static enum skf_err make(enum skf_form form, const char *text, size_t n, const uint8_t d[SKF_DIGEST], struct skf_kept **out, struct skf_why *why)
{
    struct skf_kept *k = skf_calloc(1, sizeof *k);
    if (!k)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a grammar");
    enum skf_err e = compile(form, text, n, &k->g, why);
    if (e != SKF_OK) {
        skf_free(k);
        return e;
    }
    k->form = form;
    memcpy(k->digest, d, SKF_DIGEST);
    k->bytes = (2u << 20) + k->g->n_nodes * (sizeof *k->g->nodes + sizeof(void *)) + k->g->n_edges * sizeof *k->g->edges;
    *out = k;
    return SKF_OK;
}

static enum skf_err use_(struct skf_grammars *gs, struct skf_kept *k, struct skf_why *why)
{
    if (!gs->vocab && skf_vocab_new(gs->tk, &gs->vocab) != SKF_OK)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for the vocabulary of a grammar");
    if (k->uses == 0 && gs->used + k->bytes > USED_MAX)
        return skf_fail(why, SKF_ERR_BUSY, "the grammars in use take %zu MiB already", gs->used >> 20);
    if (k->uses++ == 0)
        gs->used += k->bytes;
    return SKF_OK;
}

enum skf_err skf_grammars_take(struct skf_grammars *gs, enum skf_form form, const char *text, size_t n, struct skf_kept **out,
                               struct skf_why *why)
{
    uint8_t d[SKF_DIGEST];
    struct skf_kept *mine = NULL;
    skf_sha256(text, n, d);
    (void)pthread_mutex_lock(&gs->lock);
    struct skf_kept *k = find_(gs, form, d);
    enum skf_err e = k ? use_(gs, k, why) : SKF_OK;
    (void)pthread_mutex_unlock(&gs->lock);
    if (!k) {
        SKF_TRY(make(form, text, n, d, &mine, why));
        (void)pthread_mutex_lock(&gs->lock);
        k = find_(gs, form, d);
        if (!k) { /* nobody was quicker */
            k = mine;
            k->next = gs->kept;
            gs->kept = k;
            mine = NULL;
        }
        e = use_(gs, k, why);
        drop_(gs);
        (void)pthread_mutex_unlock(&gs->lock);
        if (mine)
            free_kept(mine);
    }
    *out = k;
    return e;
}

void skf_grammars_put(struct skf_grammars *gs, struct skf_kept *k)
{
    if (!k)
        return;
    (void)pthread_mutex_lock(&gs->lock);
    if (--k->uses == 0)
        gs->used -= k->bytes;
    drop_(gs);
    (void)pthread_mutex_unlock(&gs->lock);
}

struct skf_grammar *skf_kept_grammar(const struct skf_kept *k) { return k->g; }
const struct skf_vocab *skf_grammars_vocab(const struct skf_grammars *gs) { return gs->vocab; }
