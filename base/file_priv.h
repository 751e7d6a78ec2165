/* What the files behind file.h share. */
#ifndef SKF_BASE_FILE_PRIV_H
#define SKF_BASE_FILE_PRIV_H

#include "base/file.h"

/* 0, or the errno value that a test wants at this step. */
int file_hooked(const char *step, const char *path);

#endif
