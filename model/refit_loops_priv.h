/*
 * The text of the fit's loops (refit_priv.h), compiled once for each instruction set. Products and sums are rounded one by one (-ffp-contract=off).
 */
#ifndef SKF_MODEL_REFIT_LOOPS_PRIV_H
#define SKF_MODEL_REFIT_LOOPS_PRIV_H

#include <math.h>

#include "model/refit_priv.h"

#if defined __GNUC__ && !defined __clang__
#define LOOPS __attribute__((optimize("O3")))
#else
#define LOOPS
#endif

static LOOPS void spread(float *const g[SKF_REFIT_ROWS], const float *restrict h, const float f[SKF_REFIT_ROWS], uint32_t n)
{
    float *restrict g0 = g[0], *restrict g1 = g[1], *restrict g2 = g[2], *restrict g3 = g[3];
    const float f0 = f[0], f1 = f[1], f2 = f[2], f3 = f[3];
    for (uint32_t j = 0; j < n; j++) {
        g0[j] += f0 * h[j];
        g1[j] += f1 * h[j];
        g2[j] += f2 * h[j];
        g3[j] += f3 * h[j];
    }
}

static LOOPS void add(float *restrict g, const float *restrict h, float f, uint32_t n)
{
    for (uint32_t j = 0; j < n; j++)
        g[j] += f * h[j];
}

static LOOPS void score(float *restrict out, const float *restrict g, const float *restrict step, const float *restrict diagonal,
                        uint32_t n)
{
    for (uint32_t j = 0; j < n; j++)
        out[j] = 2.0f * fabsf(g[j] * step[j]) - step[j] * step[j] * diagonal[j];
}

static LOOPS void product(float *restrict sum, const float *restrict x, uint32_t rows, uint32_t n, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        float *restrict s = sum + (size_t)i * n;
        for (uint32_t t = 0; t < rows; t++) {
            const float *restrict y = x + (size_t)t * n, f = y[i];
            for (uint32_t j = i; j < n; j++)
                s[j] += f * y[j];
        }
    }
}

static const struct skf_refit_loops loops = {spread, add, score, product};

#endif
