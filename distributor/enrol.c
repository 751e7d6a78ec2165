/* Tokens and the Enrolment service (enrol.h). */
#include "distributor/enrol.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/digest.h"
#include "base/file.h"
#include "proto/fleet.pb-c.h"
#include "proto/msg.h"
#include "trust/cert.h"
#include "trust/tuf.h"

#define TOKENS_MAX  (16u << 20)
#define CERT_DAYS   365

/* [A-Za-z0-9._-]{1,64} */
static bool is_device_name(const char *s)
{
    size_t n = strlen(s);
    return n > 0 && n <= 64 && strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

struct tokens {
    char path[PATH_MAX];
    int lock;
    uint8_t *text;
    size_t len;
};

static void tokens_close(struct tokens *t)
{
    skf_free(t->text);
    if (t->lock >= 0)
        (void)close(t->lock);
}

/* Reads the file under the lock that its writers hold. */
static enum skf_err tokens_open(const char *dir, struct tokens *t, struct skf_why *why)
{
    char path[PATH_MAX];
    *t = (struct tokens){.lock = -1};
    SKF_TRY(skf_path(t->path, sizeof t->path, dir, "enrol.tokens"));
    SKF_TRY(skf_path(path, sizeof path, dir, "enrol.lock"));
    t->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (t->lock < 0 || flock(t->lock, LOCK_EX) != 0)
        return skf_fail_errno(why, errno, "%s", path);
    enum skf_err e = skf_file_read(t->path, TOKENS_MAX, &t->text, &t->len, why);
    if (e != SKF_ERR_NOT_FOUND)
        return e;
    t->text = skf_calloc(1, 1);
    return t->text ? SKF_OK : SKF_ERR_NOMEM;
}

/* Writes the file with `line` in the place of the line of this device. */
static enum skf_err tokens_write(struct tokens *t, const char *name, const char *line, struct skf_why *why)
{
    struct skf_buf b = SKF_BUF_INIT(TOKENS_MAX);
    size_t n = strlen(name);
    enum skf_err e = SKF_OK;
    for (const char *at = (const char *)t->text, *end; *at && e == SKF_OK; at = *end ? end + 1 : end) {
        end = strchr(at, '\n');
        end = end ? end : at + strlen(at);
        if (end != at && !(strncmp(at, name, n) == 0 && at[n] == ':'))
            e = skf_buf_put(&b, at, (size_t)(end - at));
        if (e == SKF_OK && end != at && !(strncmp(at, name, n) == 0 && at[n] == ':'))
            e = skf_buf_u8(&b, '\n');
    }
    if (e == SKF_OK)
        e = skf_buf_str(&b, line);
    if (e == SKF_OK)
        e = skf_file_write(t->path, b.data, b.len, 0600, why);
    skf_buf_free(&b);
    return e;
}

enum skf_err skf_enrol_token(const char *dir, const char *name, char token[SKF_TOKEN], struct skf_why *why)
{
    uint8_t secret[32], hash[SKF_DIGEST];
    char hex[SKF_HEX], line[256];
    struct tokens t;
    if (!is_device_name(name))
        return skf_fail(why, SKF_ERR_ARG, "%.80s: a device's name is 1 to 64 of [A-Za-z0-9._-]", name);
    SKF_TRY(skf_random(secret, sizeof secret));
    skf_hex(secret, sizeof secret, token);
    skf_wipe(secret, sizeof secret);
    skf_sha256(token, SKF_TOKEN - 1, hash);
    skf_hex(hash, sizeof hash, hex);
    (void)snprintf(line, sizeof line, "%s:%s:\n", name, hex);
    enum skf_err e = tokens_open(dir, &t, why);
    if (e == SKF_OK)
        e = tokens_write(&t, name, line, why);
    tokens_close(&t);
    return e;
}

/* The line's two digests: of the token, and of the request that used it ("" when none did). */
static bool has_line(const struct tokens *t, const char *name, char hash[SKF_HEX], char used[SKF_HEX])
{
    size_t n = strlen(name);
    for (const char *at = (const char *)t->text, *end; *at; at = *end ? end + 1 : end) {
        end = strchr(at, '\n');
        end = end ? end : at + strlen(at);
        if (strncmp(at, name, n) != 0 || at[n] != ':')
            continue;
        const char *a = at + n + 1;
        if (end - a < SKF_HEX || a[SKF_HEX - 1] != ':')
            return false;
        memcpy(hash, a, SKF_HEX - 1);
        hash[SKF_HEX - 1] = 0;
        const char *b = a + SKF_HEX;
        size_t left = (size_t)(end - b);
        if (left != 0 && left != SKF_HEX - 1)
            return false;
        memcpy(used, b, left);
        used[left] = 0;
        return true;
    }
    return false;
}

enum skf_err skf_enrol_use(const char *dir, const char *name, const char *token, const char *csr, bool is_trial,
                           struct skf_why *why)
{
    uint8_t digest[SKF_DIGEST];
    char want[SKF_HEX], used[SKF_HEX], hex[SKF_HEX], line[256];
    struct tokens t;
    if (!is_device_name(name))
        return skf_fail(why, SKF_ERR_REFUSED, "not a device's name");
    enum skf_err e = tokens_open(dir, &t, why);
    if (e != SKF_OK)
        goto out;
    skf_sha256(token, strlen(token), digest);
    skf_hex(digest, sizeof digest, hex);
    if (!has_line(&t, name, want, used) || !is_equal_secret(want, hex, SKF_HEX - 1)) {
        e = skf_fail(why, SKF_ERR_REFUSED, "%s: no such token; it is for the one name that `skiffd --enrol-token` was given", name);
        goto out;
    }
    skf_sha256(csr, strlen(csr), digest);
    skf_hex(digest, sizeof digest, hex);
    if (used[0] && strcmp(used, hex) != 0) {
        e = skf_fail(why, SKF_ERR_REFUSED, "%s: its token was used already; make a new one", name);
        goto out;
    }
    if (!used[0] && !is_trial) {
        (void)snprintf(line, sizeof line, "%s:%s:%s\n", name, want, hex);
        e = tokens_write(&t, name, line, why);
    }
out:
    tokens_close(&t);
    return e;
}

/* The first root of the repository: boxes follow the chain from there. */
static enum skf_err first_root(const char *dir, struct skf_buf *out, struct skf_why *why)
{
    char path[PATH_MAX];
    SKF_TRY(skf_path(path, sizeof path, dir, "tuf"));
    return skf_tuf_repo_read(path, "1.root.json", out, why);
}

static enum skf_err answer_to(const char *dir, const Skiff__V1__EnrolRequest *q, uint8_t **answer, size_t *answer_len,
                              struct skf_why *why)
{
    char ca_dir[PATH_MAX], ca_crt[PATH_MAX], crt[8192];
    Skiff__V1__EnrolReply r = SKIFF__V1__ENROL_REPLY__INIT;
    struct skf_buf root = SKF_BUF_INIT(SKF_TUF_META_MAX);
    uint8_t *ca = NULL;
    size_t ca_len;
    enum skf_err e;
    SKF_GO(e, skf_path(ca_dir, sizeof ca_dir, dir, "ca"));
    SKF_GO(e, skf_path(ca_crt, sizeof ca_crt, dir, "tls/ca.crt"));
    /* Nothing is signed for a stranger; and everything that can fail comes before the token is used up. */
    SKF_GO(e, skf_enrol_use(dir, q->name, q->token, q->csr, true, why));
    SKF_GO(e, skf_ca_sign_csr(ca_dir, q->csr, q->name, CERT_DAYS, crt, sizeof crt, why));
    SKF_GO(e, skf_file_read(ca_crt, SKF_ENROL_MESSAGE, &ca, &ca_len, why));
    SKF_GO(e, first_root(dir, &root, why));
    SKF_GO(e, skf_enrol_use(dir, q->name, q->token, q->csr, false, why));
    r.certificate = crt;
    r.ca = (char *)ca;
    r.root = (ProtobufCBinaryData){root.len, root.data};
    e = skf_msg_pack(&r.base, answer, answer_len);
out:
    skf_free(ca);
    skf_buf_free(&root);
    return e;
}

enum skf_err skf_enrol_unary(void *ctx, const char *identity, const uint8_t *p, size_t n, uint8_t **answer,
                             size_t *answer_len, struct skf_why *why)
{
    Skiff__V1__EnrolRequest *q = NULL;
    SKF_TRY(SKF_UNPACK(skiff__v1__enrol_request, Skiff__V1__EnrolRequest, p, n, SKF_ENROL_MESSAGE, &q, why));
    enum skf_err e = is_device_name(q->name) ? answer_to(ctx, q, answer, answer_len, why)
                                             : skf_fail(why, SKF_ERR_REFUSED, "not a device's name");
    skf_msg_free(&q->base);
    return e;
}
