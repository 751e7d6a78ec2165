/* What the tests of kernels share: numbers that are the same in every run, and the tables that this machine can run. */
#ifndef SKF_TESTS_KERNELS_TABLES_H
#define SKF_TESTS_KERNELS_TABLES_H

#include <stdlib.h>

#include "kernels/kernels_priv.h"

static uint64_t seed = 1;
static uint32_t next(void) /* splitmix64 */
{
    uint64_t z = (seed += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}
static float uniform(void) { return (float)next() / 2147483648.0f - 1.0f; }

/* The tables this machine can run, the reference first. */
static const struct skf_ops *tables[4];
static size_t n_tables;
static int find_tables(void **state)
{
    static const char *const names[] = {"ref", "avx2", "avx512", "neon"};
    for (size_t i = 0; i < SKF_COUNT(names); i++) {
        enum skf_isa isa;
        setenv("SKF_CPU", names[i], 1);
        if (skf_isa_pick(&isa, NULL) == SKF_OK && skf_ops_get(isa))
            tables[n_tables++] = skf_ops_get(isa);
    }
    unsetenv("SKF_CPU");
    return n_tables == 0;
}

#endif
