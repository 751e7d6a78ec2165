/*
 * A loaded model's matrices laid out for the kernels (kernels/lanes.h), in memory of the model's own: decoding then reads one stream, as
 * fast as memory gives it.
 */
#ifndef SKF_RUNTIME_LANES_PRIV_H
#define SKF_RUNTIME_LANES_PRIV_H

#include "runtime/engine.h"
#include "runtime/llama_priv.h"
#include "runtime/pool_priv.h"

/* Lays out every matrix that is multiplied and whose type can be, and tells `src`, which the rows lie in, that they are idle. Without the
 * memory for it, unless it was asked for, the model computes from its rows. */
SKF_MUST enum skf_err skf_llama_lanes(struct skf_llama *l, const struct skf_source *src, struct skf_pool *pool, enum skf_repack repack,
                                      struct skf_why *why);
/* kept.c: takes what a kept layout has of the matrices, before the above lays out the rest. One that is missing or damaged is only logged. */
void skf_llama_kept(struct skf_llama *l, const struct skf_source *src, const struct skf_engine_kept *kept, enum skf_repack repack,
                    unsigned threads);
/* Memory of huge pages, of which three times as much must be there to take unless it was asked for; NULL: there is not. skf_free. */
uint8_t *skf_lanes_memory(uint64_t bytes, bool asked);

#endif
