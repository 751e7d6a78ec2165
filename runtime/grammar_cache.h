/*
 * The grammars that a model's requests ask for: compiled once for equal texts, kept for some time.  Any thread may take one and give it
 * back; with what is taken only the stepping thread may go through texts.
 */
#ifndef SKF_RUNTIME_GRAMMAR_CACHE_H
#define SKF_RUNTIME_GRAMMAR_CACHE_H

#include "runtime/engine.h"
#include "runtime/grammar_priv.h"

struct skf_grammars;
struct skf_kept; /* a grammar that is in use */
SKF_MUST enum skf_err skf_grammars_new(const struct skf_tokenizer *tk, struct skf_grammars **gs);
void skf_grammars_free(struct skf_grammars *gs); /* all have been given back */
/* SKF_ERR_ARG, SKF_ERR_LIMIT with what is wrong with the text; SKF_ERR_BUSY when those in use take too much memory. */
SKF_MUST enum skf_err skf_grammars_take(struct skf_grammars *gs, enum skf_form form, const char *text, size_t n, struct skf_kept **k,
                                        struct skf_why *why);
void skf_grammars_put(struct skf_grammars *gs, struct skf_kept *k); /* NULL is fine */
struct skf_grammar *skf_kept_grammar(const struct skf_kept *k);
const struct skf_vocab *skf_grammars_vocab(const struct skf_grammars *gs); /* there once one was taken */

#endif
