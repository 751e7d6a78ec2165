/*
 * The one error type of the project.
 *
 * Every function that can fail returns `enum skf_err`, 0 meaning success, and cannot be ignored (SKF_MUST).  Why it failed,
 * in one line that names the thing and the reason, is written to a `struct skf_why` that the caller owns and may pass as
 * NULL.  There is no errno-like global: two threads failing at once each have their own line.
 *
 * A predicate returns bool and is named is_ or has_.
 */
#ifndef SKF_BASE_ERR_H
#define SKF_BASE_ERR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum skf_err {
    SKF_OK = 0,
    SKF_ERR_NOMEM,       /* an allocation failed */
    SKF_ERR_IO,          /* the operating system refused a read, write, map, rename, ... */
    SKF_ERR_FORMAT,      /* bytes do not follow their format: truncated, out of range, reserved bits set */
    SKF_ERR_LIMIT,       /* well formed, but over a bound we set (size, depth, count) */
    SKF_ERR_UNSUPPORTED, /* a known kind that this build cannot handle: type, architecture, codec version */
    SKF_ERR_DIGEST,      /* bytes do not have the digest they must have */
    SKF_ERR_SIGNATURE,   /* a signature is wrong, missing, or under its threshold */
    SKF_ERR_EXPIRED,     /* signed metadata or a certificate is past its time */
    SKF_ERR_ROLLBACK,    /* older than what was already seen */
    SKF_ERR_BASE,        /* a delta for another source version */
    SKF_ERR_NOT_FOUND,   /* the named thing does not exist */
    SKF_ERR_EXISTS,      /* the named thing exists already */
    SKF_ERR_FULL,        /* no room: disk, quota, map size */
    SKF_ERR_BUSY,        /* in use by somebody else: port, lock, slot */
    SKF_ERR_NET,         /* the link or the peer went away; trying again may help */
    SKF_ERR_REFUSED,     /* the peer said no; trying again will not help */
    SKF_ERR_TIMEOUT,     /* a deadline passed */
    SKF_ERR_CANCELLED,   /* the caller asked to stop */
    SKF_ERR_ARG,         /* the caller's argument makes no sense */
    SKF_ERR_STATE,       /* not possible in the object's present state */
    SKF_ERR_INTERNAL,    /* a defect of ours, found by a check */
    SKF_ERR_COUNT_       /* not an error: the number of values above */
};

#define SKF_MUST __attribute__((warn_unused_result))
#define SKF_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* One line, no newline; always NUL-terminated. Zero-initialise it: `struct skf_why why = {{0}};` */
struct skf_why {
    char text[512];
};

/* The short fixed name of an error ("format", "digest", ...), for logs, JSON and the wire; never NULL. */
const char *skf_err_name(enum skf_err e);

/* Writes the line into `why` (nothing when why is NULL) and returns `e`, so that one can `return skf_fail(...)`. */
enum skf_err skf_fail(struct skf_why *why, enum skf_err e, const char *fmt, ...) SKF_PRINTF(3, 4);

/* As skf_fail, with ": " and the text of the errno value `sys` behind it. ENOSPC and EDQUOT become SKF_ERR_FULL,
 * ENOMEM SKF_ERR_NOMEM, EADDRINUSE SKF_ERR_BUSY, ENOENT SKF_ERR_NOT_FOUND, everything else SKF_ERR_IO. */
enum skf_err skf_fail_errno(struct skf_why *why, int sys, const char *fmt, ...) SKF_PRINTF(3, 4);

/* Puts "fmt: " in front of what `why` says already, unless it begins so; returns `e`. For callers that know the name of the file. */
enum skf_err skf_fail_prefix(struct skf_why *why, enum skf_err e, const char *fmt, ...) SKF_PRINTF(3, 4);

#define SKF_TRY(expr)                                                                                                  \
    do {                                                                                                               \
        enum skf_err skf_try_ = (expr);                                                                                \
        if (skf_try_ != SKF_OK)                                                                                        \
            return skf_try_;                                                                                           \
    } while (0)

/* The same for functions with one clean-up path: stores into `e` and jumps to `out`. */
#define SKF_GO(e, expr)                                                                                                \
    do {                                                                                                               \
        (e) = (expr);                                                                                                  \
        if ((e) != SKF_OK)                                                                                             \
            goto out;                                                                                                  \
    } while (0)

#endif
