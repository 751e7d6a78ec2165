/*
 * The fit's inner loops, whose every element stands for itself: any vector length gives the same numbers.
 */
#ifndef SKF_MODEL_REFIT_PRIV_H
#define SKF_MODEL_REFIT_PRIV_H

#include "model/refit.h"

struct skf_refit_loops {
    /* g[k][j] += f[k] * h[j], for 4 rows of n. */
    void (*spread)(float *const g[SKF_REFIT_ROWS], const float *h, const float f[SKF_REFIT_ROWS], uint32_t n);
    /* g[j] += f * h[j]. */
    void (*add)(float *g, const float *h, float f, uint32_t n);
    /* score[j] = 2 |g[j] step[j]| - step[j]^2 diagonal[j]: what a step downhill takes off the error. */
    void (*score)(float *score, const float *g, const float *step, const float *diagonal, uint32_t n);
    /* sum[i][j] += x[t][i] * x[t][j], i from `first` to `end`, j from i on, over the rows t in order; x and sum have rows of n. */
    void (*product)(float *sum, const float *x, uint32_t rows, uint32_t n, uint32_t first, uint32_t end);
};
const struct skf_refit_loops *skf_refit_loops_ref(void);
#if defined __x86_64__
const struct skf_refit_loops *skf_refit_loops_avx2(void);
#endif

/* The best for this machine, or for SKF_CPU. */
const struct skf_refit_loops *skf_refit_loops_pick(void);

#endif
