/*
 * Exact deltas between two versions of a model, and the `.skd` container that carries one.
 *
 * A .skd is: fixed head, index (tensor directory and chunk table), payloads.  The index binds every payload by digest, so it
 * is the index (head included) that is signed for the wire.  Each entry of the chunk table makes one chunk of the result's cut
 * (model/model.h) from bytes of the source and a payload, independently of every other, so that a receiver may fetch, check,
 * and apply them in any order and in parallel.  docs/formats.md fixes every byte.
 */
#ifndef SKF_DELTA_DELTA_H
#define SKF_DELTA_DELTA_H

#include "base/digest.h"
#include "base/source.h"
#include "base/util.h"
#include "model/model.h"

enum skf_coding { /* how a chunk of the result is made; never renumbered */
    SKF_CODE_COPY = 0,  /* the same bytes lie at `source_offset` in the source; no payload */
    SKF_CODE_RAW = 1,   /* the payload is the chunk */
    SKF_CODE_ZSTD = 2,  /* payload is zstd of the chunk, nothing of the source */
    SKF_CODE_PATCH = 3, /* zstd with a range of the source as its prefix (--patch-from) */
    SKF_CODE_INT = 4,   /* differences of elements or block fields, coded by rANS in the context of the old ones */
    SKF_CODE_ADAPTER = 5, /* rows of the source merged with a low-rank change, as `skiff merge` does it */
    SKF_CODE_MIXED = 6, /* regions: numbers as differences or by themselves, other bytes as zstd with ranges of the source */
    SKF_CODE_PACK = 7, /* of up to 4 MiB that are packed in one piece, which is the side; no payload, nothing of the source */
    SKF_CODE_COUNT
};
const char *skf_coding_name(enum skf_coding c); /* copy, raw, zstd, patch, int, adapter, mixed, pack */

struct skf_skd_chunk;
struct skf_adapter; /* model/adapter.h */
struct skf_delta_opts {
    unsigned jobs; /* 0: one a processor */
    int level;     /* zstd level; 0 for our default */
    const struct skf_adapter *adapter; /* building only: opened beside the source; NULL for none */
    /* Another version that receivers have: tensors and chunks that are nearer to it are made of it. Building: NULL for none; not with an
     * adapter (SKF_ERR_ARG). A delta that is no smaller for it does without. Applying: its path, which a delta that does not ask for it leaves unread. */
    const struct skf_model *also;
    const char *also_path;
    struct skf_progress progress; /* and the share of the processors' time that may be taken */
    bool is_kept; /* applying only: what was done when it ends early (cancelled, killed, disk full) stays beside the output, and the next
                   * call with the same delta and output goes on with it */
    /* Building only: told of every chunk in order once all are coded (digests and payload_offset are not set). May be NULL. */
    void (*chunk)(void *ctx, const struct skf_skd_chunk *c);
    void *chunk_ctx;
};
struct skf_delta_stats {
    uint64_t bytes; /* of the .skd, or of the result when applying */
    uint64_t chunks;
    double seconds;
    uint8_t source_root[SKF_DIGEST], result_root[SKF_DIGEST];
    uint64_t coding_bytes[SKF_CODE_COUNT], coding_chunks[SKF_CODE_COUNT]; /* payload bytes and chunks a coding */
    uint64_t side_bytes; /* payload bytes of sides */
    bool has_also;       /* it takes from another version too, whose root this is */
    uint8_t also_root[SKF_DIGEST];
};

/* Writes the delta that makes `neu` of `old` (whole or not at all); with out_path NULL only the statistics are found. Memory
 * beyond the maps: under 64 MiB for any model, chunk tables aside. The bytes do not depend on `jobs`. opts NULL for defaults. */
SKF_MUST enum skf_err skf_delta_build(const struct skf_model *old, const struct skf_model *neu, const char *out_path,
                                      const struct skf_delta_opts *opts, struct skf_delta_stats *stats,
                                      struct skf_why *why);
/* Writes the result whole or not at all; every byte of it is hashed and must come to the result root. SKF_ERR_BASE when
 * old_path is not what the delta starts from, SKF_ERR_FORMAT or SKF_ERR_DIGEST when the delta is damaged. */
SKF_MUST enum skf_err skf_delta_apply(const char *old_path, const char *skd_path, const char *out_path,
                                      const struct skf_delta_opts *opts, struct skf_delta_stats *stats,
                                      struct skf_why *why);
/* The same where OLD or the result is a folder (model/folder.h): a result that is a folder's content becomes the folder `out_path`, which
 * must not be there yet or be empty; any other becomes a file. Nothing is kept of a run that ended early. SKF_ERR_STATE when
 * something stands there. */
SKF_MUST enum skf_err skf_delta_apply_folder(const char *old_path, const char *skd_path, const char *out_path,
                                             const struct skf_delta_opts *opts, struct skf_delta_stats *stats, struct skf_why *why);
/* One of the two is a folder, or `out_path` ends in a slash. */
bool is_delta_of_folder(const char *old_path, const char *out_path);
/* The same in the source's own place, for which a journal beside it (PATH.skiff-journal) takes a part of its size. Every chunk is made
 * once before the first byte is changed. Whatever ends it early, killed and powered off at any instant included: either the source is as
 * it was, or the file is neither version, and the same call goes on (with any other delta: SKF_ERR_STATE). A file that is the result
 * already is fine. SKF_ERR_UNSUPPORTED for a delta that takes from another version too. SKF_ERR_FULL, and nothing changed, when the disk cannot hold the journal, growth, or chunks that change places. */
SKF_MUST enum skf_err skf_delta_apply_in_place(const char *path, const char *skd_path, const struct skf_delta_opts *opts,
                                               struct skf_delta_stats *stats, struct skf_why *why);

/* Writes the delta from `base` to what the n deltas of a chain make of it, in their order (whole or not at all); its result has the
 * last one's root; SKF_ERR_UNSUPPORTED for one that takes from another version too. Beside out_path lie, while it works, two of the versions between at most (OUTPUT.N.part). SKF_ERR_BASE for deltas
 * that do not join. */
SKF_MUST enum skf_err skf_delta_compose(const char *base_path, const char *const *skd, size_t n, const char *out_path,
                                        const struct skf_delta_opts *opts, struct skf_delta_stats *stats,
                                        struct skf_why *why);

/* What a new version would cost by each way, the delta at skd_path among them: bytes to send, seconds of one core of this machine, and
 * memory beyond maps to make it from them. Others than the delta's bytes are found on a few chunks. `encode_seconds`: what the delta
 * took (skf_cpu_seconds tells this process's). `level` of zstd, 0 for 9. */
enum skf_way { SKF_WAY_FULL, SKF_WAY_ZSTD, SKF_WAY_PATCH, SKF_WAY_SKIFF, SKF_WAYS };
struct skf_delta_way {
    uint64_t bytes, memory;
    double encode_seconds, apply_seconds; /* the digest of the result included */
    bool is_estimate;
};
SKF_MUST enum skf_err skf_delta_ways(const struct skf_model *old, const struct skf_model *neu, const char *skd_path, int level,
                                     double encode_seconds, struct skf_delta_way ways[SKF_WAYS], struct skf_why *why);
double skf_cpu_seconds(void);

/* ---- the receiver's side ---------------------------------------------------------------------------------------------- */
#define SKF_SKD_HEAD 128            /* bytes of the fixed head */
#define SKF_SKD_INDEX_MAX (1u << 30) /* no index is larger */

struct skf_skd; /* a parsed, checked index; immutable but for its sides' payloads; any thread may read it */

struct skf_skd_info {
    uint8_t source_root[SKF_DIGEST], result_root[SKF_DIGEST];
    uint64_t source_size, result_size;
    uint64_t also_size; /* 0: one source is all; otherwise what chunks read is the source and, behind it, another version of this size and root */
    uint8_t also_root[SKF_DIGEST];
    uint64_t index_size;   /* head and index: the first payload byte stands here */
    uint64_t payload_size; /* all payloads; index_size + payload_size is the file's size */
    uint64_t n_chunks;     /* of the table; 0 for the identity (equal roots), whose result is the source as it stands */
    uint64_t n_sides;
    uint32_t codec;        /* codec version */
};
/* A side: a payload that chunks of one tensor need beside their own, or that packs several chunks. Sides stand in front of the chunks' payloads. On the wire
 * the payload of chunk i is number i, that of side k is n_chunks + k. */
#define SKF_SIDE_MAX (1u << 21)
#define SKF_NO_SIDE UINT32_MAX
struct skf_skd_side {
    uint64_t payload_offset; /* from the file's start; contiguous in the order of sides */
    uint32_t payload_length; /* 1 to SKF_SIDE_MAX */
    uint8_t payload_digest[SKF_DIGEST];
};
struct skf_skd_chunk {
    uint64_t result_offset;
    uint32_t result_length;
    uint8_t result_digest[SKF_DIGEST];
    enum skf_coding coding;
    uint64_t payload_offset; /* from the file's start; contiguous in chunk order, behind the sides */
    uint32_t payload_length; /* 0 for copies */
    uint64_t source_offset, source_length; /* what it reads of the source; 0, 0 for none. Of several ranges the first's place, and all bytes */
    uint32_t side;           /* the number of the side that it needs; SKF_NO_SIDE for none */
};

/* Bytes of head and index together, from the first SKF_SKD_HEAD bytes. */
SKF_MUST enum skf_err skf_skd_index_size(const uint8_t head[SKF_SKD_HEAD], uint64_t *size, struct skf_why *why);
/* Parses and checks head and index (exactly index_size bytes, copied). Everything a field can lie about is checked here:
 * ranges, overlaps, order, sums, codings, that the chunk digests come to result_root. */
SKF_MUST enum skf_err skf_skd_parse(const uint8_t *p, uint64_t n, struct skf_skd **skd, struct skf_why *why);
/* The same without the copy: the bytes must stay where they are, and as they are, until skf_skd_free. */
SKF_MUST enum skf_err skf_skd_parse_in_place(const uint8_t *p, uint64_t n, struct skf_skd **skd, struct skf_why *why);
void skf_skd_free(struct skf_skd *skd);
const struct skf_skd_info *skf_skd_info(const struct skf_skd *skd);
void skf_skd_chunk(const struct skf_skd *skd, uint64_t i, struct skf_skd_chunk *c); /* i < n_chunks */
void skf_skd_side(const struct skf_skd *skd, uint64_t k, struct skf_skd_side *s);   /* k < n_sides */
/* Where the payload of this number on the wire stands (number < n_chunks + n_sides); length 0 for a chunk that has none. */
void skf_skd_payload(const struct skf_skd *skd, uint64_t number, uint64_t *offset, uint32_t *length);
/* Gives side k its payload (payload_length bytes, which the caller keeps where they are while chunks are decoded). SKF_ERR_DIGEST
 * when they have not their digest. Not while any thread decodes. */
SKF_MUST enum skf_err skf_skd_put_side(struct skf_skd *skd, uint64_t k, const uint8_t *payload, struct skf_why *why);

/* Working memory of one decoding thread. */
struct skf_delta_scratch;
SKF_MUST enum skf_err skf_delta_scratch_new(struct skf_delta_scratch **s);
void skf_delta_scratch_free(struct skf_delta_scratch *s);
/* Checks the payload's digest, makes chunk i in `out` (result_length bytes) and checks its digest. `payload` may be NULL for a
 * copy. SKF_ERR_DIGEST for a wrong payload; SKF_ERR_BASE when the payload is right and the result is not; SKF_ERR_ARG for a chunk
 * whose payload or side is not there. */
SKF_MUST enum skf_err skf_skd_decode(const struct skf_skd *skd, uint64_t i, const uint8_t *payload,
                                     const struct skf_source *source, struct skf_delta_scratch *s, uint8_t *out,
                                     struct skf_why *why);
/* The three parts of that, for callers who check several chunks at once, since digests made together take less time than one after the
 * other: _admit checks payloads (n at most SKF_SHA256_MANY); _make is for those that it found right, and what it makes is not to be relied on
 * before _check said that it has its digest, or _judge of a digest that the caller made (not for RAW chunks, whose payload it is). */
SKF_MUST enum skf_err skf_skd_admit(const struct skf_skd *skd, const uint64_t *i, const uint8_t *const *payload, unsigned n,
                                    struct skf_why *why);
SKF_MUST enum skf_err skf_skd_make(const struct skf_skd *skd, uint64_t i, const uint8_t *payload,
                                   const struct skf_source *source, struct skf_delta_scratch *s, uint8_t *out,
                                   struct skf_why *why);
SKF_MUST enum skf_err skf_skd_check(const struct skf_skd *skd, uint64_t i, const uint8_t *result, struct skf_why *why);
SKF_MUST enum skf_err skf_skd_judge(const struct skf_skd *skd, uint64_t i, const uint8_t digest[SKF_DIGEST], struct skf_why *why);

#endif
