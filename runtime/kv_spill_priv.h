/*
 * Where pages of keys and values go that memory does not keep: a file without a name, of bounded size, that ends with the process.
 *
 * Pages are written by a thread of its own, so that whoever gives one does not wait for a disk: while too many are on their way, none is
 * taken.  A page comes back as it went, or not at all: its digest is checked.  A file that cannot be written any more takes no more pages.
 * All calls from one thread.
 */
#ifndef SKF_RUNTIME_KV_SPILL_PRIV_H
#define SKF_RUNTIME_KV_SPILL_PRIV_H

#include "base/err.h"

struct skf_spill;
#define SKF_SPILL_WAITING 16u /* pages on their way, beside what the caller keeps */

/* At most `bytes` of pages of page_bytes each in a file in folder `dir`; SKF_ERR_LIMIT when that is not one page. */
SKF_MUST enum skf_err skf_spill_open(const char *dir, uint64_t bytes, size_t page_bytes, struct skf_spill **s, struct skf_why *why);
void skf_spill_close(struct skf_spill *s); /* NULL is fine */
/* Takes a page (skf_aligned) for place *slot. SKF_ERR_FULL: every place is taken; SKF_ERR_BUSY: too many are on their way, after a short wait, or
 * the file has failed. In both cases the page is still the caller's. */
SKF_MUST enum skf_err skf_spill_put(struct skf_spill *s, void *take_page, uint32_t *slot);
/* Brings the page back to `to`, and frees its place, whatever comes of it. SKF_ERR_IO: it was not, or cannot be read; SKF_ERR_DIGEST: it is another. */
SKF_MUST enum skf_err skf_spill_get(struct skf_spill *s, uint32_t slot, void *to);
void skf_spill_drop(struct skf_spill *s, uint32_t slot); /* frees a place */
/* Bytes of pages that have a place, those on their way included; of those that still stand in memory. */
void skf_spill_bytes(struct skf_spill *s, uint64_t *taken, uint64_t *waiting);
void skf_spill_settle(struct skf_spill *s); /* waits until nothing is on its way */

#endif
