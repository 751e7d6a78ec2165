/* Keys of clients and what they may ask: see keys.h. */
#include "gateway/keys.h"

#include <strings.h>

#include "base/alloc.h"
#include "base/util.h"

/* ---- the file --------------------------------------------------------------------------------------------------------------------------- */
static bool is_name(const char *s)
{
    size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
    return n > 0 && n < GW_KEY_NAME && !s[n];
}

static bool is_count(const char *s, uint32_t *out)
{
    char *end;
    unsigned long long v = *s >= '0' && *s <= '9' ? strtoull(s, &end, 10) : 0;
    if (v < 1 || v > 1000000000 || *end)
        return false;
    *out = (uint32_t)v;
    return true;
}

static enum skf_err take_word(struct gw_key *k, const char *word, unsigned line, struct skf_why *why)
{
    const struct {
        const char *name;
        uint32_t *to;
    } counts[] = {{"requests=", &k->requests.each_minute}, {"tokens=", &k->tokens.each_minute}, {"concurrent=", &k->concurrent}};
    for (size_t i = 0; i < SKF_COUNT(counts); i++) {
        size_t n = strlen(counts[i].name);
        if (strncmp(word, counts[i].name, n) == 0)
            return is_count(word + n, counts[i].to) ? SKF_OK
                                                    : skf_fail(why, SKF_ERR_FORMAT, "line %u: %.40s: a number from 1 to 1,000,000,000 is expected", line, word);
    }
    if (strcmp(word, "priority=batch") == 0 || strcmp(word, "priority=interactive") == 0) {
        k->is_batch = word[9] == 'b';
    } else if (strncmp(word, "models=", 7) == 0 && word[7]) {
        int n = snprintf(k->models, sizeof k->models, ",%s,", word + 7);
        if (n >= (int)sizeof k->models)
            return skf_fail(why, SKF_ERR_LIMIT, "line %u: models has more than %d bytes", line, GW_KEY_MODELS - 3);
    } else if (strcmp(word, "off") == 0) {
        k->is_off = true;
    } else {
        return skf_fail(why, SKF_ERR_FORMAT, "line %u: %.40s: neither requests, tokens, concurrent, priority, models nor off", line, word);
    }
    return SKF_OK;
}

static enum skf_err take_line(char *s, unsigned line, struct gw_key *k, struct skf_why *why)
{
    char *rest = NULL, *name = strtok_r(s, " \t\r", &rest), *digest = strtok_r(NULL, " \t\r", &rest);
    if (!is_name(name))
        return skf_fail(why, SKF_ERR_FORMAT, "line %u: a name has 1 to %d of A-Z a-z 0-9 . _ -", line, GW_KEY_NAME - 1);
    if (!digest || strncmp(digest, "sha256:", 7) != 0 || skf_unhex(digest + 7, k->digest, SKF_DIGEST) != SKF_OK)
        return skf_fail(why, SKF_ERR_FORMAT, "line %u: behind the name stands sha256: and the 64 digits of a key's digest", line);
    snprintf(k->name, sizeof k->name, "%s", name);
    for (const char *word; (word = strtok_r(NULL, " \t\r", &rest));)
        SKF_TRY(take_word(k, word, line, why));
    return SKF_OK;
}

static struct gw_key *named(struct gw_key *keys, const char *name)
{
    while (keys && strcmp(keys->name, name) != 0)
        keys = keys->next;
    return keys;
}

static void fill(struct gw_bucket *b, uint64_t now)
{
    b->left = b->each_minute;
    b->at_ns = now;
}

static enum skf_err add_line(char *s, unsigned line, uint64_t now, struct gw_key **keys, unsigned *n, struct skf_why *why)
{
    struct gw_key *k;
    s += strspn(s, " \t\r");
    if (!*s || *s == '#')
        return SKF_OK;
    if (++*n > GW_KEYS_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "line %u: more than %d keys", line, GW_KEYS_MAX);
    k = skf_calloc(1, sizeof *k);
    if (!k)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for %u keys", *n);
    enum skf_err e = take_line(s, line, k, why);
    if (e == SKF_OK && named(*keys, k->name))
        e = skf_fail(why, SKF_ERR_FORMAT, "line %u: %s is there already", line, k->name);
    for (const struct gw_key *o = *keys; e == SKF_OK && o; o = o->next)
        if (memcmp(o->digest, k->digest, SKF_DIGEST) == 0)
            e = skf_fail(why, SKF_ERR_FORMAT, "line %u: the key of %s is that of %s", line, k->name, o->name);
    if (e != SKF_OK) {
        skf_free(k);
        return e;
    }
    fill(&k->requests, now);
    fill(&k->tokens, now);
    k->is_listed = true;
    k->next = *keys;
    *keys = k;
    return SKF_OK;
}

enum skf_err skf_gw_keys_parse(const char *text, size_t n, uint64_t now, struct gw_key **keys, struct skf_why *why)
{
    unsigned line = 0, count = 0;
    enum skf_err e = SKF_OK;
    *keys = NULL;
    if (n > GW_KEY_FILE)
        return skf_fail(why, SKF_ERR_LIMIT, "more than %d bytes", GW_KEY_FILE);
    if (memchr(text, 0, n))
        return skf_fail(why, SKF_ERR_FORMAT, "no text");
    char *copy = skf_alloc(n + 1);
    if (!copy)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a file of keys");
    memcpy(copy, text, n);
    copy[n] = 0;
    for (char *s = copy, *end; e == SKF_OK && s; s = end) {
        end = strchr(s, '\n');
        if (end)
            *end++ = 0;
        e = add_line(s, ++line, now, keys, &count, why);
    }
    skf_free(copy);
    if (e != SKF_OK) {
        skf_gw_keys_free(*keys);
        *keys = NULL;
    }
    return e;
}

void skf_gw_keys_free(struct gw_key *keys)
{
    while (keys) {
        struct gw_key *k = keys;
        keys = k->next;
        skf_wipe(k->digest, sizeof k->digest);
        skf_free(k);
    }
}

static void take_over(struct gw_bucket *to, const struct gw_bucket *from)
{
    if (from->each_minute && to->each_minute)
        to->left = SKF_MIN(from->left, (double)to->each_minute);
    if (from->each_minute && to->each_minute)
        to->at_ns = from->at_ns;
}

/* What the file says now becomes of the key that has the name, so that what runs goes on counting for it. */
static void renew(struct gw_key *k, const struct gw_key *fresh)
{
    struct gw_key was = *k;
    *k = *fresh;
    take_over(&k->requests, &was.requests);
    take_over(&k->tokens, &was.tokens);
    k->next = was.next;
    k->running = was.running;
    k->asked = was.asked;
    k->refused = was.refused;
    k->spent = was.spent;
}

static void drop_unused(struct gw_key **keys)
{
    for (struct gw_key **at = keys; *at;) {
        struct gw_key *k = *at;
        if (k->is_listed || k->running) {
            at = &k->next;
            continue;
        }
        *at = k->next;
        k->next = NULL;
        skf_gw_keys_free(k);
    }
}

void skf_gw_keys_replace(struct gw_key **keys, struct gw_key *fresh)
{
    for (struct gw_key *k = *keys; k; k = k->next)
        k->is_listed = false;
    while (fresh) {
        struct gw_key *k = fresh, *old = named(*keys, k->name);
        fresh = k->next;
        k->next = NULL;
        if (old) {
            renew(old, k);
            skf_gw_keys_free(k);
        } else {
            k->next = *keys;
            *keys = k;
        }
    }
    drop_unused(keys);
}

/* ---- asking ----------------------------------------------------------------------------------------------------------------------------- */
struct gw_key *skf_gw_key_of(struct gw_key *keys, const char *authorization)
{
    uint8_t digest[SKF_DIGEST];
    struct gw_key *found = NULL;
    if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0)
        return NULL;
    const char *key = authorization + 7 + strspn(authorization + 7, " ");
    skf_sha256(key, strlen(key), digest);
    for (struct gw_key *k = keys; k; k = k->next) /* all of them, whichever it is */
        if (is_equal_secret(k->digest, digest, SKF_DIGEST) && k->is_listed)
            found = k;
    return found;
}

static void refill(struct gw_bucket *b, uint64_t now)
{
    if (now > b->at_ns)
        b->left = SKF_MIN((double)b->each_minute, b->left + (double)(now - b->at_ns) * b->each_minute / 60e9);
    b->at_ns = SKF_MAX(b->at_ns, now);
}

uint32_t skf_gw_bucket_left(struct gw_bucket *b, uint64_t now, uint64_t *full_ms)
{
    refill(b, now);
    *full_ms = b->each_minute ? (uint64_t)((b->each_minute - b->left) * 60000 / b->each_minute) : 0;
    return b->left > 0 ? (uint32_t)b->left : 0;
}

/* Seconds until there is `least` in it; 0: now. */
static unsigned wait_for(struct gw_bucket *b, double least, uint64_t now)
{
    if (!b->each_minute)
        return 0;
    refill(b, now);
    return b->left >= least ? 0 : 1 + (unsigned)((least - b->left) * 60 / b->each_minute);
}

static bool is_model_allowed(const struct gw_key *k, const char *model)
{
    char word[sizeof((struct skf_gw_ask *)0)->model + 2];
    snprintf(word, sizeof word, ",%s,", model);
    return !k->models[0] || strstr(k->models, word);
}

static bool refuse(struct gw_key *k, struct skf_gw_refusal *no, unsigned status, const char *type, const char *code)
{
    no->status = status;
    no->type = type;
    no->code = code;
    k->refused++;
    return false;
}

bool is_gw_key_taken(struct gw_key *k, const char *model, uint64_t now, struct skf_gw_refusal *no, unsigned *retry_after)
{
    unsigned requests = wait_for(&k->requests, 1, now), tokens = wait_for(&k->tokens, 1, now);
    *retry_after = SKF_MAX(requests, tokens);
    if (k->is_off) {
        snprintf(no->text, sizeof no->text, "the key of %s is switched off", k->name);
        return refuse(k, no, 403, "permission_error", "key_off");
    }
    if (!is_model_allowed(k, model)) {
        snprintf(no->text, sizeof no->text, "the key of %s is not for the model %s", k->name, model);
        return refuse(k, no, 403, "permission_error", "model_not_allowed");
    }
    if (*retry_after) {
        snprintf(no->text, sizeof no->text, "the key of %s has used its %u %s a minute; try again in %u s", k->name,
                 requests >= tokens ? k->requests.each_minute : k->tokens.each_minute, requests >= tokens ? "requests" : "tokens", *retry_after);
        return refuse(k, no, 429, requests >= tokens ? "requests" : "tokens", "rate_limit_exceeded");
    }
    if (k->concurrent && k->running >= k->concurrent) {
        *retry_after = 1;
        snprintf(no->text, sizeof no->text, "the key of %s has %u requests under way, which is all it may", k->name, k->running);
        return refuse(k, no, 429, "requests", "rate_limit_exceeded");
    }
    if (k->requests.each_minute)
        k->requests.left -= 1;
    k->running++;
    k->asked++;
    return true;
}

void skf_gw_key_end(struct gw_key **keys, struct gw_key *k, uint64_t tokens, uint64_t now)
{
    k->running--;
    k->spent += tokens;
    if (k->tokens.each_minute) {
        refill(&k->tokens, now);
        k->tokens.left -= (double)tokens;
    }
    if (!k->is_listed)
        drop_unused(keys);
}

enum skf_err skf_gw_key_make(const char *name, char *text, char *line, struct skf_why *why)
{
    uint8_t bytes[32], digest[SKF_DIGEST];
    char hex[SKF_HEX];
    if (!is_name(name))
        return skf_fail(why, SKF_ERR_ARG, "a name has 1 to %d of A-Z a-z 0-9 . _ -", GW_KEY_NAME - 1);
    if (skf_random(bytes, sizeof bytes) != SKF_OK)
        return skf_fail(why, SKF_ERR_IO, "no random bytes");
    skf_hex(bytes, sizeof bytes, hex);
    snprintf(text, 70, "sk-%s", hex);
    skf_wipe(bytes, sizeof bytes);
    skf_sha256(text, strlen(text), digest);
    skf_hex(digest, sizeof digest, hex);
    snprintf(line, 200, "%s sha256:%s", name, hex);
    return SKF_OK;
}
