/* What `skiff diff` can tell of a delta: a table a tensor, and what other ways would have cost. */
#ifndef SKF_CLI_DIFF_H
#define SKF_CLI_DIFF_H

#include "base/json.h"
#include "delta/delta.h"

/* Sets what every verb tells that makes or applies a delta: "bytes", "source_root", "result_root", "also_root" where there is one, "seconds",
 * "chunks". NULL: SKF_ERR_NOMEM. */
SKF_MUST enum skf_err skf_delta_json(const struct skf_delta_stats *s, skf_json *to);

/* --explain: `sort` is NULL or "file", "sent", "bytes", "bits", "name". */
bool is_explain_sort(const char *sort);
struct skf_explain;
SKF_MUST enum skf_err skf_explain_make(const char *skd_path, const struct skf_model *neu, const char *sort,
                                       struct skf_explain **x, struct skf_why *why);
void skf_explain_free(struct skf_explain *x); /* NULL is fine */
void skf_explain_print(const struct skf_explain *x);
SKF_MUST enum skf_err skf_explain_json(const struct skf_explain *x, skf_json *to); /* sets "tensors" */

/* --plan: the ways, and the same delta without the adapter when one was given. */
struct skf_diff_plan {
    struct skf_delta_way ways[SKF_WAYS];
    bool has_adapter, has_changes;
    struct skf_delta_way without; /* the adapter */
    uint64_t adapter_chunks;
};
void skf_plan_print(const struct skf_diff_plan *p, const struct skf_delta_stats *s);
SKF_MUST enum skf_err skf_plan_json(const struct skf_diff_plan *p, skf_json *to); /* sets "ways", "chosen", "why" */

#endif
