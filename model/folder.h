/*
 * A folder of files as one content: a sharded set of safetensors, its index and what else lies beside it.
 *
 * The content is a listing and the folder's *.safetensors files one behind the other, in the order of their names.  The listing is
 * itself a safetensors file, which holds the other files (config.json, a tokenizer) as bytes: so the whole is a sharded set as
 * model.h knows it, whose tensors are found wherever they lie.  docs/formats.md fixes it.
 */
#ifndef SKF_MODEL_FOLDER_H
#define SKF_MODEL_FOLDER_H

#include "base/source.h"

#define SKF_FOLDER_FILES 512        /* at most */
#define SKF_FOLDER_NAME  220        /* bytes of a file's name at most: in the making it is longer, and file systems take 255 */
#define SKF_FOLDER_HEAD  (1u << 20) /* bytes of the listing's header at most, its length included: the first chunk of the cut holds it */

struct skf_folder;

bool is_folder(const char *path);
/* Maps the files that stand in it: those whose names begin with a dot are left out; another folder in it, or anything else that is no
 * file, is an error (SKF_ERR_UNSUPPORTED), and so are names that are not clean (SKF_ERR_FORMAT). */
SKF_MUST enum skf_err skf_folder_open(const char *path, struct skf_folder **f, struct skf_why *why);
void skf_folder_close(struct skf_folder *f); /* NULL is fine */
/* Lives as long as the folder; any number of threads may read it. */
const struct skf_source *skf_folder_source(const struct skf_folder *f);

struct skf_folder_file {
    char name[256];
    uint64_t offset, bytes; /* in the content */
};
/* The files of a content of `size` bytes whose first n bytes are these (all of them, or SKF_FOLDER_HEAD at least), in the order of
 * their offsets; freed by skf_free. *count is 0, and *files NULL, for a content that is no folder's. Hostile contents are refused:
 * what comes back are names without slashes, none twice, of files that cover the content behind the header. */
SKF_MUST enum skf_err skf_folder_list(const uint8_t *p, uint64_t n, uint64_t size, struct skf_folder_file **files,
                                      size_t *count, struct skf_why *why);

#endif
