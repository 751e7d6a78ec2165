/* The client's state, shared by its workflow (client.c) and the search through delegations (find.c). */
#ifndef SKF_TRUST_CLIENT_PRIV_H
#define SKF_TRUST_CLIENT_PRIV_H

#include <limits.h>

#include "trust/tuf_priv.h"

#define SKF_TUF_ROTATIONS_MAX 256 /* new roots taken in one refresh (section 5.3.3) */
#define SKF_TUF_VISITS_MAX    32  /* roles looked at for one path (section 5.6.7.2) */
#define SKF_TUF_CACHE_MAX     64

struct skf_tuf {
    char dir[PATH_MAX];
    skf_json *root, *timestamp, *snapshot, *targets;
    bool ready; /* the four were verified together, as one consistent state of the repository */
    /* Delegated roles verified against the present snapshot, each by the very document that delegates to it: trust in a
     * role that came by one way says nothing about another way to it. */
    struct skf_tuf_seen {
        char *role;
        const skf_json *delegator; /* lives as long: targets, or a document of this list */
        skf_json *doc;
    } cache[SKF_TUF_CACHE_MAX];
    size_t n_cache;
};

/* How the workflow gets at a file that is not in the folder. */
struct skf_tuf_source {
    skf_tuf_fetch *fetch; /* NULL: there is no link, what is in the folder must do */
    void *ctx;
};

/* A targets role's metadata (top-level when role is "targets"): from the folder when that is what the snapshot lists,
 * otherwise fetched and kept. Section 5.6, and the same for delegated roles. The document is the caller's. */
SKF_MUST enum skf_err skf_tuf_load_targets(struct skf_tuf *t, int64_t now, const char *role, const skf_json *delegator,
                                           const struct skf_tuf_source *from, skf_json **doc, struct skf_why *why);
/* Without a link: the state in the folder, when it is whole and consistent; SKF_ERR_STATE when a refresh is needed
 * first. */
SKF_MUST enum skf_err skf_tuf_load_local(struct skf_tuf *t, int64_t now, struct skf_why *why);
void skf_tuf_cache_clear(struct skf_tuf *t);

#endif
