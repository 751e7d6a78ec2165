/*
 * An importance matrix: for each matrix the mean square of every input it is multiplied with on some text, by which errors of
 * its columns are weighed.  Read from llama.cpp's files, GGUF or the older binary form, or gathered by the caller.
 */
#ifndef SKF_MODEL_IMATRIX_H
#define SKF_MODEL_IMATRIX_H

#include "base/source.h"

struct skf_imatrix;

SKF_MUST enum skf_err skf_imatrix_new(struct skf_imatrix **im);
/* SKF_ERR_FORMAT for a file that is neither, or whose sums or counts are negative or not finite. `why` names the path. */
SKF_MUST enum skf_err skf_imatrix_open(const char *path, struct skf_imatrix **im, struct skf_why *why);
/* The same over bytes that lie elsewhere; `name` is for error lines. */
SKF_MUST enum skf_err skf_imatrix_open_source(const struct skf_source *src, const char *name, struct skf_imatrix **im,
                                              struct skf_why *why);
void skf_imatrix_close(struct skf_imatrix *im); /* NULL is fine */

/* Adds rows x columns inputs of a matrix. SKF_ERR_ARG when it had another number of columns before. */
SKF_MUST enum skf_err skf_imatrix_add(struct skf_imatrix *im, const char *tensor, const float *x, size_t rows, size_t columns);

size_t skf_imatrix_count(const struct skf_imatrix *im);
/* Points *mean_squares at `n` values, columns by columns for the matrices of a tensor of three dimensions; false when the tensor is
 * not there. They live until the next _add. */
bool is_imatrix_for(struct skf_imatrix *im, const char *tensor, const float **mean_squares, size_t *n);

/* Writes what was gathered as llama.cpp's GGUF form, whole or not at all; `text` is what it was gathered on, `tokens` how many.
 * SKF_ERR_ARG when nothing was gathered. */
SKF_MUST enum skf_err skf_imatrix_save(const struct skf_imatrix *im, const char *path, const char *text, size_t tokens,
                                       struct skf_why *why);

#endif
