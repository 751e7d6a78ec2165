/* Guesses of what comes next (speculate_priv.h). */
#include "runtime/speculate_priv.h"

#include "base/alloc.h"
#include "base/util.h"

enum { LONGEST = 12, /* tokens of a match that are looked at */
       FARTHEST = 1 << 16 }; /* positions that are looked through */
static const float first_right[SKF_GUESS_KINDS] = {0.05f, 0.25f, 0.4f, 0.55f, 0.7f, 0.8f, 0.6f, 0.6f};
enum { TOLD = SKF_GUESS_KINDS - 2,    /* the kind of what the client says will come, before anything was said */
       MODEL = SKF_GUESS_KINDS - 1 }; /* of what a small model says */
enum { REST_LEAST = 16, REST_MOST = 512 };

enum skf_err skf_guess_init(struct skf_guess *g, const int32_t *prompt, uint32_t n, const int32_t *told, uint32_t n_told,
                            struct skf_why *why)
{
    *g = (struct skf_guess){0};
    uint64_t room = (uint64_t)n + n_told + 1 + 256;
    g->seen = room <= INT32_MAX ? skf_alloc(room * sizeof *g->seen) : NULL;
    if (!g->seen)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a prompt of %u tokens", n);
    g->room = (uint32_t)room;
    memcpy(g->right, first_right, sizeof g->right);
    if (n_told > 0) {
        memcpy(g->seen, told, n_told * sizeof *told);
        g->seen[n_told] = -1;
        g->n = g->n_told = n_told + 1;
    }
    memcpy(g->seen + g->n, prompt, n * sizeof *prompt);
    g->n += n;
    return SKF_OK;
}

void skf_guess_free(struct skf_guess *g)
{
    skf_free(g->seen);
    *g = (struct skf_guess){0};
}

static uint32_t kind_of(uint32_t len) { return len <= 3 ? len - 1 : len <= 5 ? 3 : len <= 8 ? 4 : 5; }

/* Finds where the last tokens stood before; len is 0 when they did not. */
static void look_up(struct skf_guess *g)
{
    const int32_t *s = g->seen, last = s[g->n - 1];
    uint32_t end = g->n > FARTHEST ? g->n - FARTHEST : 0;
    g->len = 0;
    for (uint32_t i = g->n - 1; i-- > end && g->len < LONGEST;) {
        uint32_t k = 1;
        if (s[i] != last)
            continue;
        while (k < LONGEST && k <= i && s[i - k] == s[g->n - 1 - k] && s[i - k] >= 0)
            k++;
        if (k > g->len) {
            g->len = k;
            g->at = i + 1;
        }
    }
}

/* g->next: how it goes on from g->at; where that comes to the end, what is guessed goes on by itself. */
static void go_on(struct skf_guess *g)
{
    g->n_next = 0;
    for (uint32_t i = g->at; g->n_next < SKF_AHEAD_MOST; i++) {
        int32_t id = i < g->n ? g->seen[i] : g->next[i - g->n];
        if (id < 0)
            break;
        g->next[g->n_next++] = id;
    }
}

/* How many are worth it: the number that makes most tokens a time, where each comes true with probability p if those before it did. */
static uint32_t worth(float p, double cost, uint32_t most)
{
    double said = 1, so_far = 1, best = 1.01; /* a hundredth is no gain to take a risk for */
    uint32_t n = 0;
    for (uint32_t k = 1; k <= most; k++) {
        so_far *= (double)p;
        said += so_far;
        if (said / (1 + cost * k) > best) {
            best = said / (1 + cost * k);
            n = k;
        }
    }
    return n;
}

uint32_t skf_guess_make(struct skf_guess *g, uint32_t most, double cost)
{
    bool is_told = g->n_told > 0 && !g->is_begun;
    g->n_next = g->n_right = g->n_ahead = 0;
    if (!g->seen)
        return 0;
    if (is_told) {
        g->at = 0;
        g->len = 1;
    } else if (g->len == 0) {
        look_up(g);
    }
    if (g->len == 0)
        return 0;
    g->kind = is_told ? TOLD : kind_of(g->len);
    go_on(g);
    g->n_ahead = worth(g->right[g->kind], cost, SKF_MIN(most, g->n_next));
    g->drafted += g->n_ahead;
    return g->n_ahead;
}

uint32_t skf_guess_wish(struct skf_guess *g, uint32_t most, double cost)
{
    uint32_t n = g->seen ? worth(g->right[MODEL], cost, SKF_MIN(most, SKF_AHEAD_MOST)) : 0;
    if (n > 0) {
        g->rest = g->resting = 0;
        return n;
    }
    if (!g->seen || most == 0)
        return 0;
    if (g->rest == 0) {
        g->rest = g->resting = REST_LEAST;
        return 0;
    }
    if (g->resting > 0) {
        g->resting--;
        return 0;
    }
    g->rest = SKF_MIN(g->rest * 2, (uint32_t)REST_MOST);
    g->resting = g->rest;
    return 1;
}

void skf_guess_set(struct skf_guess *g)
{
    g->kind = MODEL;
    g->len = 0;
    g->n_right = 0;
    g->n_ahead = g->n_next;
    g->drafted += g->n_next;
}

static bool has_room(struct skf_guess *g)
{
    if (g->n < g->room)
        return true;
    uint32_t room = g->room > INT32_MAX / 2 ? 0 : g->room * 2;
    int32_t *seen = room ? skf_realloc(g->seen, room * sizeof *seen) : NULL;
    if (!seen)
        return false;
    g->seen = seen;
    g->room = room;
    return true;
}

bool is_guess_right(struct skf_guess *g, int32_t id)
{
    if (!g->seen)
        return false;
    uint32_t i = g->n_right;
    bool is_guessed = i < g->n_next, is_right = is_guessed && g->next[i] == id, is_ahead = is_right && i < g->n_ahead;
    if (is_guessed)
        g->right[g->kind] += ((is_right ? 1.0f : 0.0f) - g->right[g->kind]) / 12;
    if (!has_room(g)) {
        g->n_next = g->n = 0;
        skf_free(g->seen);
        g->seen = NULL;
        return false;
    }
    g->seen[g->n++] = id;
    g->is_begun = true;
    g->accepted += is_ahead;
    g->n_right += is_right;
    g->at++;
    g->len = !is_right || g->kind == MODEL ? 0 : SKF_MIN(g->len + 1, (uint32_t)LONGEST);
    if (!is_right)
        g->n_next = 0;
    return is_ahead;
}

/* ---- what it costs ----------------------------------------------------------------------------------------------------------------------- */
void skf_ahead_saw(struct skf_ahead *p, uint32_t tokens, uint64_t ns)
{
    const double keep = 63.0 / 64, m = tokens;
    double t = (double)ns;
    if (p->w > 4 && t > 4 * p->t / p->w) /* somebody else had the processor */
        t = 4 * p->t / p->w;
    p->w = p->w * keep + 1;
    p->m = p->m * keep + m;
    p->t = p->t * keep + t;
    p->mm = p->mm * keep + m * m;
    p->mt = p->mt * keep + m * t;
}

double skf_ahead_cost(const struct skf_ahead *p, uint32_t sequences)
{
    const double usual = 0.25, least = 0.02, most = 1;
    double across = p->w * p->mm - p->m * p->m;
    if (p->w < 4 || across < 0.01 * p->w * p->w)
        return usual;
    double slope = (p->w * p->mt - p->m * p->t) / across, mean = p->t / p->w, alone = mean + slope * (sequences - p->m / p->w);
    if (!(alone > 0 && slope > 0))
        return slope > 0 ? most : least;
    double cost = slope * sequences / alone;
    return SKF_MIN(SKF_MAX(cost, least), most);
}

uint64_t skf_ahead_without(const struct skf_ahead *p, uint32_t sequences, uint32_t guessed, uint64_t ns)
{
    if (guessed == 0 || sequences == 0)
        return ns;
    return (uint64_t)((double)ns / (1 + skf_ahead_cost(p, sequences) * guessed / sequences));
}

double skf_ahead_share(const struct skf_ahead *p, uint32_t sequences, double ns)
{
    double each = p->m > 0 ? p->t / p->m : 0; /* near enough: a step has little besides its sequences when nothing is guessed */
    return each > 0 ? SKF_MIN(ns * sequences / (each * sequences), 1) : 0.1;
}
