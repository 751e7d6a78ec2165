/*
 * What the files that load a decoder share: arch.c reads the metadata, rope.c how positions turn, llama.c the tensors.
 */
#ifndef SKF_RUNTIME_LLAMA_LOAD_PRIV_H
#define SKF_RUNTIME_LLAMA_LOAD_PRIV_H

#include "runtime/llama_priv.h"

struct load {
    const struct skf_model *m;
    const struct skf_gguf *g;
    const struct skf_tensor *tensors;
    size_t n_tensors;
    bool *is_used;
    struct skf_llama *l;
    struct skf_why *why;
};

#define SKF_KEY 96 /* room for a key of the architecture */
/* The key <architecture>.<what>. */
const char *skf_load_key(const struct load *d, const char *what, char key[SKF_KEY]);
/* A size from the metadata, least to most; `otherwise` where the key may be absent, SKF_MUST_SAY where it may not. */
#define SKF_MUST_SAY UINT64_MAX
SKF_MUST enum skf_err skf_load_size(const struct load *d, const char *what, uint64_t least, uint64_t most, uint64_t otherwise, uint32_t *out);
/* A number of the metadata that may be absent (*v stays), least to most, no NaN. */
SKF_MUST enum skf_err skf_load_real(const struct load *d, const char *what, double least, double most, double *v);

/* The architecture, sizes, scales and caps; that no key of the architecture is left that this build does not know. */
SKF_MUST enum skf_err skf_load_head(const struct load *d);
/* Which layers see a window and how each turns, once d->l->layers is there. */
SKF_MUST enum skf_err skf_load_layers(const struct load *d);
/* Bases and scaling, from the metadata; then the factors, from tensors. */
SKF_MUST enum skf_err skf_load_ropes(const struct load *d);
SKF_MUST enum skf_err skf_load_rope_factors(const struct load *d);

/* A small tensor as floats of our own. */
SKF_MUST enum skf_err skf_load_vector(const struct load *d, const char *name, uint32_t n, float **out);

#endif
