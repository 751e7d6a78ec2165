/*
 * Bytes that can be read at any offset without saying where they lie: a mapped file, a buffer, or a version in the store
 * whose chunks are values of a database.  Delta, model and runtime read through this, so that all of them work in place.
 */
#ifndef SKF_BASE_SOURCE_H
#define SKF_BASE_SOURCE_H

#include "base/err.h"

struct skf_source {
    uint64_t size;
    /* Gives the longest contiguous run that starts at `off` (off < size): *len > 0. It may be said to go on behind `size`: there is
     * nothing to be read there, so callers cut it to what they want. The pointer lives as long as the
     * object behind `ctx`. Thread-safe: any number of threads may ask at once. */
    enum skf_err (*span)(void *ctx, uint64_t off, const uint8_t **p, uint64_t *len);
    void *ctx;
    /* These bytes, which span gave, will not be read soon: memory that holds them may be given back; they are still there when asked
     * for. NULL where there is nothing to give back. */
    void (*idle)(void *ctx, const uint8_t *p, uint64_t n);
};

/* The source is a view of p; p must outlive it. */
struct skf_source skf_source_of(const void *p, uint64_t n);
/* Two sources, one behind the other, whose sizes together are no more than 64 bits hold. The pair, and what is behind its sources, must outlive
 * what comes back, which gives no memory back. */
struct skf_source_pair {
    struct skf_source of[2];
};
struct skf_source skf_source_both(const struct skf_source_pair *pair);
/* Copies exactly n bytes from `off`; SKF_ERR_FORMAT when the range is not inside the source (nothing is copied). */
SKF_MUST enum skf_err skf_source_read(const struct skf_source *s, uint64_t off, void *to, uint64_t n);
/* Points *p at n contiguous bytes: in place where they are, otherwise copied into `scratch` (at least n bytes). */
SKF_MUST enum skf_err skf_source_view(const struct skf_source *s, uint64_t off, uint64_t n, void *scratch,
                                      const uint8_t **p);

#endif
