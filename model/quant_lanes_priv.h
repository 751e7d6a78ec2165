/*
 * Vectors of four: the same arithmetic in every lane, on any machine, by the compilers' own extension (gcc and clang).  Masks are
 * what comparisons give: all ones or zero.
 */
#ifndef SKF_MODEL_QUANT_LANES_PRIV_H
#define SKF_MODEL_QUANT_LANES_PRIV_H

#include <stdbool.h>
#include <stdint.h>

enum { LANES = 4 };
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));

static inline lanes all_of(float f) { return (lanes){f, f, f, f}; }
static inline ints all_int(int32_t i) { return (ints){i, i, i, i}; }

/* Lane by lane a where the mask is all ones, b where it is zero. */
static inline lanes pick(ints mask, lanes a, lanes b) { return (lanes)((mask & (ints)a) | (~mask & (ints)b)); }
static inline ints pick_int(ints mask, ints a, ints b) { return (mask & a) | (~mask & b); }
static inline bool is_any(ints mask) { return mask[0] | mask[1] | mask[2] | mask[3]; }
static inline lanes size_of(lanes v) { return (lanes)((ints)v & all_int(0x7FFFFFFF)); }
static inline lanes floats_of(ints v) { return __builtin_convertvector(v, lanes); }

#endif
