/*
 * Mapped files (file.h), and which file a map is of: an address that cannot be read any more is all that a signal handler is told, and
 * a line of error names its file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_priv.h"
#include "base/util.h"

#define HOLES_MAX 4096       /* each is a mapping of its own, of which a process may have 65,530 */
#define HOLE_MIN (1u << 20)
#define NAMES_MAX 64
#define NAME 256

/* Read by signal handlers: an entry is of use once `from` is set, and its other fields are written while it is TAKEN. */
enum { EMPTY = 0, TAKEN = 1 };
static struct {
    atomic_uintptr_t from;
    uintptr_t end;
    char name[NAME];
} maps[NAMES_MAX];

void file_map_named(const struct skf_map *m, const char *path)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE); /* not in the handler, where it is not to be called */
    for (size_t i = 0; i < NAMES_MAX; i++) {
        uintptr_t is = EMPTY;
        if (!atomic_compare_exchange_strong(&maps[i].from, &is, TAKEN))
            continue;
        maps[i].end = (uintptr_t)m->data + (m->size + page - 1) / page * page;
        (void)snprintf(maps[i].name, NAME, "%.*s", NAME - 1, path);
        atomic_store(&maps[i].from, (uintptr_t)m->data);
        return;
    }
}

static void forget(const struct skf_map *m)
{
    for (size_t i = 0; i < NAMES_MAX; i++) {
        uintptr_t is = (uintptr_t)m->data;
        if (atomic_compare_exchange_strong(&maps[i].from, &is, EMPTY))
            return;
    }
}

bool has_map_name(const void *p, char *name, size_t cap)
{
    uintptr_t at = (uintptr_t)p;
    for (size_t i = 0; i < NAMES_MAX; i++) {
        uintptr_t from = atomic_load(&maps[i].from);
        if (from <= TAKEN || at < from || at >= maps[i].end)
            continue;
        size_t n = 0;
        for (; n + 1 < cap && n < NAME && maps[i].name[n]; n++)
            name[n] = maps[i].name[n];
        name[n] = 0;
        return n > 0;
    }
    return false;
}

enum skf_err file_write_failed(const char *path, int sys, const void *bytes, struct skf_why *why)
{
    char name[NAME];
    if (sys == EFAULT && has_map_name(bytes, name, sizeof name))
        return skf_fail(why, SKF_ERR_IO, "%s: became shorter while it was read, or its disk fails", name);
    return skf_fail_errno(why, sys, "%s: cannot be written", path);
}

/* Holes of a sparse file are mapped as the zeros that they are: read through the file they would fill memory with pages of zeros.
 * Where that does not work out they stay as they are. */
static void map_holes(int fd, uint8_t *p, uint64_t size)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), at = 0;
    for (unsigned n = 0; n < HOLES_MAX && at < size; n++) {
        off_t hole = lseek(fd, (off_t)at, SEEK_HOLE), end;
        if (hole < 0 || (uint64_t)hole >= size)
            return;
        end = lseek(fd, hole, SEEK_DATA);
        uint64_t from = ((uint64_t)hole + page - 1) / page * page, to = end < 0 ? size : (uint64_t)end;
        if (end < 0 && errno != ENXIO)
            return;
        if (to >= from + HOLE_MIN &&
            mmap(p + from, to / page * page - from, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
            return;
        at = to;
    }
}

enum skf_err skf_map_open(const char *path, struct skf_map *m, struct skf_why *why)
{
    *m = (struct skf_map){NULL, 0};
    int fd = open(path, FILE_READING);
    if (fd < 0)
        return skf_fail_errno(why, errno, "%s", file_shown(path));
    struct stat st;
    enum skf_err e = SKF_OK;
    if (fstat(fd, &st) != 0) {
        e = skf_fail_errno(why, errno, "%s", path);
    } else if (!S_ISREG(st.st_mode)) {
        e = skf_fail(why, SKF_ERR_ARG, "%s: not a regular file", path);
    } else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            e = skf_fail_errno(why, errno, "%s: cannot be mapped", path);
        else
            *m = (struct skf_map){p, (uint64_t)st.st_size};
        if (m->data)
            file_map_named(m, path);
        if (m->data && st.st_blocks < st.st_size / 512)
            map_holes(fd, p, m->size);
    }
    (void)close(fd);
    return e;
}

void skf_map_close(struct skf_map *m)
{
    if (!m->data)
        return;
    forget(m);
    (void)munmap((void *)(uintptr_t)m->data, m->size);
    *m = (struct skf_map){NULL, 0};
}

struct skf_source skf_map_source(const struct skf_map *m)
{
    struct skf_source s = skf_source_of(m->data, m->size);
    s.idle = skf_map_idle;
    return s;
}

void skf_map_idle(void *ctx, const uint8_t *p, uint64_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = ((uintptr_t)p + page - 1) / page * page, to = ((uintptr_t)p + n) / page * page;
    if (from < to)
        (void)madvise((void *)from, to - from, MADV_DONTNEED);
}
