/* SHA-256 of one message, and what is built of it (digest.h). */
#include "base/digest.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/digest_priv.h"
#include "base/util.h"

/* libcrypto's, or, where one message is hashed by our own code anyway, ours: libcrypto takes milliseconds to begin. */
struct skf_sha256_ctx {
    EVP_MD_CTX *md; /* NULL: ours */
    uint64_t n;     /* bytes so far, of which those behind the last whole block are in `rest` */
    uint32_t state[1][8];
    uint8_t rest[SHA_BLOCK];
};

void skf_sha256(const void *p, size_t n, uint8_t out[SKF_DIGEST])
{
    skf_sha256_many(&(struct skf_message){p, n, out}, 1);
}

struct skf_sha256_ctx *skf_sha256_new(void)
{
    struct skf_sha256_ctx *c = skf_calloc(1, sizeof *c);
    if (!c)
        return NULL;
    memcpy(c->state[0], sha_first, sizeof sha_first);
    if (is_sha_ours())
        return c;
    c->md = EVP_MD_CTX_new();
    if (!c->md || EVP_DigestInit_ex(c->md, EVP_sha256(), NULL) != 1) {
        skf_sha256_free(c);
        return NULL;
    }
    return c;
}

#if defined __x86_64__
static void add_ours(struct skf_sha256_ctx *c, const uint8_t *p, size_t n)
{
    size_t have = c->n % SHA_BLOCK, take = SKF_MIN(n, SHA_BLOCK - have);
    c->n += n;
    if (have) {
        memcpy(c->rest + have, p, take);
        p += take;
        n -= take;
        if (have + take < SHA_BLOCK)
            return;
        sha_blocks_one(c->state, &(const uint8_t *){c->rest}, 1);
    }
    sha_blocks_one(c->state, &p, n / SHA_BLOCK);
    memcpy(c->rest, p + n / SHA_BLOCK * SHA_BLOCK, n % SHA_BLOCK);
}

static void final_ours(struct skf_sha256_ctx *c, uint8_t out[SKF_DIGEST])
{
    uint8_t end[2 * SHA_BLOCK];
    const size_t blocks = sha_end(c->rest, c->n, end);
    sha_blocks_one(c->state, &(const uint8_t *){end}, blocks);
    sha_digest_of(c->state[0], out);
}
#else
static void add_ours(struct skf_sha256_ctx *c, const uint8_t *p, size_t n) {}
static void final_ours(struct skf_sha256_ctx *c, uint8_t out[SKF_DIGEST]) {}
#endif

void skf_sha256_add(struct skf_sha256_ctx *c, const void *p, size_t n)
{
    if (!n)
        return;
    if (c->md)
        (void)EVP_DigestUpdate(c->md, p, n);
    else
        add_ours(c, p, n);
}

void skf_sha256_final(struct skf_sha256_ctx *take_c, uint8_t out[SKF_DIGEST])
{
    if (take_c->md)
        (void)EVP_DigestFinal_ex(take_c->md, out, NULL);
    else
        final_ours(take_c, out);
    skf_sha256_free(take_c);
}

void skf_sha256_free(struct skf_sha256_ctx *c)
{
    if (!c)
        return;
    EVP_MD_CTX_free(c->md);
    skf_wipe(c, sizeof *c);
    skf_free(c);
}

bool is_equal_secret(const void *a, const void *b, size_t n) { return CRYPTO_memcmp(a, b, n) == 0; }

void skf_wipe(void *p, size_t n)
{
    if (n)
        OPENSSL_cleanse(p, n);
}

enum skf_err skf_random(void *p, size_t n)
{
    uint8_t *at = p;
    while (n) {
        ssize_t got = getrandom(at, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return SKF_ERR_IO;
        at += got;
        n -= (size_t)got;
    }
    return SKF_OK;
}

void skf_hex(const uint8_t *p, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[p[i] >> 4];
        out[2 * i + 1] = digits[p[i] & 15];
    }
    out[2 * n] = 0;
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

enum skf_err skf_unhex(const char *s, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int hi = nibble(s[2 * i]);
        int lo = hi < 0 ? -1 : nibble(s[2 * i + 1]);
        if (lo < 0)
            return SKF_ERR_FORMAT;
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return s[2 * n] ? SKF_ERR_FORMAT : SKF_OK;
}

/* stack[k] holds the root of a complete subtree of 2^k leaves when bit k of count is set, as a binary counter. */
void skf_merkle_init(struct skf_merkle *m) { memset(m, 0, sizeof *m); }

static void node(const uint8_t left[SKF_DIGEST], const uint8_t right[SKF_DIGEST], uint8_t out[SKF_DIGEST])
{
    uint8_t t[1 + 2 * SKF_DIGEST];
    t[0] = 1;
    memcpy(t + 1, left, SKF_DIGEST);
    memcpy(t + 1 + SKF_DIGEST, right, SKF_DIGEST);
    skf_sha256(t, sizeof t, out);
}

void skf_merkle_add(struct skf_merkle *m, const uint8_t digest[SKF_DIGEST], uint64_t length)
{
    uint8_t t[1 + 8 + SKF_DIGEST], at[SKF_DIGEST];
    t[0] = 0;
    skf_put_le64(t + 1, length);
    memcpy(t + 9, digest, SKF_DIGEST);
    skf_sha256(t, sizeof t, at);
    unsigned k = 0;
    for (; m->count >> k & 1; k++)
        node(m->stack[k], at, at);
    memcpy(m->stack[k], at, SKF_DIGEST);
    m->count++;
    m->size += length;
}

void skf_merkle_root(const struct skf_merkle *m, uint8_t root[SKF_DIGEST])
{
    uint8_t at[SKF_DIGEST] = {0};
    bool is_set = false;
    for (unsigned k = 0; k < 64; k++) {
        if (!(m->count >> k & 1))
            continue;
        if (is_set)
            node(m->stack[k], at, at);
        else
            memcpy(at, m->stack[k], SKF_DIGEST);
        is_set = true;
    }
    uint8_t t[1 + 16 + SKF_DIGEST];
    t[0] = 2;
    skf_put_le64(t + 1, m->size);
    skf_put_le64(t + 9, m->count);
    memcpy(t + 17, at, SKF_DIGEST);
    skf_sha256(t, sizeof t, root);
}
