/*
 * Loops over the numbers of a chunk, one set a vector width; all of them give the same bytes.
 *
 * They are written once, in plain C (float_body_priv.h), and compiled for each instruction set; those that compilers do
 * not turn into vectors, a second time over sixteen numbers at once (float_wide_priv.h).  What they compute is
 * integers, or single float32 operations in a fixed order, so that a receiver comes to the encoder's numbers on any machine.
 */
#ifndef SKF_DELTA_FLOAT_PRIV_H
#define SKF_DELTA_FLOAT_PRIV_H

#include "base/util.h"

#define SKF_FAR 255 /* in place of the symbol of a difference that is not small */

struct skf_loops {
    /* Of n halves or bfloats (exponent_at 10 or 7): their contexts. `at` is what the level of their row adds. */
    void (*keys)(const uint8_t *old, uint8_t *key, uint32_t n, unsigned exponent_at, int at);
    /* neu := what lies sym (a zigzag) above ref, in the order of the numbers less their `shift` lowest bits. neu may be
     * ref. */
    void (*add)(const uint8_t *ref, const uint8_t *sym, uint8_t *neu, uint32_t n, unsigned shift);
    /* The other way round; SKF_FAR for zigzags of `least` (at most 127) and more. */
    void (*sub)(const uint8_t *ref, const uint8_t *neu, uint8_t *sym, uint32_t n, unsigned shift, unsigned least);
    /* Which of n symbols are `least` and more: a bit each, lowest first, in whole words. */
    void (*far)(const uint8_t *sym, uint64_t *mask, uint32_t n, unsigned least);
    /* Of n bfloats or halves: how far they moved and how large they were, both in units of the mantissa's steps. */
    void (*measure)(const uint8_t *ref, const uint8_t *neu, uint32_t n, unsigned exponent_at, unsigned shift,
                    float *move, float *size);
    /* guess[j] := unit * sum over k < rank of u[k] * v[k][j], for j < n; exact (factor_priv.h). */
    void (*guess)(const int8_t *u, const float *v, unsigned rank, uint32_t n, float unit, float *guess);
    /* The same with v as bytes, in the order of factor.c, and base[j] = -128 * sum over k < rank of v[k][j]; NULL where
     * it is no gain. */
    void (*guess_packed)(const int8_t *u, const int8_t *v, const int32_t *base, unsigned rank, uint32_t n, float unit,
                         float *guess);
    /* ref := old + guess, rounded to the type; ref may be old. */
    void (*guess_bf16)(const uint8_t *old, const float *guess, uint8_t *ref, uint32_t n);
    void (*guess_f16)(const uint8_t *old, const float *guess, uint8_t *ref, uint32_t n);
    void (*guess_f32)(const uint8_t *old, const float *guess, uint8_t *ref, uint32_t n);
    /* Halves to bfloats (what has more digits loses them) and back (rounded); out may be in. */
    void (*f16_to_bf16)(const uint8_t *in, uint8_t *out, uint32_t n);
    void (*bf16_to_f16)(const uint8_t *in, uint8_t *out, uint32_t n);
    /* How n bfloats or halves changed, as numbers; by more than 1e15, or to or from what is none, as 0. */
    void (*change_bf16)(const uint8_t *old, const uint8_t *neu, float *out, uint32_t n);
    void (*change_f16)(const uint8_t *old, const uint8_t *neu, float *out, uint32_t n);
    float (*dot)(const float *a, const float *b, uint32_t n);
    void (*add_scaled)(float *a, const float *b, float by, uint32_t n); /* a += by * b */
};
/* Those of an instruction set; of SKF_ISA_REF for one that has none of its own. */
const struct skf_loops *skf_loops_of(enum skf_isa isa);

extern const struct skf_loops skf_loops_ref, skf_loops_avx2, skf_loops_avx512;

#endif
