/*
 * SKF_CODE_PACK: up to SKD_PACK_MAX bytes of the result in one piece, for what neither the source nor numbers explain: texts, programs,
 * archives.  zstd of each chunk by itself loses what chunks have in common, and its entropy codes are made for speed.
 *
 * All that delta asks of liblzma, in one place: raw LZMA with a mark of its end, behind a filter that makes calls of one function alike where
 * the piece is machine code.  docs/formats.md has the layout.
 */
#ifndef SKF_DELTA_LZ_PRIV_H
#define SKF_DELTA_LZ_PRIV_H

#include "base/buf.h"
#include "base/util.h"
#include "delta/skd_priv.h"

enum skf_lz_filter { SKF_LZ_PLAIN, SKF_LZ_X86, SKF_LZ_ARM64, SKF_LZ_FILTERS };

/* Reads pieces, one after the other, from the beginning on: liblzma's window is as long as the piece, which nobody need hold besides. */
struct skf_lz_in;
struct skf_lz_in *skf_lz_in_new(void); /* NULL when there is no memory */
void skf_lz_in_free(struct skf_lz_in *d);
/* Begins with the n bytes at p, which make out_n (1 to SKD_PACK_MAX). SKF_ERR_FORMAT for what no encoder writes, here and below. */
SKF_MUST enum skf_err skf_lz_open(struct skf_lz_in *d, const uint8_t *p, size_t n, size_t out_n);
/* The next `many` bytes (1 to what is left); p as in skf_lz_open, though it may have moved. With the last of them everything of p was read
 * and nothing more came. After an error the piece is opened anew or not at all. */
SKF_MUST enum skf_err skf_lz_next(struct skf_lz_in *d, const uint8_t *p, uint8_t *out, size_t many);

/* Appends the n bytes at p (1 to SKD_PACK_MAX), with 50 MiB of memory at most. SKF_ERR_LIMIT when `out` has no room: not worth coding so.
 * SKF_ERR_CANCELLED: `progress`, which may be NULL, is asked now and then. */
SKF_MUST enum skf_err skf_lz_put(const struct skf_progress *progress, const uint8_t *p, size_t n, struct skf_buf *out);

#endif
