/*
 * A model's content, whatever its format: named tensors inside a run of bytes, and the way it is cut into chunks.
 *
 * GGUF v3, safetensors (one file, or those of a sharded set one behind the other), or any bytes (no tensors) as the last resort: a file whose magic says GGUF or whose start is a
 * safetensors header but that breaks the format is an error, not "any bytes".  Nothing is copied but names and metadata;
 * tensor bytes are read where they lie.  A model is immutable once opened and may be read by any number of threads.
 */
#ifndef SKF_MODEL_MODEL_H
#define SKF_MODEL_MODEL_H

#include "base/digest.h"
#include "base/source.h"
#include "base/util.h"
#include "model/gguf.h"
#include "model/tensor.h"

enum skf_format { SKF_FORMAT_BYTES, SKF_FORMAT_GGUF, SKF_FORMAT_SAFETENSORS };
const char *skf_format_name(enum skf_format f); /* bytes, gguf, safetensors */

struct skf_model;

/* Maps the file. `why` names the path. */
SKF_MUST enum skf_err skf_model_open(const char *path, struct skf_model **m, struct skf_why *why);
/* The files of a folder as one content (model/folder.h). */
SKF_MUST enum skf_err skf_model_open_folder(const char *path, struct skf_model **m, struct skf_why *why);
/* The same over bytes that lie elsewhere (a version in the store); `src` is copied, what its ctx points at must outlive
 * the model. `name` is for error lines. */
SKF_MUST enum skf_err skf_model_open_source(const struct skf_source *src, const char *name, struct skf_model **m,
                                            struct skf_why *why);
void skf_model_close(struct skf_model *m); /* NULL is fine */

enum skf_format skf_model_format(const struct skf_model *m);
const struct skf_source *skf_model_source(const struct skf_model *m);
/* Tensors in the order of their offsets; they do not overlap. NULL and 0 for any bytes. */
const struct skf_tensor *skf_model_tensors(const struct skf_model *m, size_t *n);
const struct skf_tensor *skf_model_find(const struct skf_model *m, const char *name); /* NULL when absent */
const struct skf_gguf *skf_model_gguf(const struct skf_model *m);                     /* NULL when not GGUF */

/* ---- cutting ---------------------------------------------------------------------------------------------------------
 * The cut is a function of the bytes alone, the same on every machine: the bytes before the first tensor, each tensor, and
 * each gap between and after tensors are cut by themselves; a tensor in whole rows, as many as fit 1 MiB (a row of more is cut
 * by itself, in as many whole blocks as fit 1 MiB), other bytes at 1 MiB.  No chunk is empty or over SKF_CHUNK_MAX. */
#define SKF_CHUNK_MAX (1u << 20)

struct skf_chunk {
    uint64_t offset;
    uint32_t length;
    uint8_t digest[SKF_DIGEST]; /* SHA-256 of its bytes */
};
struct skf_cut {
    struct skf_chunk *chunks; /* in order, covering every byte once */
    uint64_t n, size;
    uint8_t root[SKF_DIGEST]; /* Merkle root (base/digest.h) */
};
/* Hashes the whole model on `jobs` threads (0: one a processor). */
SKF_MUST enum skf_err skf_cut_make(const struct skf_model *m, unsigned jobs, const struct skf_progress *progress,
                                   struct skf_cut *cut, struct skf_why *why);
void skf_cut_free(struct skf_cut *cut); /* a zeroed one is fine */

#endif
