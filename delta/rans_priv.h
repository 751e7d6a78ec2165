/*
 * Symbols of up to 256 kinds, each in a context that both sides know, by interleaved static rANS.
 *
 * `lanes` states take turns (symbol i is lane i modulo lanes) and share one sequence of 16-bit words, which the decoder reads
 * forwards in the order of the symbols: so a vector of lanes can be stepped at once, and every instruction set reads the same
 * bytes.  Tables stand in front, one a context that occurs; neighbours may share one.
 */
#ifndef SKF_DELTA_RANS_PRIV_H
#define SKF_DELTA_RANS_PRIV_H

#include "delta/work_priv.h"

#define SKF_CONTEXTS 48
#define RANS_BITS_MIN 8 /* precision of tables: as many symbols as there may be must fit */
#define RANS_BITS_MAX 12
#define RANS_FEW 4 /* lanes */
#define RANS_MANY 32
#define RANS_MOST 64
#define RANS_LOW (1u << 16) /* a state between symbols is never below; at the end it is this */

struct skf_syms {
    uint8_t *sym;
    const uint8_t *key; /* context of each, below SKF_CONTEXTS */
    uint32_t n;
};
/* Nothing is written for n = 0. SKF_ERR_LIMIT when `out` has no room. */
SKF_MUST enum skf_err skf_syms_put(struct skf_work *w, const struct skf_syms *s, struct skf_buf *out);
/* About what that takes, in bits. */
SKF_MUST enum skf_err skf_syms_cost(struct skf_work *w, const struct skf_syms *s, double *bits);
/* Fills s->sym. SKF_ERR_FORMAT for what no encoder writes. */
SKF_MUST enum skf_err skf_syms_get(struct skf_work *w, struct skf_reader *r, const struct skf_syms *s);

/* How a context comes to its table. */
enum { RANS_TABLE_NONE, RANS_TABLE_SAME, RANS_TABLE_NEW };

/* ---- the inner loop --------------------------------------------------------------------------------------------------------- */
/* A table's entry for each slot: symbol, frequency - 1, slot - first slot of the symbol. */
#define RANS_ENTRY(sym, freq, at) ((uint32_t)(sym) | ((uint32_t)(freq) - 1) << 8 | (uint32_t)(at) << 20)
#define RANS_NEAR 3 /* most symbols are below: slots alone tell them */
struct rans {
    uint32_t x[RANS_MOST];
    const uint8_t *p, *end;  /* words left */
    const uint32_t *tables;  /* 2^bits entries each */
    unsigned bits, lanes;
    bool is_near;              /* worth trying: most symbols were below RANS_NEAR so far, */
    uint32_t seen, far;        /* of so many runs of 32, all but so many */
    uint8_t number[SKF_CONTEXTS];      /* which table a context has */
    uint32_t table[SKF_CONTEXTS];      /* and where it begins */
    uint16_t edge[RANS_NEAR][64];      /* by context: up to where its slots are those of symbol k or below; all 0 where it has no table */
};
/* Decodes groups of r->lanes symbols (not RANS_FEW) while whole groups and at least as many words are left; returns the symbols done.
 * The memory of the words goes on as far as a group may read. */
uint32_t rans_run_ref(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n);
#if defined __x86_64__
uint32_t rans_run_avx2(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n);
uint32_t rans_run_avx512(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n);
#elif defined __aarch64__
uint32_t rans_run_neon(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n);
#endif

/* ---- symbols in pieces ------------------------------------------------------------------------------------------------------- */
/* skf_syms_get for readers whose memory is small: _begin reads what stands before the words and moves `r` behind them, so that what
 * follows can be read at the same time; each _some decodes the next n symbols, a multiple of RANS_MOST until the last.  Several may be
 * open at once, each with tables of its own (an area of the caller's; skf_syms_get's is w->tables). */
struct skf_syms_in {
    struct rans r;
    uint32_t left; /* symbols */
    enum skf_isa isa;
    bool is_tail;               /* the last words are in `tail`, and zeros behind them: loops need not look for the end */
    uint8_t tail[4 * RANS_MOST];
};
SKF_MUST enum skf_err skf_syms_begin(struct skf_work *w, struct skf_area *tables, struct skf_reader *r, uint32_t n,
                                     struct skf_syms_in *in);
/* SKF_ERR_FORMAT also when the last symbols were decoded and something is left over. */
SKF_MUST enum skf_err skf_syms_some(struct skf_syms_in *in, uint8_t *sym, const uint8_t *key, uint32_t n);

#endif
