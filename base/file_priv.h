/* What the files behind file.h share. */
#ifndef SKF_BASE_FILE_PRIV_H
#define SKF_BASE_FILE_PRIV_H

#include "base/file.h"

/* Not held up by a named pipe that nobody writes to: what is no regular file is refused once it is open. */
#define FILE_READING (O_RDONLY | O_CLOEXEC | O_NONBLOCK)

/* 0, or the errno value that a test wants at this step. */
int file_hooked(const char *step, const char *path);

/* A name as it stands in a line of error: an empty one would not be seen. */
static inline const char *file_shown(const char *path) { return path[0] ? path : "''"; }

/* From now until skf_map_close what cannot be read of the map is told under this name. */
void file_map_named(const struct skf_map *m, const char *path);

/* Why a write failed: that its bytes are no longer there (they lie in the map of a file cut short) is no matter of `path`. */
SKF_MUST enum skf_err file_write_failed(const char *path, int sys, const void *bytes, struct skf_why *why);

#endif
