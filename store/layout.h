/*
 * Kept layouts: a version's matrices as the kernels like them (kernels/lanes.h), made once when the version is applied and mapped by every
 * worker that runs it, so that neither a start nor a swap pays for laying out and two workers share the pages.
 *
 * Caveats first:
 *  - A layout is derived: whoever finds none, or one that is damaged, lays out in memory or computes from the rows. Nothing else is lost
 *    with it, so that it may be removed at any time; who has it open keeps it.
 *  - It is a file of its own in the store's folder, layout/ROOT.skl, named by the version's root, and appears whole by a rename.  Not a
 *    value in LMDB: a value of some gigabytes would have to lie in one run of pages, would be held in memory while it is
 *    written, and the room that it leaves when it goes would stay in the database's file.
 *  - It says itself what it is: version, layout's format, bytes, digest (docs/formats.md has the bytes).
 */
#ifndef SKF_STORE_LAYOUT_H
#define SKF_STORE_LAYOUT_H

#include "base/digest.h"

#define SKF_LAYOUT_LANES     1u /* the layout's format that this build makes: SKF_LANES_FORMAT of kernels/lanes.h */
#define SKF_LAYOUT_KEEP_FREE (64ull << 20) /* bytes of the disk that a new one leaves */

struct skf_layout; /* an open one; any thread may read it */
struct skf_layout_part {
    uint32_t number, kind; /* the maker's; each number once */
    uint64_t bytes;        /* a multiple of 64, not 0 */
};
/* Opens the layout of the version with this root in the store's folder `dir`: head and size are checked, the body is not (skf_layout_verify).
 * SKF_ERR_NOT_FOUND when there is none, SKF_ERR_UNSUPPORTED for another format, SKF_ERR_FORMAT or SKF_ERR_DIGEST for a damaged one. */
SKF_MUST enum skf_err skf_layout_open(const char *dir, const uint8_t root[SKF_DIGEST], uint32_t format, struct skf_layout **l,
                                      struct skf_why *why);
void skf_layout_close(struct skf_layout *l); /* NULL is fine */
/* Hashes the body on `jobs` threads (0: one a processor): SKF_ERR_DIGEST, or SKF_ERR_IO when it cannot be read. */
SKF_MUST enum skf_err skf_layout_verify(const struct skf_layout *l, unsigned jobs, struct skf_why *why);
/* The part of this number, 64-byte aligned, as long as `l`; NULL when there is none or it is of another kind or size. */
const uint8_t *skf_layout_part(const struct skf_layout *l, uint32_t number, uint32_t kind, uint64_t bytes);
const uint8_t *skf_layout_body(const struct skf_layout *l, uint64_t *bytes); /* all parts, one behind another */
uint64_t skf_layout_bytes(const struct skf_layout *l); /* of the file */
uint32_t skf_layout_count(const struct skf_layout *l); /* of parts */

/* One in the making. Parts are written by any number of threads, each byte once; it is not there before _commit. */
struct skf_layout_maker;
/* SKF_ERR_FULL when the disk would have less than SKF_LAYOUT_KEEP_FREE and `spare` bytes left afterwards. */
SKF_MUST enum skf_err skf_layout_begin(const char *dir, const uint8_t root[SKF_DIGEST], uint32_t format, const struct skf_layout_part *parts,
                                       uint32_t n, uint64_t spare, struct skf_layout_maker **m, struct skf_why *why);
/* Writes n bytes at `off` of the part parts[i]. */
SKF_MUST enum skf_err skf_layout_write(struct skf_layout_maker *m, uint32_t i, uint64_t off, const void *p, size_t n, struct skf_why *why);
/* Hashes what was written, makes it last under its name. Frees m, whatever it returns. */
SKF_MUST enum skf_err skf_layout_commit(struct skf_layout_maker *take_m, unsigned jobs, struct skf_why *why);
void skf_layout_abort(struct skf_layout_maker *take_m); /* NULL is fine */

/* Removes the layouts of versions other than these roots (SKF_DIGEST bytes each), and with `is_alone` (nobody makes one just now) what killed
 * makers left. Gives back the bytes that went. */
uint64_t skf_layout_sweep(const char *dir, const uint8_t *roots, size_t n, bool is_alone);
uint64_t skf_layout_total(const char *dir); /* bytes of all layouts there */

#endif
