/* What the builder's files share: the plan of a delta in the making. */
#ifndef SKF_DELTA_BUILD_PRIV_H
#define SKF_DELTA_BUILD_PRIV_H

#include <pthread.h>

#include "delta/int_priv.h"
#include "delta/locate_priv.h"
#include "delta/lz_priv.h"
#include "delta/region_priv.h"
#include "delta/skd_priv.h"

/* Threads that encode, and zstd contexts with large tables among them: together with the areas of each they stay in 64 MiB. */
#define BUILD_JOBS 4
#define BUILD_HEAVY 4

/* Payloads in the order in which threads finish them, in a file that has no name. */
struct build_spool {
    int fd; /* -1: nothing is kept, only counted */
    atomic_uint_fast64_t end;
    const char *beside; /* what it will be, for what goes wrong; kept by reference */
};
SKF_MUST enum skf_err build_spool_open(struct build_spool *s, const char *beside, struct skf_why *why);
void build_spool_close(struct build_spool *s);
SKF_MUST enum skf_err build_spool_put(struct build_spool *s, const void *p, size_t n, uint64_t *at, struct skf_why *why);
SKF_MUST enum skf_err build_spool_get(const struct build_spool *s, uint64_t at, void *p, size_t n, struct skf_why *why);

struct build_heavy { /* a context with large tables, shared by the workers whose number is the same modulo BUILD_HEAVY */
    pthread_mutex_t lock;
    struct skf_zenc *enc;
    struct skf_area source, match;
    struct skf_region_room room;
    struct skf_buf trial, out;
};
struct build_side { /* of one tensor; zeroed when it has none */
    uint8_t *p;             /* n bytes, here until the tensor's last chunk is coded */
    uint32_t n;
    uint8_t coding;         /* the chunks that it is for */
    uint8_t digest[SKF_DIGEST];
    uint64_t spooled;
    atomic_uint_fast64_t left; /* chunks of the tensor that are not coded yet */
};
struct build_worker {
    struct skf_work work;
    struct skf_buf out, trial;
    struct skf_area neu, old, best, check;
    struct skf_region_room room;
    struct skd_range ranges[SKD_RANGES_MAX]; /* of the best, when it is MIXED */
    uint32_t n_ranges;
    struct skf_area adapter, place; /* adapter_put.c */
};
struct build_pack { /* a piece of several chunks, or of one */
    uint64_t first;
    uint32_t chunks, bytes;
    uint32_t n; /* bytes of its side; 0: packing it does not pay */
    uint8_t digest[SKF_DIGEST];
    uint64_t spooled;
};
#define BUILD_PACKERS 3 /* threads that pack; one where pieces are long */
struct build_packer {
    struct skf_buf out;
    struct skf_area neu;
};
struct candidate { /* a way to code a chunk; its payload is in the worker's `best` */
    uint8_t coding;
    size_t n; /* payload bytes */
    uint64_t source_offset, source_length;
};
struct build {
    const struct skf_model *old, *neu;
    const struct skf_model *also;      /* another version that receivers have; NULL for none */
    const struct skf_source *old_source, *neu_source; /* old_source: with `also` behind it */
    struct skf_source_pair both;
    struct skf_source joined;
    struct skf_cut also_cut;
    struct skf_tensor *also_tensors; /* its tensors at their places in old_source */
    struct skf_cut old_cut, neu_cut;
    const struct skf_tensor **pairs; /* for each tensor of neu: that of old (or of `also`) it is coded against, or NULL */
    const struct skf_tensor *tensors;
    size_t n_tensors;
    struct build_side *sides; /* one for each tensor */
    uint64_t side_bytes;      /* of those that are written */
    const struct skf_adapter *adapter; /* NULL for none */
    uint8_t *adapted;         /* adapter_put.c: a byte a tensor, under adapter_lock */
    pthread_mutex_t adapter_lock;
    struct skd_out_chunk *chunks; /* one for each chunk of neu_cut */
    uint64_t *spooled;            /* where its payload lies in the spool */
    uint32_t *tensor_of;          /* its tensor's number, or SKD_NO_TENSOR */
    struct skf_anchors *anchors;  /* NULL when every chunk has its place */
    struct build_spool spool;
    struct build_heavy heavy[BUILD_HEAVY];
    struct build_worker *workers;
    uint32_t *alone;          /* what the fastest zstd makes of the chunk; 0: not tried, or noise */
    struct build_pack *packs; /* in order of their places */
    uint64_t n_packs, may_pack; /* may_pack: the most bytes that could be */
    struct build_packer packer[BUILD_PACKERS];
    unsigned jobs;
    int level;
    const struct skf_progress *progress; /* of the stage, which `pace` makes part of the whole: */
    struct skf_progress pace;
    const struct skf_progress *whole;
    uint64_t before, step, all; /* what the stages before came to, bytes of this one that count as one, and what all will come to */
    atomic_uint_fast64_t done;
};

/* Gives the tensor (by its number) the payload that its chunks of this coding share: copied, at most one a tensor, before any of
 * its chunks is coded. It is written only when some chunk was coded so. */
SKF_MUST enum skf_err build_add_side(struct build *b, uint32_t tensor, enum skf_coding coding, const uint8_t *p, size_t n,
                                     struct skf_why *why);
/* The side that a chunk of tensor t takes when it is coded so; NULL and 0 when there is none. */
const uint8_t *build_side_of(const struct build *b, uint32_t t, enum skf_coding coding, size_t *n);

/* Chunk i, `within` the tensor `from` of the source, as rows merged with the adapter, where that is less than *c. */
SKF_MUST enum skf_err build_try_adapter(struct build *b, struct build_worker *w, uint64_t i, const struct skf_tensor *from,
                                        uint64_t within, const uint8_t *neu, size_t n, struct candidate *c,
                                        struct skf_why *why);
/* Finds what the chunks of a tensor may share, and gives it to the tensor. */
SKF_MUST enum skf_err build_find_side(struct build *b, unsigned worker, uint64_t tensor, struct skf_why *why);

/* encode_any.c: tries what does not depend on a tensor: zstd by itself and with ranges of the source, regions where the content is unknown. */
SKF_MUST enum skf_err build_try_any(struct build *b, unsigned worker, uint64_t i, const uint8_t *neu, size_t n,
                                    struct candidate *c);
/* pack.c: which chunks that were coded may be packed together, and how many threads may do that; then piece k, which takes the place of its
 * chunks' codings where it is smaller. */
SKF_MUST enum skf_err build_plan_packs(struct build *b, unsigned *jobs, uint64_t *bytes);
SKF_MUST enum skf_err build_pack_piece(struct build *b, unsigned worker, uint64_t k, struct skf_why *why);
void build_free_packs(struct build *b);
/* Makes a mixed payload the worker's best, once it has been undone again. */
SKF_MUST enum skf_err build_take_mixed(struct build_worker *w, struct skf_region_room *room, const struct skf_buf *payload,
                                       const struct skd_range *ranges, uint32_t n_ranges, const uint8_t *neu, size_t n,
                                       const uint8_t *prefix, struct candidate *c);

/* What the source has under tensor t's name, of another type that its own can be made of; NULL when it has a counterpart, or there is none. */
const struct skf_tensor *build_cast_of(const struct build *b, uint32_t t);

/* also.c: what another version that receivers have is good for. Puts it behind the source; forgets it where it is the same; */
void build_join(struct build *b);
SKF_MUST enum skf_err build_cut_also(struct build *b, struct skf_why *why);
/* gives tensors the counterparts there that they are nearer to; */
SKF_MUST enum skf_err build_pair_also(struct build *b, struct skf_why *why);
/* and whether anything is made of it. */
bool is_also_used(const struct build *b);

/* Chooses and makes the coding of chunk i (its record, spooled payload and digests). */
SKF_MUST enum skf_err build_chunk(struct build *b, unsigned worker, uint64_t i, struct skf_why *why);

#endif
