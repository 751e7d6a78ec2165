/*
 * Searches among candidates (requantize_priv.h): two levels of coarseness, of the matrices and of the embedding.
 *
 * Bytes fall with either; quality falls too, but for noise.  The embedding is asked for first as it is (it is the largest and tells the
 * least), then finer as long as that lets the matrices be so much coarser that bytes are saved.  Every candidate is built once.
 */
#include <math.h>

#include "cli/requantize_priv.h"

/* Levels of the embedding that are tried, coarsest first. */
static const unsigned embeddings[] = {REQUANT_ALONE, 11, 8, 5, 2, 0};

/* A lossy version is lossy: what is exact is no answer to a bound. */
static unsigned first_level(const struct requant *r) { return r->is_lossy ? 1 : 0; }

/* Looks for the coarsest level of the matrices, from `low` on, that stays within the bound. Begins in the middle: changes that are
 * rounded a little are often better than exact ones, so the finest level says least. */
static enum skf_err coarsest(struct requant *r, unsigned embedding, unsigned low, double bound, struct requant_try *best,
                             double *nearest, struct skf_why *why)
{
    unsigned high = REQUANT_LEVELS; /* below `low` all stay within, from `high` on none does */
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        struct requant_try t;
        SKF_TRY(requant_try(r, middle, embedding, true, &t, why));
        *nearest = fmin(*nearest, t.perplexity);
        if (t.perplexity > bound) {
            high = middle;
            continue;
        }
        low = middle + 1;
        if (best->bytes == 0 || t.bytes < best->bytes)
            *best = t;
    }
    return SKF_OK;
}

/* The finest level whose delta is smaller than `bytes`; REQUANT_LEVELS when there is none. */
static enum skf_err finest(struct requant *r, unsigned embedding, uint64_t bytes, unsigned *level, struct skf_why *why)
{
    unsigned low = first_level(r), high = REQUANT_LEVELS; /* below low: too many */
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        struct requant_try t;
        SKF_TRY(requant_try(r, middle, embedding, false, &t, why));
        if (t.bytes < bytes)
            high = middle;
        else
            low = middle + 1;
    }
    *level = high;
    return SKF_OK;
}

static bool has_embedding(const struct requant *r)
{
    for (size_t i = 0; i < r->n_tensors; i++)
        if (r->tensors[i].is_embedding)
            return true;
    return false;
}

enum skf_err requant_fewest(struct requant *r, double bound, struct requant_try *best, struct skf_why *why)
{
    double nearest = INFINITY;
    *best = (struct requant_try){0};
    for (size_t i = 0; i < SKF_COUNT(embeddings); i++) {
        unsigned level = first_level(r), embedding = SKF_MAX(embeddings[i], level);
        uint64_t before = best->bytes;
        if (before)
            SKF_TRY(finest(r, embedding, before, &level, why));
        if (level == REQUANT_LEVELS)
            break; /* the embedding alone is more than what is there already */
        SKF_TRY(coarsest(r, embedding, level, bound, best, &nearest, why));
        if (!has_embedding(r) || (before && best->bytes == before))
            break;
    }
    if (best->bytes)
        return SKF_OK;
    return skf_fail(why, SKF_ERR_REFUSED, "%s: not written: perplexity %.4f at best, %.4f is the bound (%.4f plainly, %+.3f %%)", r->a->out,
                    nearest, bound, r->perplexity, 100 * (nearest / r->perplexity - 1));
}

enum skf_err requant_best(struct requant *r, uint64_t bytes, struct requant_try *best, struct skf_why *why)
{
    uint64_t least = 0;
    *best = (struct requant_try){0};
    for (size_t i = 0; i < SKF_COUNT(embeddings); i++) {
        unsigned level, embedding = SKF_MAX(embeddings[i], first_level(r));
        struct requant_try t;
        SKF_TRY(finest(r, embedding, bytes + 1, &level, why));
        if (level == REQUANT_LEVELS) {
            if (!least) {
                SKF_TRY(requant_try(r, REQUANT_LEVELS - 1, embedding, false, &t, why));
                least = t.bytes;
            }
            break;
        }
        SKF_TRY(requant_try(r, level, embedding, true, &t, why));
        if (best->bytes && t.perplexity > best->perplexity)
            break;
        *best = t;
        if (!has_embedding(r))
            break;
    }
    if (best->bytes)
        return SKF_OK;
    return skf_fail(why, SKF_ERR_REFUSED, "%s: not written: the delta takes %llu bytes at least, %llu are allowed", r->a->out,
                    (unsigned long long)least, (unsigned long long)bytes);
}
