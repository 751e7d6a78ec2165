/* Probabilities of tokens, for those who ask for them (sampler_priv.h). */
#include <math.h>

#include "base/util.h"
#include "runtime/sampler_priv.h"

void skf_chances_of(const float *logits, uint32_t n, uint32_t top, struct skf_chances *c)
{
    double sum = 0;
    c->n_top = 0;
    top = SKF_MIN(top, (uint32_t)SKF_TOP_MAX);
    c->max = n ? logits[0] : 0;
    for (uint32_t i = 1; i < n; i++)
        c->max = logits[i] > c->max ? logits[i] : c->max;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - c->max);
    c->log_sum = log(sum);
    for (uint32_t i = 0; i < n && top > 0; i++) {
        if (c->n_top == top && !(logits[i] > c->top[top - 1].logit))
            continue;
        uint32_t k = c->n_top < top ? c->n_top++ : top - 1;
        for (; k > 0 && c->top[k - 1].logit < logits[i]; k--)
            c->top[k] = c->top[k - 1];
        c->top[k] = (struct skf_candidate){logits[i], (int32_t)i};
    }
}

double skf_chance(const struct skf_chances *c, float logit) { return (double)logit - c->max - c->log_sum; }
