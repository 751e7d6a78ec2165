/* Kernels of SHA-256 (FIPS 180-4): they take states past so many blocks of 64 bytes.  digest_many.c chooses among them. */
#ifndef SKF_BASE_DIGEST_PRIV_H
#define SKF_BASE_DIGEST_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHA_BLOCK 64
#define SHA_LANES 16 /* of the widest kernel */

/* States of as many messages as the kernel's name says, where the messages' next blocks lie (at least so many), and how many. */
typedef void sha_blocks_fn(uint32_t s[][8], const uint8_t *const *p, size_t blocks);
/* By the instructions for it, which a processor has or has not. */
bool is_sha_there(void);
sha_blocks_fn sha_blocks_one, sha_blocks_two;
/* By AVX-512: SHA_LANES at once. */
sha_blocks_fn sha_blocks_avx512;

/* One message is hashed by sha_blocks_one here. */
bool is_sha_ours(void);
/* What is hashed behind the whole blocks of n bytes, given the rest; how many blocks it is. */
size_t sha_end(const uint8_t *rest, uint64_t n, uint8_t end[2 * SHA_BLOCK]);
void sha_digest_of(const uint32_t s[8], uint8_t digest[32]);

/* Constants of the 64 rounds; the state of an empty message. */
extern const uint32_t sha_constants[64];
extern const uint32_t sha_first[8];

#endif
