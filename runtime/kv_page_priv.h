/*
 * The pages themselves, for the files that keep them: kv.c has them and their index, kv_file.c writes and reads those that outlive a worker.
 */
#ifndef SKF_RUNTIME_KV_PAGE_PRIV_H
#define SKF_RUNTIME_KV_PAGE_PRIV_H

#include "runtime/kv_priv.h"

struct skf_page {
    uint8_t *data;                     /* NULL: put aside */
    struct skf_page *parent;           /* that of the positions before; NULL: the first */
    struct skf_page *children, *sibling; /* listed pages behind this one */
    struct skf_page *in_bucket;        /* the next listed page of its hash */
    struct skf_page *older, *newer;    /* in the line of pages that no sequence holds, in memory or not */
    uint64_t hash;
    uint32_t refs, n;                  /* sequences that hold it; tokens that are there */
    uint32_t number;                   /* in a file that is written */
    uint32_t slot;                     /* where it was put aside */
    bool is_listed, is_pinned, is_aside; /* is_aside: data is NULL */
    uint8_t root[SKF_DIGEST];          /* what it was computed with besides the model: the sequence's */
    int32_t token[SKF_KV_PAGE];
};
struct line {
    struct skf_page *oldest, *newest;
};
struct skf_pages {
    const struct skf_llama *l;
    uint32_t most_pages;               /* of a sequence */
    enum skf_kv_type type;
    size_t head_bytes, page_bytes;
    uint64_t keep, most, seed;
    struct skf_page *first;            /* listed pages of first positions: siblings */
    struct skf_page **bucket;
    uint32_t n_buckets, n_listed;
    struct line kept, aside;           /* pages that no sequence holds: in memory, in the file */
    struct skf_spill *spill;           /* NULL: what memory does not keep is gone */
    struct skf_pages_stats stats;
};

/* One page's data, for which kept ones may go; counted. NULL: no memory. */
uint8_t *skf_page_data(struct skf_pages *p);
uint64_t skf_page_hash(const struct skf_pages *p, const struct skf_page *parent, const int32_t *token);
/* The full listed page behind `parent` with these tokens; NULL: none. */
struct skf_page *skf_page_find(const struct skf_pages *p, const uint8_t *root, const struct skf_page *parent, const int32_t *token, uint64_t hash);
/* Lists a page; one that is not full is only found among its siblings, and its hash does not matter. */
void skf_page_list(struct skf_pages *p, struct skf_page *g, uint64_t hash);
/* One sequence less holds it: it is kept, if it is listed, as the newest. */
void skf_page_let_go(struct skf_pages *p, struct skf_page *g);

#endif
