/*
 * The threads that compute together: a region of numbered tasks is handed out and waited for, some hundred times a token.
 *
 * Idle threads spin for some tens of microseconds, then sleep: between two regions of one token they are found awake, between
 * two requests they cost nothing.  A thread that comes late to a region costs nothing either: what is waited for are the tasks.
 */
#ifndef SKF_RUNTIME_POOL_PRIV_H
#define SKF_RUNTIME_POOL_PRIV_H

#include "base/util.h"

struct skf_pool;

/* `threads` counts the caller's. */
SKF_MUST enum skf_err skf_pool_open(unsigned threads, struct skf_pool **p, struct skf_why *why);
void skf_pool_close(struct skf_pool *p); /* NULL is fine */
unsigned skf_pool_threads(const struct skf_pool *p);

/* Calls fn(ctx, worker, task) for every task < n, worker < threads (0 is the caller), and returns when all are done. One region at
 * a time, from one thread. */
void skf_pool_run(struct skf_pool *p, uint32_t n, void (*fn)(void *ctx, unsigned worker, uint32_t task), void *ctx);

#endif
