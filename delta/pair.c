/*
 * Counterparts of tensors (pair_priv.h).
 *
 * A tensor whose name the other model does not have is compared with those of the same type and row by samples that stand at the
 * same distances from the beginning, so that a tensor that was given more rows is still recognised.
 */
#include "delta/pair_priv.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "delta/skd_priv.h"

#define SAMPLES 24       /* at 0, 1 Ki, 3 Ki, 7 Ki ...: most at the beginning, which a resized tensor keeps */
#define SAMPLE 32
#define FIRST_STEP 1024u
#define ALIKE 5          /* one sampled byte in so many must be the same: of unrelated floats one in sixteen is */
#define TRIES_MAX (1u << 20) /* comparisons in all, whatever two models claim to hold */

struct known { /* a tensor of the old model */
    const struct skf_tensor *t;
    uint8_t bytes[SAMPLES * SAMPLE];
    uint32_t n; /* bytes sampled */
    bool is_taken;
};

static bool is_fit(const struct skf_tensor *a, const struct skf_tensor *b)
{
    return a->type == b->type && a->row_bytes == b->row_bytes;
}

/* Samples of a tensor, read so far as it goes. */
static enum skf_err sample(const struct skf_source *s, const struct skf_tensor *t, uint8_t *p, uint32_t *n)
{
    uint64_t at = 0, step = FIRST_STEP;
    *n = 0;
    for (int i = 0; i < SAMPLES && at < t->bytes; i++) {
        uint64_t k = SKF_MIN((uint64_t)SAMPLE, t->bytes - at);
        SKF_TRY(skf_source_read(s, t->offset + at, p + *n, k));
        *n += (uint32_t)k;
        if (k < SAMPLE)
            break;
        at += step;
        step *= 2;
    }
    return SKF_OK;
}

static int by_shape(const void *a, const void *b)
{
    const struct skf_tensor *x = ((const struct known *)a)->t, *y = ((const struct known *)b)->t;
    if (x->type != y->type)
        return x->type < y->type ? -1 : 1;
    if (x->row_bytes != y->row_bytes)
        return x->row_bytes < y->row_bytes ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static size_t first_fit(const struct known *k, size_t n, const struct skf_tensor *t)
{
    const struct skf_tensor key = {.type = t->type, .row_bytes = t->row_bytes};
    const struct known want = {.t = &key};
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (by_shape(&k[mid], &want) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Of those that fit, the one that is most alike: what has as many rows is preferred, and what has no counterpart yet. */
static struct known *most_alike(struct known *k, size_t n, const struct skf_tensor *t, const uint8_t *p, uint32_t len,
                                uint32_t *tries)
{
    struct known *best = NULL;
    uint64_t most = 0;
    for (size_t i = first_fit(k, n, t); i < n && is_fit(k[i].t, t) && *tries < TRIES_MAX; i++, ++*tries) {
        uint32_t both = SKF_MIN(len, k[i].n), same = 0;
        for (uint32_t b = 0; b < both; b++)
            same += k[i].bytes[b] == p[b];
        uint64_t score = 4 * (uint64_t)same + 2 * (k[i].t->bytes == t->bytes) + !k[i].is_taken;
        if (same * ALIKE >= both && same && score > most) {
            most = score;
            best = &k[i];
        }
    }
    return best;
}

static enum skf_err pair_by_content(const struct skf_model *old, const struct skf_model *neu,
                                    const struct skf_tensor **pairs)
{
    size_t n_old, n_new, n = 0;
    uint32_t tries = 0, len;
    const struct skf_tensor *o = skf_model_tensors(old, &n_old), *t = skf_model_tensors(neu, &n_new);
    struct known *k = skf_calloc(n_old, sizeof *k);
    uint8_t *taken = skf_calloc(n_old, 1);
    enum skf_err e = k && taken ? SKF_OK : SKF_ERR_NOMEM;
    for (size_t i = 0; i < n_new && e == SKF_OK; i++)
        if (pairs[i])
            taken[pairs[i] - o] = 1;
    for (size_t i = 0; i < n_old && e == SKF_OK; i++) {
        if (o[i].bytes == 0)
            continue;
        k[n] = (struct known){.t = &o[i], .is_taken = taken[i]};
        e = sample(skf_model_source(old), &o[i], k[n].bytes, &k[n].n);
        n++;
    }
    if (e == SKF_OK)
        qsort(k, n, sizeof *k, by_shape);
    for (size_t i = 0; i < n_new && e == SKF_OK; i++) {
        uint8_t p[SAMPLES * SAMPLE];
        if (pairs[i] || t[i].bytes == 0)
            continue;
        e = sample(skf_model_source(neu), &t[i], p, &len);
        struct known *best = e == SKF_OK ? most_alike(k, n, &t[i], p, len, &tries) : NULL;
        if (best) {
            pairs[i] = best->t;
            best->is_taken = true;
        }
    }
    skf_free(k);
    skf_free(taken);
    return e;
}

enum skf_err skf_pairs_make(const struct skf_model *old, const struct skf_model *neu, const struct skf_tensor ***out,
                            struct skf_why *why)
{
    size_t n, missing = 0, n_old;
    const struct skf_tensor *t = skf_model_tensors(neu, &n);
    const struct skf_tensor **pairs = skf_calloc(n, sizeof *pairs);
    if (!pairs)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    (void)skf_model_tensors(old, &n_old);
    for (size_t i = 0; i < n; i++) {
        const struct skf_tensor *o = skf_model_find(old, t[i].name);
        if (o && is_fit(o, &t[i]) && o->bytes)
            pairs[i] = o;
        else
            missing++;
    }
    enum skf_err e = missing && n_old ? pair_by_content(old, neu, pairs) : SKF_OK;
    if (e != SKF_OK) {
        skf_free(pairs);
        return skf_fail(why, e, "tensors cannot be compared: %s", skf_err_name(e));
    }
    *out = pairs;
    return SKF_OK;
}
