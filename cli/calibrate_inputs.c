/* The calibration text, the tensors, and what their matrices are multiplied with (calibrate.h). */
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "cli/calibrate.h"
#include "model/refit_priv.h"
#include "runtime/engine.h"

enum { TEXT_MAX = 16 << 20, TENSORS_MAX = 1 << 16, SLICES = 16, TRIAL = 2 };
#define DAMPING 0.002 /* of the mean diagonal: what the text does not show is not free */

/* Who has which input: learned on the first tokens, in the order of the graph's calls, which is the same in every portion. */
struct learning {
    struct calibrate *c;
    float last[TRIAL * 64]; /* what the call before brought, the beginning */
    size_t n_last;
};
struct gathering {
    struct calibrate *c;
    const struct skf_refit_loops *loops;
    uint32_t call;
    struct calibrate_input *input; /* under way */
    const float *x;
    size_t rows;
    enum skf_err err;
    struct skf_why why;
};

static struct calibrate_tensor *find(struct calibrate *c, const char *name)
{
    for (size_t i = 0; i < c->n_tensors; i++)
        if (strcmp(c->tensors[i].base->name, name) == 0)
            return &c->tensors[i];
    return NULL;
}

static void learn(void *ctx, const char *name, const float *x, size_t rows, size_t columns)
{
    struct learning *l = ctx;
    struct calibrate *c = l->c;
    size_t n = SKF_MIN(rows * columns, SKF_COUNT(l->last));
    bool is_new = n != l->n_last || memcmp(x, l->last, n * sizeof *x) != 0;
    uint32_t call = c->n_calls++;
    if (!c->calls)
        return;
    l->n_last = n;
    memcpy(l->last, x, n * sizeof *x);
    c->calls[call] = is_new ? c->n_inputs : CALIBRATE_NONE;
    if (is_new)
        c->inputs[c->n_inputs++].columns = (uint32_t)columns;
    struct calibrate_tensor *t = find(c, name);
    if (!t || !t->is_fitted)
        return;
    t->input = c->n_inputs - 1;
    c->inputs[t->input].is_used = true;
}

/* The engine over the made model; windows have the context's length at most. */
static enum skf_err open_engine(const struct calibrate *c, struct skf_engine **e, struct skf_why *why)
{
    const struct skf_engine_opts o = {.threads = c->ask->jobs, .context = CALIBRATE_WINDOW, .slots = 1};
    return skf_engine_open(c->made, &o, e, why);
}

static enum skf_err cut_windows(struct calibrate *c, const struct skf_engine *e, const int32_t *ids, size_t n, struct skf_why *why)
{
    int32_t *bos = NULL;
    size_t n_bos = 0;
    enum skf_err err = skf_engine_tokenize(e, "", 0, true, &bos, &n_bos, why);
    if (err != SKF_OK)
        return err;
    c->window = SKF_MIN(skf_engine_context(e), CALIBRATE_WINDOW);
    size_t step = c->window > n_bos ? c->window - n_bos : 1, whole = n / step, most = CALIBRATE_TOKENS / c->window;
    c->n_windows = (uint32_t)SKF_MIN(whole, most);
    if (c->window < 8 || n_bos > 1 || whole == 0)
        err = skf_fail(why, SKF_ERR_ARG, "%s: %zu tokens, and a window takes %zu: give a longer text", c->ask->calibrate, n, step);
    else if (!(c->ids = skf_calloc((size_t)c->n_windows * c->window, sizeof *c->ids)))
        err = skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", c->ask->calibrate);
    for (size_t i = 0; err == SKF_OK && i < c->n_windows; i++) { /* spread over the text */
        int32_t *w = c->ids + i * c->window;
        if (n_bos)
            w[0] = bos[0];
        memcpy(w + n_bos, ids + i * whole / c->n_windows * step, step * sizeof *ids);
    }
    skf_free(bos);
    return err;
}

static enum skf_err read_text(struct calibrate *c, const struct skf_engine *e, struct skf_why *why)
{
    uint8_t *text = NULL;
    int32_t *ids = NULL;
    size_t n = 0, n_ids = 0;
    enum skf_err err = skf_file_read(c->ask->calibrate, TEXT_MAX, &text, &n, why);
    if (err == SKF_OK)
        err = skf_engine_tokenize(e, (const char *)text, n, false, &ids, &n_ids, why);
    if (err == SKF_OK)
        err = cut_windows(c, e, ids, n_ids, why);
    skf_free(ids);
    skf_free(text);
    return err;
}

/* "blk.7.attn_q.weight" is of the role "blk.*.attn_q.weight". */
static void role_of(const char *name, char role[64])
{
    size_t digits = strncmp(name, "blk.", 4) == 0 ? strspn(name + 4, "0123456789") : 0;
    if (digits)
        (void)snprintf(role, 64, "blk.*%.50s", name + 4 + digits);
    else
        (void)snprintf(role, 64, "%.60s", name);
}

static bool is_float(enum skf_type t) { return t == SKF_T_F32 || t == SKF_T_F16 || t == SKF_T_BF16; }

static enum skf_err list_tensors(struct calibrate *c, struct skf_why *why)
{
    size_t n;
    const struct skf_tensor *t = skf_model_tensors(c->base, &n);
    if (n > TENSORS_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: %zu tensors, at most %d", c->ask->base, n, TENSORS_MAX);
    c->tensors = skf_calloc(n + 1, sizeof *c->tensors);
    if (!c->tensors)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        struct calibrate_tensor *u = &c->tensors[c->n_tensors];
        bool is_new = false;
        SKF_TRY(c->neu->has(c->neu->ctx, &t[i], &is_new, why));
        if (!is_new)
            continue;
        *u = (struct calibrate_tensor){.base = &t[i], .input = CALIBRATE_NONE, .weight = 1, .is_fitted = is_refit_type(t[i].type)};
        if (!u->is_fitted && !is_float(t[i].type))
            return skf_fail(why, SKF_ERR_UNSUPPORTED,
                            "%s: tensor '%s' has type %s; calibration writes f32, f16, bf16, q8_0, q5_0, q5_1, q4_0, q4_1; leave it out",
                            c->ask->base, t[i].name, skf_type_info((uint32_t)t[i].type)->name);
        if (u->is_fitted && t[i].dims[0] > SKF_REFIT_COLUMNS)
            return skf_fail(why, SKF_ERR_LIMIT, "%s: tensor '%s' has rows of %llu, at most %u can be calibrated", c->ask->base,
                            t[i].name, (unsigned long long)t[i].dims[0], SKF_REFIT_COLUMNS);
        role_of(t[i].name, u->role);
        c->n_tensors++;
    }
    return c->n_tensors ? SKF_OK : skf_fail(why, SKF_ERR_ARG, "%s: nothing in it has new weights", c->ask->base);
}

/* Which tensors share an input. What is no product's, such as an embedding that is only looked up, has one where all count the same. */
static enum skf_err learn_inputs(struct calibrate *c, struct skf_engine *e, struct skf_why *why)
{
    struct learning count = {.c = c}, fill = {.c = c};
    SKF_TRY(skf_engine_observe(e, c->ids, TRIAL, learn, &count, why));
    c->calls = skf_calloc(c->n_calls + 1, sizeof *c->calls);
    c->inputs = skf_calloc(c->n_calls + c->n_tensors, sizeof *c->inputs);
    if (!c->calls || !c->inputs)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    c->n_calls = 0;
    SKF_TRY(skf_engine_observe(e, c->ids, TRIAL, learn, &fill, why));
    for (size_t i = 0; i < c->n_tensors; i++) {
        struct calibrate_tensor *t = &c->tensors[i];
        uint32_t k = 0, columns = (uint32_t)t->base->dims[0];
        if (!t->is_fitted || t->input != CALIBRATE_NONE)
            continue;
        while (k < c->n_inputs && !(c->inputs[k].is_same && c->inputs[k].columns == columns))
            k++;
        if (k == c->n_inputs)
            c->inputs[c->n_inputs++] = (struct calibrate_input){.columns = columns, .is_same = true, .is_used = true};
        t->input = k;
    }
    return SKF_OK;
}

static enum skf_err make_room(struct calibrate *c, struct skf_why *why)
{
    uint64_t size = sizeof(float);
    for (uint32_t i = 0; i < c->n_inputs; i++)
        size += c->inputs[i].is_used ? (uint64_t)c->inputs[i].columns * c->inputs[i].columns * sizeof(float) : 0;
    SKF_TRY(skf_scratch_open(c->ask->out, size, &c->inputs_at, why));
    float *at = c->inputs_at.p;
    for (uint32_t i = 0; i < c->n_inputs; i++) {
        if (!c->inputs[i].is_used)
            continue;
        c->inputs[i].sum = at;
        at += (size_t)c->inputs[i].columns * c->inputs[i].columns;
    }
    return SKF_OK;
}

enum skf_err calibrate_open(struct calibrate *c, struct skf_why *why)
{
    struct skf_engine *engine = NULL;
    SKF_TRY(list_tensors(c, why));
    enum skf_err e = open_engine(c, &engine, why);
    if (e == SKF_OK)
        e = read_text(c, engine, why);
    if (e == SKF_OK)
        e = learn_inputs(c, engine, why);
    if (e == SKF_OK)
        e = make_room(c, why);
    skf_engine_close(engine);
    return e;
}

/* A slice of the rows of H, their upper half. */
static enum skf_err add_slice(void *ctx, unsigned worker, uint64_t k, struct skf_why *why)
{
    struct gathering *g = ctx;
    const struct calibrate_input *in = g->input;
    const uint32_t n = in->columns, first = (uint32_t)((uint64_t)n * k / SLICES), end = (uint32_t)((uint64_t)n * (k + 1) / SLICES);
    (void)worker;
    g->loops->product(in->sum, g->x, (uint32_t)g->rows, n, first, end);
    return SKF_OK;
}

static void gather(void *ctx, const char *name, const float *x, size_t rows, size_t columns)
{
    struct gathering *g = ctx;
    uint32_t which = g->c->calls[g->call];
    g->call = (g->call + 1) % g->c->n_calls;
    if (g->err != SKF_OK || which == CALIBRATE_NONE || !g->c->inputs[which].sum)
        return;
    g->input = &g->c->inputs[which];
    g->x = x;
    g->rows = rows;
    g->err = skf_par_for(g->c->ask->jobs, SLICES, add_slice, g, &g->why);
}

/* The mean, both halves, damped. */
static enum skf_err finish_input(void *ctx, unsigned worker, uint64_t k, struct skf_why *why)
{
    struct calibrate *c = ctx;
    const struct calibrate_input *in = &c->inputs[k];
    const uint32_t n = in->columns;
    double trace = 0, scale = 1.0 / ((double)c->n_windows * c->window);
    (void)worker;
    if (!in->sum)
        return SKF_OK;
    for (uint32_t i = 0; in->is_same && i < n; i++)
        in->sum[(size_t)i * n + i] = 1;
    if (in->is_same)
        return SKF_OK;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = i; j < n; j++)
            in->sum[(size_t)j * n + i] = in->sum[(size_t)i * n + j] = (float)((double)in->sum[(size_t)i * n + j] * scale);
    for (uint32_t i = 0; i < n; i++)
        trace += (double)in->sum[(size_t)i * n + i];
    if (!(trace > 0 && trace < 1e30))
        return skf_fail(why, SKF_ERR_FORMAT, "%s: on %s its matrices are multiplied with nothing, or with numbers that are not finite",
                        c->ask->base, c->ask->calibrate);
    for (uint32_t i = 0; i < n; i++)
        in->sum[(size_t)i * n + i] += (float)(DAMPING * trace / n);
    return SKF_OK;
}

enum skf_err calibrate_gather(struct calibrate *c, struct skf_why *why)
{
    struct gathering g = {.c = c, .loops = skf_refit_loops_pick()};
    struct skf_engine *engine = NULL;
    memset(c->inputs_at.p, 0, c->inputs_at.size);
    enum skf_err e = open_engine(c, &engine, why);
    for (uint32_t i = 0; e == SKF_OK && i < c->n_windows; i++) {
        e = skf_engine_observe(engine, c->ids + (size_t)i * c->window, c->window, gather, &g, why);
        if (e == SKF_OK && g.err != SKF_OK) {
            e = g.err;
            *why = g.why;
        }
        if (e == SKF_OK)
            e = calibrate_tell(c, 1, why);
    }
    skf_engine_close(engine);
    return e == SKF_OK ? skf_par_for(c->ask->jobs, c->n_inputs, finish_input, c, why) : e;
}

void calibrate_close(struct calibrate *c)
{
    skf_model_close(c->made);
    skf_model_close(c->base);
    skf_scratch_close(&c->image);
    skf_scratch_close(&c->inputs_at);
    skf_free(c->tensors);
    skf_free(c->inputs);
    skf_free(c->calls);
    skf_free(c->ids);
}
