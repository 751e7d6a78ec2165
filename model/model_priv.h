/*
 * What the readers of this folder share and nobody else sees: checks of what a hostile file may call its tensors, and the
 * bounds on what a head may make us allocate.
 */
#ifndef SKF_MODEL_MODEL_PRIV_H
#define SKF_MODEL_MODEL_PRIV_H

#include "base/source.h"
#include "model/gguf.h"
#include "model/tensor.h"

/* The largest vocabularies make heads of some 20 MB; these bounds are far above them and far below what hurts. */
#define SKF_HEAD_MAX (256u << 20)      /* bytes of a GGUF head */
#define SKF_JSON_MAX (16u << 20)       /* bytes of a safetensors header: a hostile one is parsed into 20 times as much */
#define SKF_TENSORS_MAX (1u << 20)
#define SKF_KV_MAX (1u << 16)
#define SKF_STRINGS_MAX (1u << 23)     /* strings of all arrays together */
#define SKF_NAME_MAX 1024              /* bytes of a tensor's name or of a key */

/* How much of a name an error line shows. */
#define SKF_MIN_NAME(n) ((n) < 96 ? (n) : 96)

/* Valid UTF-8 without control characters, at most SKF_NAME_MAX bytes: safe in a log line, in JSON and in a manifest. */
bool is_clean_name(const char *p, uint64_t n);
/* Points *again at a name that stands twice among `n` of them; `v` is sorted in place. */
bool has_duplicate(struct skf_str *v, uint64_t n, struct skf_str *again);

/* Fills bytes and row_bytes from type and dims; SKF_ERR_FORMAT when a row is not whole blocks or the size overflows. */
SKF_MUST enum skf_err skf_tensor_size(struct skf_tensor *t, struct skf_why *why);

/* Whether the source starts with a safetensors header (a length and an opening brace), whole or not. */
bool is_safetensors(const struct skf_source *src);
/* Reads the header. *tensors (in the order of the header) and *names are freed with skf_free. */
SKF_MUST enum skf_err skf_safetensors_parse(const struct skf_source *src, struct skf_tensor **tensors, size_t *n,
                                            char **names, struct skf_why *why);

#endif
