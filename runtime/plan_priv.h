/*
 * A plan's making, for the graph (plan.h).
 */
#ifndef SKF_RUNTIME_PLAN_PRIV_H
#define SKF_RUNTIME_PLAN_PRIV_H

#include "runtime/llama_priv.h"
#include "runtime/plan.h"

/* SKF_ERR_LIMIT when the sizes are beyond what can be addressed. */
SKF_MUST enum skf_err skf_plan_make(const struct skf_llama *l, uint32_t tokens, struct skf_plan *p, struct skf_why *why);
/* Points the activations at their part of the arena, whose first byte is at `arena`. */
void skf_plan_acts(const struct skf_plan *p, const struct skf_llama *l, uint8_t *arena, struct skf_acts *a);

#endif
