/*
 * The chunk folder: every chunk of every version once, in a file named by its SHA-256 ("ab/ab12...").
 *
 * A chunk's file appears whole and durable or not at all, and never changes, so it may be read without a lock, and a
 * copy of the folder is a backup.  Deltas are made from whole contents, which are put together here when they are
 * needed: a scratch file per version, checked chunk by chunk on the way, the newest few kept.
 */
#ifndef SKF_DISTRIBUTOR_CHUNKS_H
#define SKF_DISTRIBUTOR_CHUNKS_H

#include <limits.h>

#include "base/digest.h"
#include "base/util.h"
#include "model/model.h"

struct skf_chunks;

/* `dir` is made when it is not there; contents go to `content_dir`. */
SKF_MUST enum skf_err skf_chunks_open(const char *dir, const char *content_dir, struct skf_chunks **c,
                                      struct skf_why *why);
void skf_chunks_close(struct skf_chunks *c); /* NULL is fine */
bool has_chunk(const struct skf_chunks *c, const uint8_t digest[SKF_DIGEST]);
/* Checks that the bytes have this digest (SKF_ERR_DIGEST) and makes them lasting. One that is there already costs
 * nothing. */
SKF_MUST enum skf_err skf_chunks_put(struct skf_chunks *c, const uint8_t digest[SKF_DIGEST], const void *p, size_t n,
                                     struct skf_why *why);
uint64_t skf_chunks_length(const struct skf_chunks *c, const uint8_t digest[SKF_DIGEST]); /* bytes; 0 when it is not there */
/* Removes n chunks, so that it lasts; best in the order of digests. One that is not there is fine. Who reads one goes on. */
SKF_MUST enum skf_err skf_chunks_remove(struct skf_chunks *c, const uint8_t *digests, uint64_t n, struct skf_why *why);

/* A version's content as a list of chunks: digests of 32 bytes each, and lengths. */
struct skf_chunk_list {
    const uint8_t *digests;
    const uint32_t *lengths;
    uint64_t n, size;
    uint8_t root[SKF_DIGEST];
};
/* SKF_ERR_FORMAT when a length is 0 or over SKF_CHUNK_MAX or the sum is not the size; SKF_ERR_DIGEST when they do not
 * come to the root. */
SKF_MUST enum skf_err skf_chunk_list_check(const struct skf_chunk_list *l, struct skf_why *why);
/* Opens the whole content as a model. The file stays while the model is open, whatever _trim says.  SKF_ERR_NOT_FOUND
 * when a chunk is missing, SKF_ERR_DIGEST when one is not what its name says. An empty list gives the empty content. */
SKF_MUST enum skf_err skf_chunks_content(struct skf_chunks *c, const struct skf_chunk_list *l,
                                         const struct skf_progress *progress, struct skf_model **m,
                                         struct skf_why *why);
/* Puts the bytes together in a file as they are, and gives its name; it stays until _trim. */
SKF_MUST enum skf_err skf_chunks_file(struct skf_chunks *c, const struct skf_chunk_list *l,
                                      const struct skf_progress *progress, char path[PATH_MAX], struct skf_why *why);
/* Leaves the `keep` newest contents, removes the others. */
void skf_chunks_trim(struct skf_chunks *c, size_t keep);
void skf_chunks_forget(struct skf_chunks *c, const uint8_t root[SKF_DIGEST]); /* removes this content, if it is kept */

#endif
