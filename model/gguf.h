/*
 * GGUF in (versions 2 and 3, which differ in nothing that is read here) and out (version 3), little-endian, every metadata type
 * (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
 * Hostile files are refused with SKF_ERR_FORMAT before anything is sized by what they claim.
 */
#ifndef SKF_MODEL_GGUF_H
#define SKF_MODEL_GGUF_H

#include "base/source.h"
#include "model/tensor.h"

enum skf_gguf_type {
    SKF_GGUF_U8, SKF_GGUF_I8, SKF_GGUF_U16, SKF_GGUF_I16, SKF_GGUF_U32, SKF_GGUF_I32, SKF_GGUF_F32, SKF_GGUF_BOOL,
    SKF_GGUF_STRING, SKF_GGUF_ARRAY, SKF_GGUF_U64, SKF_GGUF_I64, SKF_GGUF_F64
};

struct skf_str { /* bytes with a length; not NUL-terminated */
    const char *p;
    uint64_t n;
};

struct skf_gguf_value {
    enum skf_gguf_type type;  /* the element's type when is_array */
    bool is_array;            /* arrays of arrays are carried raw and cannot be read element-wise */
    uint64_t count;           /* elements; 1 for a scalar */
    const uint8_t *raw;       /* the value's bytes as they stand in the file (after type and count) */
    uint64_t raw_len;
    const struct skf_str *strings; /* when type is STRING: count of them */
};
struct skf_gguf_kv {
    struct skf_str key;
    struct skf_gguf_value value;
};

struct skf_gguf {
    uint32_t alignment;
    uint64_t data_offset;           /* where tensor data begins */
    uint64_t n_kv, n_tensors;
    struct skf_gguf_kv *kv;         /* in file order */
    struct skf_tensor *tensors;     /* in file order (directory), names NUL-terminated; offsets from the file's start */
};

/* Parses the head. The result holds views into memory that it owns or that `src` owns; both must live as long. */
SKF_MUST enum skf_err skf_gguf_parse(const struct skf_source *src, struct skf_gguf **g, struct skf_why *why);
void skf_gguf_free(struct skf_gguf *g);

/* Getters: false when the key is absent or of another kind (integers of any width are one kind). */
const struct skf_gguf_value *skf_gguf_get(const struct skf_gguf *g, const char *key);
bool is_gguf_u64(const struct skf_gguf *g, const char *key, uint64_t *v);
bool is_gguf_f64(const struct skf_gguf *g, const char *key, double *v);
bool is_gguf_bool(const struct skf_gguf *g, const char *key, bool *v);
bool is_gguf_str(const struct skf_gguf *g, const char *key, struct skf_str *v);
/* Element i of an array of numbers. */
bool is_gguf_array_u64(const struct skf_gguf_value *a, uint64_t i, uint64_t *v);
bool is_gguf_array_f64(const struct skf_gguf_value *a, uint64_t i, double *v);

/* ---- writing: metadata first, then every tensor's description, then their bytes in the same order ----------------------
 * A call that fails leaves the writer as it was; after a failed _begin, _data or _commit only skf_gguf_out_free makes sense, and
 * no file is left. SKF_ERR_STATE for a call out of order or a wrong number of bytes. One thread at a time. */
struct skf_gguf_out;
SKF_MUST enum skf_err skf_gguf_out_new(uint32_t alignment, struct skf_gguf_out **w);
void skf_gguf_out_free(struct skf_gguf_out *w); /* removes an unfinished file */
SKF_MUST enum skf_err skf_gguf_out_kv(struct skf_gguf_out *w, const struct skf_gguf_kv *kv); /* copied raw */
SKF_MUST enum skf_err skf_gguf_out_u32(struct skf_gguf_out *w, const char *key, uint32_t v);
SKF_MUST enum skf_err skf_gguf_out_str(struct skf_gguf_out *w, const char *key, const char *v);
SKF_MUST enum skf_err skf_gguf_out_tensor(struct skf_gguf_out *w, const struct skf_tensor *t); /* offset ignored */
/* Opens the file and writes the head; then give every tensor's bytes in order, in as many calls as you like. */
SKF_MUST enum skf_err skf_gguf_out_begin(struct skf_gguf_out *w, const char *path, struct skf_why *why);
SKF_MUST enum skf_err skf_gguf_out_data(struct skf_gguf_out *w, const void *p, uint64_t n, struct skf_why *why);
SKF_MUST enum skf_err skf_gguf_out_commit(struct skf_gguf_out *w, struct skf_why *why); /* whole or not at all */

#endif
