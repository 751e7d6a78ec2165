/* Memory that lies on disk (scratch.h). */
#include "cli/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PATH_SPACE = 4096 };

enum skf_err skf_scratch_open(const char *beside, uint64_t size, struct skf_scratch *s, struct skf_why *why)
{
    char path[PATH_SPACE];
    int n = snprintf(path, sizeof path, "%s.XXXXXX", beside);
    *s = (struct skf_scratch){0};
    if (n < 0 || (size_t)n >= sizeof path || size == 0 || size > INT64_MAX / 2)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: no scratch file beside it", beside);
    int fd = mkstemp(path);
    if (fd < 0)
        return skf_fail_errno(why, errno, "%s", beside);
    (void)unlink(path);
    enum skf_err e = SKF_OK;
    int wrong = posix_fallocate(fd, 0, (off_t)size);
    void *p = wrong ? MAP_FAILED : mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        e = skf_fail_errno(why, wrong ? wrong : errno, "%s: a scratch file of %llu bytes beside it", beside, (unsigned long long)size);
    else
        *s = (struct skf_scratch){p, (size_t)size};
    (void)close(fd);
    return e;
}

void skf_scratch_close(struct skf_scratch *s)
{
    if (s->p)
        (void)munmap(s->p, s->size);
    *s = (struct skf_scratch){0};
}
