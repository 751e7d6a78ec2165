/* What applying beside and applying in place share. */
#ifndef SKF_DELTA_APPLY_PRIV_H
#define SKF_DELTA_APPLY_PRIV_H

#include "base/file.h"
#include "delta/delta.h"

struct apply_worker {
    struct skf_delta_scratch *scratch;
    uint8_t *out; /* one chunk */
    struct skf_sha256_queue *queue; /* of what stands in the draft and is to be checked yet: */
    struct apply_pending {
        uint64_t chunk;
        bool is_taken;
        uint8_t digest[SKF_DIGEST];
    } pending[SKF_SHA256_MANY];
    uint32_t zeros; /* so many bytes of 0 have this digest; 0: not known yet */
    uint8_t zeros_digest[SKF_DIGEST];
};
struct apply {
    const char *old_path, *skd_path, *out_path, *also_path; /* also_path: NULL for none */
    struct skf_map old, file, also;
    struct skf_source own, source; /* OLD; and what chunks read: OLD, and behind it what else the delta takes from */
    struct skf_source_pair both;
    struct skf_folder *also_folder; /* where that is a folder */
    struct skf_skd *skd;
    const struct skf_skd_info *info;
    struct skf_draft *draft;
    struct skf_map written; /* the draft */
    uint8_t index_digest[SKF_DIGEST], root[SKF_DIGEST]; /* the root once has_apply_root said so */
    uint32_t piece; /* bytes that a worker's `out` holds */
    bool is_begun; /* a run that ended early left chunks in the draft */
    struct apply_worker *workers;
    unsigned jobs, lanes; /* lanes: chunks that are hashed at once */
    uint64_t groups;      /* of so many chunks, before those that are taken one by one */
    const struct skf_progress *progress;
    uint64_t total; /* bytes of all that is to be done, for the progress */
    atomic_uint_fast64_t done;
};

/* Maps and checks the delta, as far as it can be without its chunks, and takes the threads' memory. */
SKF_MUST enum skf_err apply_open(struct apply *a, struct skf_why *why);
/* Maps the source, which must have its size, and joins. */
SKF_MUST enum skf_err apply_open_source(struct apply *a, struct skf_why *why);
/* Makes `source` of `own`, and of the other version that the delta takes from, if any. */
SKF_MUST enum skf_err apply_join(struct apply *a, struct skf_why *why);
void apply_close(struct apply *a);
/* Makes chunk i in the worker's `out`, with its right digest. A file cut short under us is an error. */
SKF_MUST enum skf_err apply_make(struct apply *a, unsigned worker, uint64_t i, struct skf_why *why);
/* Finds the source's root (a->root), whatever can be read of it; false when it cannot be told. */
bool has_apply_root(struct apply *a);
/* What a chunk that did not come out means: another source, or a delta that never worked. */
SKF_MUST enum skf_err apply_name_failure(struct apply *a, struct skf_why *why);
void apply_tell(struct apply *a, uint64_t bytes); /* so much more is done */
void apply_stats(const struct apply *a, uint64_t begun_ns, struct skf_delta_stats *stats);

#endif
