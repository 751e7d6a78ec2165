/*
 * Adapters that come with a publication: what a publisher says makes his new version of an older one.
 *
 * An adapter is a hint for the delta's encoder and nothing else.  It is not signed, no box sees it, and whatever stands in
 * it the delta makes the published bytes: each chunk is decoded again before it is taken, and boxes check every digest.
 * An adapter that does not fit costs the time of a build.
 */
#ifndef SKF_DISTRIBUTOR_ADAPTERS_H
#define SKF_DISTRIBUTOR_ADAPTERS_H

#include "delta/delta.h"
#include "distributor/chunks.h"
#include "distributor/registry.h"
#include "proto/operator.pb-c.h"

/* Checks what a publication of `v` says of its adapter; the caller clears *out. SKF_ERR_NOT_FOUND for a base that is not
 * published. */
SKF_MUST enum skf_err skf_adapters_take(struct skf_registry *r, const Skiff__V1__PublishAdapter *a,
                                        const struct skf_reg_version *v, struct skf_reg_adapter *out,
                                        struct skf_why *why);
/* What became of the adapter of a delta: "used", why it was not, or "" where there was none. */
void skf_adapters_said(struct skf_registry *r, const struct skf_reg_delta *d, char said[SKF_ADAPTER_SAID]);
/* Writes the delta to `path` with the adapter's help where that makes it smaller (*is_made); otherwise `said` is why not,
 * and whatever stands at `path` is to be written anew. An error only for what would end any build. */
SKF_MUST enum skf_err skf_adapters_try(struct skf_chunks *c, const struct skf_reg_adapter *a,
                                       const struct skf_model *old, const struct skf_model *neu, const char *path,
                                       const struct skf_delta_opts *opts, char said[SKF_ADAPTER_SAID], bool *is_made,
                                       struct skf_why *why);

#endif
