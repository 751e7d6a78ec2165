/* Path patterns: the first line is the pattern, the rest the path. No wildcard may reach over a '/'. */
#include <string.h>

#include "base/alloc.h"
#include "trust/tuf_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static size_t slashes(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += *s == '/';
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    char *text = skf_alloc(n + 1), *path;
    if (!text)
        return 0;
    if (n)
        memcpy(text, p, n);
    text[n] = 0;
    path = strchr(text, '\n');
    if (path) {
        *path++ = 0;
        if (is_tuf_match(text, path) && slashes(text) != slashes(path))
            __builtin_trap();
        (void)is_tuf_path(path);
        char name[SKF_TUF_NAME_MAX + 1];
        if (skf_tuf_file_name(name, 1, path, NULL) == SKF_OK && (strchr(name, '/') || strlen(name) > SKF_TUF_NAME_MAX))
            __builtin_trap();
    }
    skf_free(text);
    return 0;
}
