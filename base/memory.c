/* How much memory there is to take: what the kernel says is available, and what the limits of our control groups leave. */
#include <errno.h>
#include <string.h>

#include "base/util.h"

/* The number behind `key` in a small file of "key number" lines, or its first number when key is ""; UINT64_MAX: none. */
static uint64_t number_in(const char *path, const char *key)
{
    char line[256];
    uint64_t found = UINT64_MAX;
    FILE *f = fopen(path, "re");
    if (!f)
        return found;
    while (found == UINT64_MAX && fgets(line, sizeof line, f)) {
        size_t n = strlen(key);
        char *end, *from = line + n;
        if (strncmp(line, key, n) != 0)
            continue;
        errno = 0;
        unsigned long long v = strtoull(from, &end, 10);
        if (end != from && errno == 0)
            found = v;
    }
    (void)fclose(f);
    return found;
}

/* The path of our control group, of version 2, below its mount; "" when there is none. */
static void group_path(char *out, size_t cap)
{
    char line[512];
    FILE *f = fopen("/proc/self/cgroup", "re");
    out[0] = 0;
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, "0::/", 4) == 0 && strlen(line + 3) < cap)
            memcpy(out, line + 3, strlen(line + 3) + 1);
    }
    if (f)
        (void)fclose(f);
}

uint64_t skf_memory_available(void)
{
    char group[400], path[512];
    uint64_t least = number_in("/proc/meminfo", "MemAvailable:");
    least = least == UINT64_MAX ? least : least * 1024;
    group_path(group, sizeof group);
    while (group[0] == '/') { /* a group's limit binds those below it */
        (void)snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
        uint64_t most = number_in(path, "");
        (void)snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.current", group);
        uint64_t used = number_in(path, "");
        if (most != UINT64_MAX && used != UINT64_MAX)
            least = SKF_MIN(least, most > used ? most - used : 0);
        *strrchr(group, '/') = 0;
    }
    return least;
}
