/*
 * The .skd container, version 1 (little-endian; docs/formats.md is the reference):
 *
 *   head     128 bytes
 *        0   4  "SKD\x1a"
 *        4   2  container version, 1
 *        6   2  codec version, 2: which codings may stand in the table and what their payloads look like
 *        8   8  index size: head, directory and table together
 *       16   8  payload size: all payloads together; index size + payload size is the file's size
 *       24   8  size of another version that stands behind the source; 0: there is none
 *       32  32  source root
 *       64  32  result root
 *       96  32  SHA-256 of the index without these 32 bytes
 *   index    varints (LEB128, shortest form; "signed": zigzag)
 *        source size, result size, tensors, chunks; with another version its root
 *        directory: a record for each tensor that a chunk refers to, in order of its place in the result
 *        table: a record for each chunk of the result's cut, in order
 *   payloads of the sides in order of the directory, then those of the chunks in order of the table, nothing between them
 *
 * Tensor: has (1 byte: which of the fields with a number follow; type and row bytes that do not are those of the tensor before it,
 *         the others 0), type (0), row bytes (1), gap (2: from the end of the tensor before it), bytes, signed shift (3: source offset -
 *         result offset, less that of the tensor before it), signed growth (4: source bytes - bytes), payload length of its side (5);
 *         with a side: coding (1 byte: of which chunks), the side's payload digest. A packed piece is such a record.
 * Chunk:  coding (the lower four bits of a byte) and where its length stands (the upper: 0 here, 1 it is that of the chunk before it,
 *         2 it is what is left of its tensor or piece), result length;
 *         COPY: signed source offset less the end of the copy before it (0 at first);
 *         PATCH: signed (source offset - result offset), source length;
 *         MIXED: ranges; of each: signed source offset (less the result offset, later ones less the end of the one before), length;
 *         all but COPY, RAW and PACK: payload length; a RAW payload is as long as the result, a PACK has none;
 *         result digest; all but COPY, RAW and PACK: the payload digest's first half (that of RAW is the result's).
 *
 * Equal roots make the identity: no tensors, no chunks, no payloads.
 */
#ifndef SKF_DELTA_SKD_PRIV_H
#define SKF_DELTA_SKD_PRIV_H

#include "base/buf.h"
#include "delta/delta.h"

#define SKD_CONTAINER 1
#define SKD_CODEC 2
#define SKD_DIGEST_AT 96
/* Of a payload's SHA-256 so much stands in the table: that a payload is the one that was meant is told before it is decoded; what comes of it
 * is checked against a whole digest in any case. */
#define SKD_PAYLOAD_DIGEST (SKF_DIGEST / 2)
enum { SKD_HAS_TYPE = 1, SKD_HAS_ROW = 2, SKD_HAS_GAP = 4, SKD_HAS_SHIFT = 8, SKD_HAS_GROWTH = 16, SKD_HAS_SIDE = 32, SKD_HAS_ALL = 63 };
enum { SKD_LENGTH_TOLD, SKD_LENGTH_AGAIN, SKD_LENGTH_REST };
/* The most bytes of the source that a PATCH may refer to: what a receiver may have to gather in memory. */
#define SKD_PATCH_MAX (4u << 20)
/* Ranges of the source that a MIXED chunk may name; together at most SKD_PATCH_MAX bytes. */
#define SKD_RANGES_MAX 16u
struct skd_range {
    uint64_t at;
    uint32_t n;
};
/* The least a record may take, so that counts are checked against what is there before anything is sized by them. */
#define SKD_TENSOR_MIN 2
#define SKD_CHUNK_MIN (1 + SKF_DIGEST)
#define SKD_NO_TENSOR UINT32_MAX

struct skd_tensor {
    enum skf_type type;
    uint64_t row_bytes, offset, bytes, source_offset, source_bytes;
    uint32_t side; /* SKF_NO_SIDE: none */
};
struct skd_side {
    uint64_t payload_offset;
    uint32_t payload_length;
    uint8_t coding;           /* the chunks of its tensor that it is for */
    const uint8_t *digest;    /* in the index */
    const uint8_t *payload;   /* the caller's; NULL until it is put */
};
struct skd_chunk {
    uint64_t result_offset, payload_offset, source_offset;
    uint32_t result_length, payload_length, source_length;
    uint32_t digest_at; /* where the result's digest stands in the index; that of a payload of its own is right behind it */
    union {
        uint32_t tensor; /* of INT, ADAPTER and PACK; otherwise SKD_NO_TENSOR */
        uint32_t range;  /* of MIXED: the first in skf_skd.ranges */
    };
    uint8_t coding, ranges; /* ranges: of MIXED, how many */
};
_Static_assert(sizeof(struct skd_chunk) == 48, "a table of chunks is what grows with a model in a receiver's memory");
struct skf_skd {
    struct skf_skd_info info;
    uint64_t source_all; /* bytes that chunks may read: of the source, and of the other version behind it */
    const uint8_t *index;
    uint8_t *copy; /* what index points at, or NULL when that is the caller's */
    struct skf_buf ranges; /* struct skd_range */
    struct skd_tensor *tensors;
    struct skd_side *sides;
    struct skd_chunk *chunks;
    uint64_t n_tensors;
};
static inline const uint8_t *skd_result_digest(const struct skf_skd *s, const struct skd_chunk *c) { return s->index + c->digest_at; }
/* SKD_PAYLOAD_DIGEST bytes of it; NULL where there is no payload. A raw one is the result, and has its whole digest. */
static inline const uint8_t *skd_payload_digest(const struct skf_skd *s, const struct skd_chunk *c)
{
    if (!c->payload_length)
        return NULL;
    return s->index + c->digest_at + (c->coding == SKF_CODE_RAW ? 0 : SKF_DIGEST);
}
/* The side that a chunk's coding takes of its tensor, or NULL. */
static inline const struct skd_side *skd_side_of(const struct skf_skd *s, const struct skd_chunk *c)
{
    if (c->coding == SKF_CODE_MIXED || c->tensor == SKD_NO_TENSOR || s->tensors[c->tensor].side == SKF_NO_SIDE)
        return NULL;
    const struct skd_side *side = &s->sides[s->tensors[c->tensor].side];
    return side->coding == c->coding ? side : NULL;
}

size_t skf_skd_memory(const struct skf_skd *s); /* bytes that it takes */

/* The longest piece that PACK chunks lie in. */
#define SKD_PACK_MAX (4u << 20)
/* Whether the coding has a payload of its own, whose length and digest stand in the table. */
static inline bool has_skd_own(uint8_t coding)
{
    return coding != SKF_CODE_COPY && coding != SKF_CODE_RAW && coding != SKF_CODE_PACK;
}

/* What a thread takes beside what others take. For adapter chunks: the factors as float32 (about: they are read later), and the rows that
 * are merged before they are corrected. For packed chunks: the piece, where that is more than the chunk. For
 * mixed chunks: ranges that are gathered. */
uint64_t skd_more_memory(const struct skf_skd *s);

/* ---- writing ----------------------------------------------------------------------------------------------------------------- */
struct skd_out_chunk { /* a record in the making */
    uint32_t result_length, payload_length, source_length;
    uint8_t coding;
    uint64_t result_offset, source_offset;
    struct skd_range *ranges; /* of MIXED: n_ranges, allocated */
    uint32_t n_ranges;
    uint8_t result_digest[SKF_DIGEST], payload_digest[SKF_DIGEST];
};
struct skd_out_tensor {
    enum skf_type type;
    uint64_t row_bytes, offset, bytes, source_offset, source_bytes;
    uint32_t side_length; /* 0: it has none */
    uint8_t side_coding, side_digest[SKF_DIGEST];
    uint64_t side_spooled; /* the builder's */
};
struct skd_out {
    const uint8_t *source_root, *result_root;
    uint64_t source_size, result_size;
    const struct skd_out_tensor *tensors;
    uint64_t n_tensors;
    const struct skd_out_chunk *chunks;
    uint64_t n_chunks;
    const uint8_t *also_root;
    uint64_t also_size; /* 0: no other version */
};
/* Appends head and index to `b` (empty, limit SKF_SKD_INDEX_MAX). SKF_ERR_LIMIT when it would not fit. */
SKF_MUST enum skf_err skd_write_index(const struct skd_out *o, struct skf_buf *b);
/* SHA-256 of an index without its digest field; SKF_ERR_NOMEM. */
SKF_MUST enum skf_err skd_index_digest(const uint8_t *index, uint64_t n, uint8_t out[SKF_DIGEST]);

#endif
