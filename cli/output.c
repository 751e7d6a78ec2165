/* Where a verb's result may go: not over what it is made of, which would be lost, and may be gone before the result is known to be good. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "cli/cli.h"

static bool is_refused(const char *verb, const char *out, const char *what)
{
    struct skf_why why = {{0}};
    if (skf_fail(&why, SKF_ERR_ARG, "%s: %s: %s", verb, out[0] ? out : "''", what) != SKF_OK) /* tames the name */
        (void)fprintf(stderr, "skiff: %s\n", why.text);
    return false;
}

bool is_cli_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool is_cli_inside(const char *out, const char *folder)
{
    char dir[PATH_MAX], real[PATH_MAX], at[PATH_MAX];
    struct stat st;
    size_t n = strlen(out);
    if (n >= sizeof dir || stat(folder, &st) != 0 || !S_ISDIR(st.st_mode) || !realpath(folder, at))
        return false;
    memcpy(dir, out, n + 1);
    while (n && dir[n - 1] == '/') /* the name of a folder that is to be */
        n--;
    while (n && dir[n - 1] != '/')
        n--;
    (void)snprintf(dir + n, sizeof dir - n, "%s", n ? "" : ".");
    const size_t k = strlen(at);
    return realpath(dir, real) && strncmp(real, at, k) == 0 && (real[k] == 0 || real[k] == '/' || k == 1);
}

bool is_cli_output_free(const char *verb, const char *out, const char *const *sources, size_t n)
{
    struct stat o;
    if (!out)
        return true;
    if (!out[0])
        return is_refused(verb, out, "an output needs a name");
    if (stat(out, &o) != 0)
        return true; /* new, or told by whoever makes it */
    for (size_t i = 0; i < n; i++)
        if (sources[i] && is_cli_same_file(sources[i], out))
            return is_refused(verb, out, "it is one of the sources; write to another file");
    return S_ISREG(o.st_mode) || is_refused(verb, out, "is there and not a regular file; it is not overwritten");
}
