/*
 * Which role may speak for which path (TUF 1.0 section 4.5).  Patterns are matched segment by segment, as python-tuf
 * does: a wildcard never reaches over a '/', so that a pattern for deltas/x says nothing about deltas/a/b or models/x.
 * Written out because libc's fnmatch backtracks without a bound; this one takes time of at most pattern times path.
 */
#include <string.h>

#include "trust/tuf_priv.h"

/* One set: p at '['. Gives what follows it, or NULL when it never closes (then '[' is a plain character). */
static const char *match_set(const char *p, const char *end, unsigned char c, bool *hit)
{
    const char *q = p + 1;
    bool negated = q < end && *q == '!', found = false;
    if (negated)
        q++;
    const char *close = q < end && *q == ']' ? q + 1 : q; /* a ']' that comes first is a member */
    while (close < end && *close != ']')
        close++;
    if (close >= end)
        return NULL;
    while (q < close) {
        unsigned char lo = (unsigned char)*q, hi = lo;
        if (q + 2 < close && q[1] == '-') {
            hi = (unsigned char)q[2];
            q += 3;
        } else {
            q++;
        }
        found |= lo <= c && c <= hi;
    }
    *hit = found != negated && c < 0x80;
    return close + 1;
}

/* One step of the pattern against one character: what follows in the pattern, NULL when it does not match. */
static const char *match_one(const char *p, const char *end, const char **s, const char *s_end)
{
    if (p >= end || *s >= s_end)
        return NULL;
    bool hit = false;
    const char *next = p + 1;
    if (*p == '?') {
        hit = true;
        while (*s + 1 < s_end && ((unsigned char)(*s)[1] & 0xc0) == 0x80) /* one character, however many bytes */
            (*s)++;
    } else if (*p == '[' && (next = match_set(p, end, (unsigned char)**s, &hit)) != NULL) {
        /* hit says */
    } else {
        next = p + 1;
        hit = *p == **s;
    }
    (*s)++;
    return hit ? next : NULL;
}

static bool is_segment_match(const char *p, const char *p_end, const char *s, const char *s_end)
{
    const char *star = NULL, *again = NULL;
    while (s < s_end) {
        if (p < p_end && *p == '*') {
            star = ++p;
            again = s;
            continue;
        }
        const char *at = s, *next = match_one(p, p_end, &at, s_end);
        if (next) {
            p = next;
            s = at;
        } else if (star) { /* let the last star take one more */
            p = star;
            s = ++again;
        } else {
            return false;
        }
    }
    while (p < p_end && *p == '*')
        p++;
    return p == p_end;
}

bool is_tuf_match(const char *pattern, const char *path)
{
    for (;;) {
        const char *p_end = strchrnul(pattern, '/'), *s_end = strchrnul(path, '/');
        if (!is_segment_match(pattern, p_end, path, s_end) || (*p_end == 0) != (*s_end == 0))
            return false;
        if (*p_end == 0)
            return true;
        pattern = p_end + 1;
        path = s_end + 1;
    }
}

bool is_tuf_delegated(const skf_json *role_obj, const char *path)
{
    const skf_json *paths = skf_json_get(role_obj, "paths"), *prefixes = skf_json_get(role_obj, "path_hash_prefixes");
    for (size_t i = 0; i < skf_json_len(paths); i++)
        if (is_tuf_match(skf_json_cstr(skf_json_at(paths, i)), path))
            return true;
    if (!prefixes)
        return false;
    uint8_t digest[SKF_DIGEST];
    char hex[SKF_HEX];
    skf_sha256(path, strlen(path), digest);
    skf_hex(digest, sizeof digest, hex);
    for (size_t i = 0; i < skf_json_len(prefixes); i++) {
        const char *prefix = skf_json_cstr(skf_json_at(prefixes, i));
        if (strncmp(hex, prefix, strlen(prefix)) == 0)
            return true;
    }
    return false;
}

bool is_tuf_path(const char *path)
{
    if (!path || !*path)
        return false;
    for (const char *s = path;; s++) {
        const char *end = strchrnul(s, '/');
        size_t n = (size_t)(end - s);
        if (n == 0 || (n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.'))
            return false;
        if (*end == 0)
            return true;
        s = end;
    }
}
