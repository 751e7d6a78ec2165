/* The error names and the one line that says why (err.h). */
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const names[SKF_ERR_COUNT_] = {
    [SKF_OK] = "ok",
    [SKF_ERR_NOMEM] = "no-memory",
    [SKF_ERR_IO] = "io",
    [SKF_ERR_FORMAT] = "format",
    [SKF_ERR_LIMIT] = "limit",
    [SKF_ERR_UNSUPPORTED] = "unsupported",
    [SKF_ERR_DIGEST] = "digest",
    [SKF_ERR_SIGNATURE] = "signature",
    [SKF_ERR_EXPIRED] = "expired",
    [SKF_ERR_ROLLBACK] = "rollback",
    [SKF_ERR_BASE] = "wrong-base",
    [SKF_ERR_NOT_FOUND] = "not-found",
    [SKF_ERR_EXISTS] = "exists",
    [SKF_ERR_FULL] = "full",
    [SKF_ERR_BUSY] = "busy",
    [SKF_ERR_NET] = "net",
    [SKF_ERR_REFUSED] = "refused",
    [SKF_ERR_TIMEOUT] = "timeout",
    [SKF_ERR_CANCELLED] = "cancelled",
    [SKF_ERR_ARG] = "argument",
    [SKF_ERR_STATE] = "state",
    [SKF_ERR_INTERNAL] = "internal",
};

const char *skf_err_name(enum skf_err e)
{
    if ((unsigned)e >= SKF_ERR_COUNT_ || !names[e])
        return "unknown";
    return names[e];
}

/* One line: what a hostile name may hold (newlines, escapes) must not reach a terminal or a log as such. */
static void tame(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
}

static void SKF_PRINTF(2, 0) put(struct skf_why *why, const char *fmt, va_list ap)
{
    (void)vsnprintf(why->text, sizeof why->text, fmt, ap);
    tame(why->text);
}

enum skf_err skf_fail(struct skf_why *why, enum skf_err e, const char *fmt, ...)
{
    if (why) {
        va_list ap;
        va_start(ap, fmt);
        put(why, fmt, ap);
        va_end(ap);
    }
    return e;
}

enum skf_err skf_fail_errno(struct skf_why *why, int sys, const char *fmt, ...)
{
    if (why) {
        va_list ap;
        va_start(ap, fmt);
        put(why, fmt, ap);
        va_end(ap);
        char say[96];
        size_t at = strlen(why->text);
        (void)snprintf(why->text + at, sizeof why->text - at, ": %s", strerror_r(sys, say, sizeof say));
    }
    switch (sys) {
    case ENOSPC:
    case EDQUOT:
        return SKF_ERR_FULL;
    case ENOMEM:
        return SKF_ERR_NOMEM;
    case EADDRINUSE:
        return SKF_ERR_BUSY;
    case ENOENT:
        return SKF_ERR_NOT_FOUND;
    default:
        return SKF_ERR_IO;
    }
}

enum skf_err skf_fail_prefix(struct skf_why *why, enum skf_err e, const char *fmt, ...)
{
    if (!why)
        return e;
    char rest[sizeof why->text];
    memcpy(rest, why->text, sizeof rest);
    va_list ap;
    va_start(ap, fmt);
    put(why, fmt, ap);
    va_end(ap);
    size_t at = strlen(why->text);
    if (strncmp(rest, why->text, at) == 0 && rest[at] == ':') /* whoever failed knew the name already */
        memcpy(why->text, rest, sizeof rest);
    else
        (void)snprintf(why->text + at, sizeof why->text - at, ": %s", rest[0] ? rest : skf_err_name(e));
    return e;
}
