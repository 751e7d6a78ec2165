/*
 * The manifest of a version (proto/manifest.proto): made where a version is published, checked wherever one comes from
 * outside.
 */
#ifndef SKF_DISTRIBUTOR_MANIFEST_H
#define SKF_DISTRIBUTOR_MANIFEST_H

#include "distributor/chunks.h"
#include "distributor/registry.h"
#include "model/model.h"
#include "proto/manifest.pb-c.h"

#define SKF_MANIFEST_FORMAT    1
#define SKF_MANIFEST_MAX       ((4u << 20) - (64u << 10)) /* it travels in one message */
#define SKF_MANIFEST_NOTES_MAX 4096

struct skf_manifest_opts {
    const char *model, *version, *file; /* the file's name, without its folder */
    const char *notes;                  /* may be NULL */
    int64_t created;                    /* unix seconds */
};
/* Packed; the caller frees *p with skf_free. SKF_ERR_LIMIT for a model whose manifest would not fit one message. */
SKF_MUST enum skf_err skf_manifest_make(const struct skf_model *m, const struct skf_cut *cut,
                                        const struct skf_manifest_opts *o, uint8_t **p, size_t *n, struct skf_why *why);
/* Unpacks and checks everything that can be checked without the content: names, sizes, ranges, that the chunks come to
 * the root. Free with skf_manifest_free. */
SKF_MUST enum skf_err skf_manifest_read(const void *p, size_t n, Skiff__V1__Manifest **m, struct skf_why *why);
void skf_manifest_free(Skiff__V1__Manifest *m); /* NULL is fine */
/* A view of the manifest's chunks; lives as long as it. */
struct skf_chunk_list skf_manifest_chunks(const Skiff__V1__Manifest *m);
void skf_manifest_version(const Skiff__V1__Manifest *m, struct skf_reg_version *v);

#endif
