/*
 * Ed25519 keys in files (key.h).  The private half never lies in memory that can be swapped or dumped for longer than a
 * read takes: it is cut out of the file's text before that text is parsed, and what held it is wiped.
 *
 *   KEYFILE       {"format": "skiff-key", "version": 1, "role": "targets", "keyid": hex,
 *                  "keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": hex 32, "private": hex 32 (the
 * seed)}} KEYFILE.pub   {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": hex 32}}     (TUF 1.0
 * section 4.2.1)
 */
#include "trust/key.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/digest.h"
#include "base/file.h"
#include "trust/tuf_priv.h"

#define KEY_FILE_MAX 16384
#define SEED         crypto_sign_SEEDBYTES

struct skf_key {
    uint8_t secret[crypto_sign_SECRETKEYBYTES]; /* libsodium's: seed, then public */
    uint8_t public[crypto_sign_PUBLICKEYBYTES];
    char id[SKF_KEYID_HEX], role[33];
};

static bool is_role_name(const char *s)
{
    size_t n = s ? strlen(s) : 0;
    return n > 0 && n <= 32 && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") == n;
}

static enum skf_err new_key(const char *role, const uint8_t seed[SEED], struct skf_key **out, struct skf_why *why)
{
    if (!is_role_name(role))
        return skf_fail(why, SKF_ERR_ARG, "role: 1 to 32 of a-z 0-9 - _ are allowed");
    struct skf_key *k = sodium_init() < 0 ? NULL : sodium_malloc(sizeof *k);
    if (!k)
        return skf_fail(why, SKF_ERR_NOMEM, "no locked memory for a key");
    memset(k, 0, sizeof *k);
    (void)crypto_sign_seed_keypair(k->public, k->secret, seed);
    (void)snprintf(k->role, sizeof k->role, "%s", role);
    skf_json *pub = skf_key_public(k);
    enum skf_err e = pub ? skf_tuf_key_id(pub, k->id) : SKF_ERR_NOMEM;
    skf_json_free(pub);
    if (e != SKF_OK) {
        skf_key_free(k);
        return skf_fail(why, e, "key: cannot be named");
    }
    *out = k;
    return SKF_OK;
}

enum skf_err skf_key_generate(const char *role, struct skf_key **k, struct skf_why *why)
{
    uint8_t *seed = sodium_init() < 0 ? NULL : sodium_malloc(SEED);
    if (!seed)
        return skf_fail(why, SKF_ERR_NOMEM, "no locked memory for a key");
    randombytes_buf(seed, SEED);
    enum skf_err e = new_key(role, seed, k, why);
    sodium_free(seed);
    return e;
}

void skf_key_free(struct skf_key *k)
{
    sodium_free(k); /* wipes; NULL is fine */
}

const char *skf_key_id(const struct skf_key *k)
{
    return k->id;
}
const char *skf_key_role(const struct skf_key *k)
{
    return k->role;
}

skf_json *skf_key_public(const struct skf_key *k)
{
    char hex[2 * sizeof k->public + 1];
    skf_hex(k->public, sizeof k->public, hex);
    skf_json *pub = skf_json_obj(), *val = skf_json_obj();
    if (skf_json_set(val, "public", skf_json_str(hex)) != SKF_OK ||
        skf_json_set(pub, "keytype", skf_json_str("ed25519")) != SKF_OK ||
        skf_json_set(pub, "scheme", skf_json_str("ed25519")) != SKF_OK ||
        skf_json_set(pub, "keyval", skf_json_ref(val)) != SKF_OK) {
        skf_json_free(pub);
        pub = NULL;
    }
    skf_json_free(val);
    return pub;
}

void skf_key_sign(const struct skf_key *k, const void *p, size_t n, uint8_t sig[64])
{
    (void)crypto_sign_detached(sig, NULL, p, n, k->secret);
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

static enum skf_err check_absent(const char *path, struct skf_why *why)
{
    struct stat st;
    if (lstat(path, &st) == 0)
        return skf_fail(why, SKF_ERR_EXISTS, "%s: exists already and will not be overwritten", path);
    return errno == ENOENT ? SKF_OK : skf_fail_errno(why, errno, "%s", path);
}

static enum skf_err pub_path_of(const char *path, char out[PATH_MAX], struct skf_why *why)
{
    int n = snprintf(out, PATH_MAX, "%s.pub", path);
    return n > 0 && n < PATH_MAX ? SKF_OK : skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", path);
}

static enum skf_err save_private(const struct skf_key *k, const char *path, struct skf_why *why)
{
    char pub[65], seed[65], text[512];
    skf_hex(k->public, sizeof k->public, pub);
    skf_hex(k->secret, SEED, seed);
    int n = snprintf(text, sizeof text,
                     "{\n  \"format\": \"skiff-key\",\n  \"version\": 1,\n  \"role\": \"%s\",\n  \"keyid\": \"%s\",\n"
                     "  \"keytype\": \"ed25519\",\n  \"scheme\": \"ed25519\",\n"
                     "  \"keyval\": {\n    \"public\": \"%s\",\n    \"private\": \"%s\"\n  }\n}\n",
                     k->role, k->id, pub, seed);
    enum skf_err e = n > 0 && (size_t)n < sizeof text ? skf_file_write(path, text, (size_t)n, 0600, why)
                                                      : skf_fail(why, SKF_ERR_INTERNAL, "%s: does not fit", path);
    skf_wipe(seed, sizeof seed);
    skf_wipe(text, sizeof text);
    return e;
}

enum skf_err skf_key_save(const struct skf_key *k, const char *path, struct skf_why *why)
{
    char pub_path[PATH_MAX];
    SKF_TRY(pub_path_of(path, pub_path, why));
    SKF_TRY(check_absent(path, why));
    SKF_TRY(check_absent(pub_path, why));
    SKF_TRY(save_private(k, path, why));
    skf_json *pub = skf_key_public(k);
    char *text = NULL;
    size_t n = 0;
    enum skf_err e = pub ? skf_json_text(pub, 2, &text, &n) : SKF_ERR_NOMEM;
    if (e != SKF_OK)
        e = skf_fail(why, e, "%s: out of memory", pub_path);
    else
        e = skf_file_write(pub_path, text, n, 0644, why);
    if (e != SKF_OK)
        (void)unlink(path); /* nobody has the public half, so nothing was lost */
    skf_free(text);
    skf_json_free(pub);
    return e;
}

/* Where the 64 digits of the one "private" member stand in the file's text; NULL when there is not exactly one. */
static char *find_seed(char *text)
{
    static const char member[] = "\"private\"";
    char *at = strstr(text, member);
    if (!at || strstr(at + 1, member))
        return NULL;
    at += sizeof member - 1;
    at += strspn(at, " \t\r\n");
    if (*at++ != ':')
        return NULL;
    at += strspn(at, " \t\r\n");
    if (*at++ != '"' || strspn(at, "0123456789abcdefABCDEF") != 2 * SEED || at[2 * SEED] != '"')
        return NULL;
    return at;
}

static bool is_our_format(const skf_json *j)
{
    const char *format = skf_json_cstr(skf_json_get(j, "format")), *type = skf_json_cstr(skf_json_get(j, "keytype"));
    const char *scheme = skf_json_cstr(skf_json_get(j, "scheme"));
    return format && strcmp(format, "skiff-key") == 0 && skf_json_i64(skf_json_get(j, "version"), 0) == 1 && type &&
           strcmp(type, "ed25519") == 0 && scheme && strcmp(scheme, "ed25519") == 0;
}

/* The text without its secret, and that secret: `seed` is in locked memory. */
static enum skf_err parse_private(const char *path, char *text, size_t n, uint8_t *seed, struct skf_key **out,
                                  struct skf_why *why)
{
    char *hex = find_seed(text), digits[2 * SEED + 1];
    if (!hex)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: not a skiff key file", path);
    memcpy(digits, hex, 2 * SEED);
    digits[2 * SEED] = 0;
    memset(hex, '0', 2 * SEED);
    enum skf_err e = skf_unhex(digits, seed, SEED);
    skf_wipe(digits, sizeof digits);
    skf_json *j = NULL;
    struct skf_key *k = NULL;
    if (e == SKF_OK)
        e = skf_json_parse(text, n, 8, &j, why);
    if (e == SKF_OK && !is_our_format(j))
        e = skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: not a skiff key file of version 1", path);
    if (e == SKF_OK)
        e = new_key(skf_json_cstr(skf_json_get(j, "role")), seed, &k, why);
    if (e == SKF_OK) {
        char pub[65];
        skf_hex(k->public, sizeof k->public, pub);
        const char *said = skf_json_cstr(skf_json_get(skf_json_get(j, "keyval"), "public"));
        if (!said || strcmp(said, pub) != 0)
            e = skf_fail(why, SKF_ERR_FORMAT, "%s: its public half is not of its private half", path);
    }
    skf_json_free(j);
    if (e != SKF_OK) {
        skf_key_free(k);
        return e;
    }
    *out = k;
    return SKF_OK;
}

enum skf_err skf_key_load(const char *path, struct skf_key **k, struct skf_why *why)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return skf_fail_errno(why, errno, "%s", path);
    if (st.st_mode & 077)
        return skf_fail(why, SKF_ERR_REFUSED, "%s: others can read this key: chmod 600 it", path);
    uint8_t *text;
    size_t n;
    SKF_TRY(skf_file_read(path, KEY_FILE_MAX, &text, &n, why));
    uint8_t *seed = sodium_init() < 0 ? NULL : sodium_malloc(SEED);
    enum skf_err e = seed ? parse_private(path, (char *)text, n, seed, k, why)
                          : skf_fail(why, SKF_ERR_NOMEM, "no locked memory for a key");
    sodium_free(seed);
    skf_wipe(text, n);
    skf_free(text);
    return e;
}

enum skf_err skf_key_load_public(const char *path, skf_json **pub, char id[SKF_KEYID_HEX], struct skf_why *why)
{
    uint8_t *text;
    size_t n;
    SKF_TRY(skf_file_read(path, KEY_FILE_MAX, &text, &n, why));
    skf_json *j = NULL;
    enum skf_err e = skf_json_parse(text, n, 8, &j, why);
    if (e == SKF_OK && skf_json_get(skf_json_get(j, "keyval"), "private"))
        e = skf_fail(why, SKF_ERR_ARG, "this is a private key; its public half is %s.pub", path);
    struct skf_tuf_pub key = {0};
    if (e == SKF_OK)
        e = skf_tuf_pub_parse(j, &key, why);
    if (e == SKF_OK)
        e = skf_tuf_key_id(j, id);
    skf_tuf_pub_free(&key);
    skf_wipe(text, n);
    skf_free(text);
    if (e != SKF_OK) {
        skf_json_free(j);
        return skf_fail_prefix(why, e, "%s", path);
    }
    *pub = j;
    return SKF_OK;
}
