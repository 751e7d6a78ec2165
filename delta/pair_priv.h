/*
 * Which tensor of the old model each tensor of the new one is coded against: the one of its name, and where no name
 * fits (renamed, moved to another file of a sharded set), the one whose bytes are most alike.
 */
#ifndef SKF_DELTA_PAIR_PRIV_H
#define SKF_DELTA_PAIR_PRIV_H

#include "model/model.h"

/* *pairs has one entry for each tensor of `neu`: its counterpart of the same type and row, or NULL; freed by skf_free. Rows of a
 * counterpart stand for the same rows; either may have more. Depends on the two models' bytes alone. */
SKF_MUST enum skf_err skf_pairs_make(const struct skf_model *old, const struct skf_model *neu,
                                     const struct skf_tensor ***pairs, struct skf_why *why);

#endif
