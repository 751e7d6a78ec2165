/* Where a verb's result may go: not over what it is made of, which would be lost, and may be gone before the result is known to be good. */
#include <stdio.h>
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

bool is_cli_output_free(const char *verb, const char *out, const char *const *sources, size_t n)
{
    struct stat o, s;
    if (!out)
        return true;
    if (!out[0])
        return is_refused(verb, out, "an output needs a name");
    if (stat(out, &o) != 0)
        return true; /* new, or told by whoever makes it */
    for (size_t i = 0; i < n; i++)
        if (sources[i] && stat(sources[i], &s) == 0 && s.st_dev == o.st_dev && s.st_ino == o.st_ino)
            return is_refused(verb, out, "it is one of the sources; write to another file");
    return S_ISREG(o.st_mode) || is_refused(verb, out, "is there and not a regular file; it is not overwritten");
}
