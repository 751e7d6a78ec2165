/*
 * Models that are whole: a file that `skiff apply --in-place` was changing when it ended is neither version, and nothing in it says so.
 * Its journal does, which stands beside it (docs/formats.md).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"

enum { PAGE = 4096, RECORD = 8 };

/* Whether a batch was recorded in it, so that the file may have been written to. What is no journal by its head may be a damaged one. */
static bool has_begun(int fd)
{
    uint8_t b[RECORD];
    static const uint8_t none[RECORD];
    if (pread(fd, b, 4, 0) != 4 || memcmp(b, "SKJ\x1a", 4) != 0)
        return true;
    for (off_t k = 1; k <= 2; k++)
        if (pread(fd, b, RECORD, k * PAGE) == RECORD && memcmp(b, none, RECORD) != 0)
            return true;
    return false;
}

enum skf_err skf_cli_whole(const char *path, struct skf_why *why)
{
    char real[PATH_MAX], journal[PATH_MAX];
    struct stat st;
    if (!realpath(path, real) || snprintf(journal, sizeof journal, "%s.skiff-journal", real) >= (int)sizeof journal)
        return SKF_OK; /* told by whoever opens it */
    int fd = open(journal, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return SKF_OK;
    bool is_begun = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && has_begun(fd);
    bool is_held = is_begun && flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    (void)close(fd);
    if (!is_begun)
        return SKF_OK;
    if (is_held)
        return skf_fail(why, SKF_ERR_STATE, "%s: is being changed in place by another process (`skiff apply --in-place`); wait until it is done", path);
    return skf_fail(why, SKF_ERR_STATE, "%s: neither version: a change in place was ended early; the same `skiff apply %s DELTA --in-place` "
                    "goes on with it; or put a whole version there and remove %s", path, path, journal);
}

enum skf_err skf_cli_model_open(const char *path, struct skf_model **m, struct skf_why *why)
{
    *m = NULL;
    SKF_TRY(skf_cli_whole(path, why));
    return skf_model_open(path, m, why);
}
