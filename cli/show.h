/* What `skiff show` says of each kind of file, as JSON; the text form is printed from the same values. */
#ifndef SKF_CLI_SHOW_H
#define SKF_CLI_SHOW_H

#include "base/file.h"
#include "base/json.h"
#include "base/util.h"

/* Each makes a new object in *out (NULL on failure). */
SKF_MUST enum skf_err skf_show_model(const char *path, bool with_root, const struct skf_progress *progress, skf_json **out,
                                     struct skf_why *why);
SKF_MUST enum skf_err skf_show_skd(const char *path, const struct skf_map *map, skf_json **out, struct skf_why *why);
SKF_MUST enum skf_err skf_show_manifest(const char *path, const struct skf_map *map, skf_json **out, struct skf_why *why);

/* The plan of a GGUF model's forward pass over so many tokens at once, and its text form. */
SKF_MUST enum skf_err skf_show_plan(const char *path, uint32_t tokens, skf_json **out, struct skf_why *why);
void skf_show_plan_text(const skf_json *o);

/* A digest as hexadecimal. */
SKF_MUST enum skf_err skf_show_digest(skf_json *obj, const char *key, const uint8_t *digest);
/* Bytes of a file that may not be text: UTF-8 as it is, otherwise with ? for what is none. */
skf_json *skf_show_text(const char *p, uint64_t n);

#endif
