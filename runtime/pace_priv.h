/*
 * How much of waiting prompts a step computes, and how long new requests are gathered before they begin.  Plain numbers in, plain numbers
 * out, so that both can be tested without a clock; nothing here changes what is generated, only when.
 */
#ifndef SKF_RUNTIME_PACE_PRIV_H
#define SKF_RUNTIME_PACE_PRIV_H

#include "base/util.h"

#define SKF_SLOTS_MAX 64u

/*
 * What steps have taken so far. Zeroed knows nothing.  What a prompt's tokens add is no multiple of their number: kernels take them in pairs and fours, and attention goes over all
 * that stands before them once for all of them.  So it is kept for each power of two by itself, and larger ones are tried at times.
 */
enum { SKF_PACE_SIZES = 7 };
struct skf_pace {
    uint64_t base_ns[SKF_SLOTS_MAX + 1]; /* a step of so many decoding sequences and no prompt, smoothed; 0: not seen */
    uint64_t more_ns[SKF_PACE_SIZES];    /* what 1 << i tokens of prompts add, smoothed; 0: not seen */
    uint32_t seen[SKF_PACE_SIZES];       /* the count of mixed steps when that was seen last */
    uint32_t steps, mixed;               /* steps with both; of these, since the last one that only decoded */
};
/* Prompt tokens for the next step beside `decoding` sequences, at most `most`. With nothing decoding: all. Otherwise a power of two, the largest with which the step takes
 * percent / 100 of one that only decodes; where that is less than a single token takes, what takes half as long again as that. 100: one token. 0 when a step without any must be
 * measured first: that is asked for when none was seen, and again after 64 mixed ones, since machines slow down and speed up. The next larger size is tried every 32 steps when it stays within
 * twice the time that can be spared, else every 128. */
uint32_t skf_pace_portion(const struct skf_pace *p, uint32_t decoding, uint32_t most, uint32_t percent);
/* A step took ns: of so many decoding sequences (at most SKF_SLOTS_MAX) and prompt tokens. */
void skf_pace_saw(struct skf_pace *p, uint32_t decoding, uint32_t prompt, uint64_t ns);

/* The share of the last second in which something was computed: eighths of a second in a ring. */
struct skf_busy {
    uint64_t ns[8], at; /* at: the eighth written to, counted from the clock's beginning */
};
void skf_busy_add(struct skf_busy *b, uint64_t now, uint64_t ns);
uint32_t skf_busy_permille(const struct skf_busy *b, uint64_t now);

/* What a decision to wait for more requests looks at. */
struct skf_gather {
    uint32_t busy_ms, idle_ms; /* the windows; 0: never wait for that reason */
    uint32_t permille;         /* load: the greater of the busy share and the share of slots in use */
    uint64_t since_ns;         /* since the oldest request that waits came */
    uint64_t gap_ns;           /* between the one before and it */
    uint32_t waiting, tokens, longest; /* requests that wait; tokens of their prompts, of the longest */
    uint32_t free, portion;    /* slots; tokens of a full step */
};
/* Nanoseconds that those who wait are held back still; 0: begin. The policy is engine.h's. */
uint64_t skf_gather_ns(const struct skf_gather *g);

#endif
