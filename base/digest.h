/*
 * SHA-256 and what is built of it: HMAC, hexadecimal, the Merkle root that names a version's content.
 *
 * Merkle tree (as RFC 6962 section 2.1, with the chunk's length bound into the leaf):
 *   leaf(i)  = SHA-256(0x00 || u64le length_i || digest_i)        digest_i = SHA-256 of the chunk's bytes
 *   node     = SHA-256(0x01 || left || right), split at the largest power of two below the count
 *   root     = SHA-256(0x02 || u64le total_size || u64le count || merkle of the leaves)    (32 zero bytes when count is 0)
 */
#ifndef SKF_BASE_DIGEST_H
#define SKF_BASE_DIGEST_H

#include "base/err.h"

#define SKF_DIGEST 32
#define SKF_HEX (2 * SKF_DIGEST + 1)

void skf_sha256(const void *p, size_t n, uint8_t out[SKF_DIGEST]);
/* Of several messages at once, which takes less time than one after the other: best of _lanes() and more (1, 2 or 16 by the machine). */
struct skf_message {
    const void *p;
    size_t n;
    uint8_t *digest; /* SKF_DIGEST bytes */
};
#define SKF_SHA256_MANY 16 /* the most that _lanes() says */
unsigned skf_sha256_lanes(void);
void skf_sha256_many(const struct skf_message *m, unsigned n);

/* The same for messages that come one by one: they wait in a queue, with what they point to, until there are enough. One thread's. */
struct skf_sha256_queue;
struct skf_sha256_queue *skf_sha256_queue_new(void); /* NULL when there is no memory */
void skf_sha256_queue_free(struct skf_sha256_queue *q);
/* Every _put is followed by a _run, which hashes until there is room for one more, or all there is. It returns how many are done and lists
 * their digests (the messages' pointers; `done` may be NULL). */
void skf_sha256_put(struct skf_sha256_queue *q, const struct skf_message *m);
unsigned skf_sha256_run(struct skf_sha256_queue *q, bool is_all, uint8_t *done[SKF_SHA256_MANY]);

/* Incremental. An object lives between _new and _final or _free, on one thread at a time. */
struct skf_sha256_ctx;
struct skf_sha256_ctx *skf_sha256_new(void); /* NULL when there is no memory */
void skf_sha256_add(struct skf_sha256_ctx *c, const void *p, size_t n);
void skf_sha256_final(struct skf_sha256_ctx *take_c, uint8_t out[SKF_DIGEST]); /* frees c */
void skf_sha256_free(struct skf_sha256_ctx *c);                               /* for a digest given up; NULL is fine */

/* Constant-time comparison, and a wipe that the compiler cannot drop. */
bool is_equal_secret(const void *a, const void *b, size_t n);
void skf_wipe(void *p, size_t n);
/* n random bytes from the kernel. Fails only when the kernel does. */
SKF_MUST enum skf_err skf_random(void *p, size_t n);

void skf_hex(const uint8_t *p, size_t n, char *out /* 2n + 1 */);
/* Lower or upper case, exactly 2n digits then NUL; SKF_ERR_FORMAT otherwise. */
SKF_MUST enum skf_err skf_unhex(const char *s, uint8_t *out, size_t n);

/* Streaming Merkle root over leaves given in order; memory is 64 digests whatever the count. */
struct skf_merkle {
    uint64_t count, size;
    uint8_t stack[64][SKF_DIGEST];
};
void skf_merkle_init(struct skf_merkle *m);
void skf_merkle_add(struct skf_merkle *m, const uint8_t digest[SKF_DIGEST], uint64_t length);
void skf_merkle_root(const struct skf_merkle *m, uint8_t root[SKF_DIGEST]);

#endif
