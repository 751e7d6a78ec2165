/*
 * The small rest: time, log, parallel loops, progress, processor features.
 */
#ifndef SKF_BASE_UTIL_H
#define SKF_BASE_UTIL_H

#include <stdatomic.h>

#include "base/err.h"

#define SKF_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define SKF_MIN(a, b) ((a) < (b) ? (a) : (b))
#define SKF_MAX(a, b) ((a) > (b) ? (a) : (b))

/* The bits of a float, and the float of bits. */
static inline uint32_t skf_float_bits(float f)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = f};
    return v.u;
}
static inline float skf_bits_float(uint32_t u)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = u};
    return v.f;
}

/* Length of the valid UTF-8 character at p[n] (RFC 3629); 0 for anything else, for none, and for NUL. */
size_t skf_utf8_len(const void *p, size_t n);

/* ---- time ---------------------------------------------------------------------------------------------------------- */
int64_t skf_now_unix(void);   /* wall clock, seconds; what skf_clock_set says, when a test set it */
uint64_t skf_now_ns(void);    /* monotonic */
void skf_sleep_ms(unsigned ms);
void skf_clock_set(int64_t unix_seconds); /* for tests and the environment variable SKF_NOW; 0 turns it off */
/* "2026-11-21T10:00:00Z" both ways (TUF's form); SKF_ERR_FORMAT for anything else. */
void skf_time_text(int64_t unix_seconds, char out[21]);
SKF_MUST enum skf_err skf_time_parse(const char *s, int64_t *unix_seconds);

/* ---- log: the only global state; one line an event on stderr, or where skf_log_to says -------------------------------- */
enum skf_level { SKF_LOG_ERROR, SKF_LOG_WARN, SKF_LOG_INFO, SKF_LOG_DEBUG };
void skf_log_open(const char *program, enum skf_level max); /* SKF_LOG=debug|info|warn|error overrides max */
void skf_log(enum skf_level l, const char *fmt, ...) SKF_PRINTF(2, 3);

/* ---- parallel loops --------------------------------------------------------------------------------------------------- */
/* Calls fn(ctx, worker, i) for every i below count, from min(jobs, count) threads (worker < jobs; the caller's thread is
 * worker 0), in no fixed order. jobs 0 means one a processor. Returns the error of the lowest i that failed (its text in
 * `why`); after a failure no new i is begun. */
SKF_MUST enum skf_err skf_par_for(unsigned jobs, uint64_t count,
                                  enum skf_err (*fn)(void *ctx, unsigned worker, uint64_t i, struct skf_why *why),
                                  void *ctx, struct skf_why *why);
unsigned skf_cpu_count(void); /* processors we may run on */
uint64_t skf_memory_available(void); /* bytes that can be taken without pushing others out; UINT64_MAX when nothing tells */

/* ---- progress and cancel ---------------------------------------------------------------------------------------------- */
struct skf_progress {
    void (*fn)(void *ctx, uint64_t done, uint64_t total); /* from any thread; may be NULL */
    void *ctx;
    atomic_bool *cancel; /* may be NULL; set to true by anybody to stop the work with SKF_ERR_CANCELLED */
    unsigned share;      /* percent of each thread's time that the work may take; 0 and 100: all */
};
static inline bool is_cancelled(const struct skf_progress *p)
{
    return p && p->cancel && atomic_load_explicit(p->cancel, memory_order_relaxed);
}
static inline void skf_progress_tell(const struct skf_progress *p, uint64_t done, uint64_t total)
{
    if (p && p->fn)
        p->fn(p->ctx, done, total);
}
/* To be called by a thread that has worked since `begun_ns` (skf_now_ns): gives the processor up for as long as the share asks
 * for. */
void skf_progress_rest(const struct skf_progress *p, uint64_t begun_ns);

/* ---- processor -------------------------------------------------------------------------------------------------------- */
enum skf_isa { SKF_ISA_REF, SKF_ISA_AVX2, SKF_ISA_AVX512, SKF_ISA_AMX, SKF_ISA_NEON };
const char *skf_isa_name(enum skf_isa i); /* ref, avx2, avx512, amx, neon */
/* The best this machine has, or what SKF_CPU says: SKF_ERR_UNSUPPORTED when the machine lacks that, SKF_ERR_ARG for a
 * name that is none. avx2 asks for AVX2, FMA, F16C; avx512 for F, BW, VL, DQ and VNNI; neon for dot product. */
SKF_MUST enum skf_err skf_isa_pick(enum skf_isa *isa, struct skf_why *why);

#endif
