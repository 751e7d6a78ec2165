/*
 * SKF_CODE_PACK: up to SKD_PACK_MAX bytes of the result in one piece, for what neither the source nor numbers explain: texts, programs,
 * archives.  zstd of each chunk by itself loses what chunks have in common, and its entropy codes are made for speed.
 *
 * Matches and literals as LZMA has them (states, four last distances, lengths and distances as binary trees), coded bit by bit by an adaptive
 * binary range coder whose every probability is the mean of a fast and a slow estimate.  Before that the targets of calls in machine code may
 * be made absolute, so that calls of one function are alike.  docs/formats.md has the layout.
 */
#ifndef SKF_DELTA_LZ_PRIV_H
#define SKF_DELTA_LZ_PRIV_H

#include "base/buf.h"
#include "base/util.h"
#include "delta/skd_priv.h"
#include "delta/work_priv.h"

enum skf_lz_filter { SKF_LZ_PLAIN, SKF_LZ_X86, SKF_LZ_ARM64, SKF_LZ_FILTERS };

/* Makes exactly out_n bytes (1 to SKD_PACK_MAX) of all of p. SKF_ERR_FORMAT for what no encoder writes. */
SKF_MUST enum skf_err skf_lz_get(struct skf_area *model, const uint8_t *p, size_t n, uint8_t *out, size_t out_n);

struct skf_lz_room { /* memory of one encoder, about 12 bytes for each byte of the piece */
    struct skf_area model, tree, heads, nodes, text;
    const struct skf_progress *progress; /* asked now and then whether to go on; may be NULL */
};
void skf_lz_room_free(struct skf_lz_room *r); /* a zeroed one is fine */
/* Appends the n bytes at p (1 to SKD_PACK_MAX). SKF_ERR_LIMIT when `out` has no room: not worth coding so. SKF_ERR_CANCELLED. */
SKF_MUST enum skf_err skf_lz_put(struct skf_lz_room *r, const uint8_t *p, size_t n, struct skf_buf *out);

/* ---- what both sides share ------------------------------------------------------------------------------------------------ */
/* Targets of calls: relative in the file, absolute (from the piece's beginning) where they are coded. */
void skf_lz_filter(enum skf_lz_filter f, uint8_t *p, size_t n, bool is_coding);

struct lz_bit { /* how likely a 0 is, in 65536ths, by the last few bits and by more of them */
    uint16_t fast, slow;
};
#define LZ_FAST 4
#define LZ_SLOW 7
static inline uint32_t lz_zero(const struct lz_bit *b) { return ((uint32_t)b->fast + b->slow) >> 1; }
static inline void lz_learn(struct lz_bit *b, unsigned bit)
{
    if (bit) {
        b->fast = (uint16_t)(b->fast - (b->fast >> LZ_FAST));
        b->slow = (uint16_t)(b->slow - (b->slow >> LZ_SLOW));
    } else {
        b->fast = (uint16_t)(b->fast + ((65536u - b->fast) >> LZ_FAST));
        b->slow = (uint16_t)(b->slow + ((65536u - b->slow) >> LZ_SLOW));
    }
}

#define LZ_STATES 12u
#define LZ_PLACES 4u /* places modulo this are told apart */
#define LZ_LC 4u     /* bits of the byte before that are a literal's context */
#define LZ_REPS 4u
#define LZ_LEN_MIN 2u
#define LZ_LEN_MAX 273u
#define LZ_SLOTS 64u
#define LZ_ALIGN 4u

struct lz_len {
    struct lz_bit is_mid, is_high, low[LZ_PLACES][8], mid[LZ_PLACES][8], high[256];
};
struct lz_model {
    struct lz_bit is_match[LZ_STATES][LZ_PLACES], is_rep[LZ_STATES], is_not0[LZ_STATES], is_long0[LZ_STATES][LZ_PLACES],
        is_not1[LZ_STATES], is_not2[LZ_STATES];
    struct lz_bit slot[4][LZ_SLOTS], special[128], align[1u << LZ_ALIGN];
    struct lz_len len, rep_len;
    struct lz_bit literal[1u << LZ_LC][3 * 256];
};
void skf_lz_model_init(struct lz_model *m); /* every bit as likely 0 as 1 */

/* The state after ... */
static inline unsigned lz_after_literal(unsigned s) { return s < 4 ? 0 : s < 10 ? s - 3 : s - 6; }
static inline unsigned lz_after_match(unsigned s) { return s < 7 ? 7 : 10; }
static inline unsigned lz_after_rep(unsigned s) { return s < 7 ? 8 : 11; }
static inline unsigned lz_after_short(unsigned s) { return s < 7 ? 9 : 11; }
static inline unsigned lz_len_class(unsigned len) { return len < LZ_LEN_MIN + 4 ? len - LZ_LEN_MIN : 3; }
/* Where the probabilities of a slot's lower bits stand: slots 4 to 13; the first is at 1. */
static inline unsigned lz_special_at(unsigned slot) { return ((2u | (slot & 1)) << ((slot >> 1) - 1)) - slot; }

#endif
