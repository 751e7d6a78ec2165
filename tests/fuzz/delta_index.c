/*
 * A .skd from anybody: its index parsed with the digest made right (so that what lies behind it is reached), then its chunks decoded
 * from what bytes follow.  Nothing may happen but an error, or chunks that have their digests.
 */
#include "base/alloc.h"
#include "delta/skd_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static uint8_t source[1 << 16], result[SKF_CHUNK_MAX];

static void decode_some(struct skf_skd *skd, const uint8_t *p, size_t n)
{
    struct skf_delta_scratch *s;
    struct skf_source from = skf_source_of(source, sizeof source);
    if (skf_delta_scratch_new(&s) != SKF_OK)
        return;
    for (uint64_t k = 0; k < skf_skd_info(skd)->n_sides; k++) {
        struct skf_skd_side side;
        skf_skd_side(skd, k, &side);
        if (side.payload_offset <= n && side.payload_length <= n - side.payload_offset &&
            skf_skd_put_side(skd, k, p + side.payload_offset, NULL) == SKF_OK)
            continue; /* otherwise its chunks must say that they need it */
    }
    for (uint64_t i = 0; i < skf_skd_info(skd)->n_chunks && i < 8; i++) {
        struct skf_skd_chunk c;
        skf_skd_chunk(skd, i, &c);
        if (c.payload_offset > n || c.payload_length > n - c.payload_offset)
            continue;
        if (skf_skd_decode(skd, i, p + c.payload_offset, &from, s, result, NULL) == SKF_OK) {
            uint8_t digest[SKF_DIGEST];
            skf_sha256(result, c.result_length, digest);
            if (memcmp(digest, c.result_digest, SKF_DIGEST) != 0)
                __builtin_trap();
        }
    }
    skf_delta_scratch_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct skf_skd *skd;
    struct skf_why why = {{0}};
    uint64_t size;
    if (skf_skd_parse(p, n, &skd, NULL) == SKF_OK)
        skf_skd_free(skd);
    if (n < SKF_SKD_HEAD || skf_skd_index_size(p, &size, NULL) != SKF_OK || size > n)
        return 0;
    uint8_t *copy = skf_memdup(p, n);
    if (!copy)
        return 0;
    if (skd_index_digest(copy, size, copy + SKD_DIGEST_AT) == SKF_OK) {
        enum skf_err e = skf_skd_parse(copy, size, &skd, &why);
        if ((e != SKF_OK) != (why.text[0] != 0))
            __builtin_trap();
        if (e == SKF_OK) {
            decode_some(skd, copy, n);
            skf_skd_free(skd);
        }
    }
    skf_free(copy);
    return 0;
}
