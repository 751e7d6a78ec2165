/*
 * Quality of models on one text: perplexity as `skiff perplexity` counts it, of many models that share a tokenizer, one after the
 * other.  For the searches that weigh bytes against quality.
 */
#ifndef SKF_CLI_QUALITY_H
#define SKF_CLI_QUALITY_H

#include "base/util.h"
#include "model/model.h"

struct skf_quality;
/* Reads the text and makes tokens of it by m's tokenizer, of a longer one the first 512 windows. SKF_ERR_ARG when it does not fill one
 * window (512 tokens, or the model's context). m is not kept, `text` is. */
SKF_MUST enum skf_err skf_quality_open(const struct skf_model *m, const char *text, unsigned jobs, struct skf_quality **q,
                                       struct skf_why *why);
void skf_quality_close(struct skf_quality *q); /* NULL is fine */
/* Perplexity of a model with the same vocabulary; `name` is for what goes wrong. `progress` is only asked whether to stop (SKF_ERR_CANCELLED). The value does not
 * depend on the number of threads. */
SKF_MUST enum skf_err skf_quality_measure(const struct skf_quality *q, const struct skf_model *m, const char *name,
                                          const struct skf_progress *progress, double *perplexity, struct skf_why *why);
void skf_quality_note(const struct skf_quality *q); /* says on stderr that the text is longer than what was used of it; NULL is fine */
uint64_t skf_quality_tokens(const struct skf_quality *q); /* how many are scored */

#endif
