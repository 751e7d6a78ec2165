/*
 * Who lists a path (section 5.6.7): targets first, then the delegated roles that may speak for the path, in the order
 * in which they are delegated to, each before its own delegations; a terminating role ends the search among those
 * behind it.
 */
#include <string.h>

#include <sodium.h>

#include "base/alloc.h"
#include "base/util.h"
#include "trust/client_priv.h"

#define STACK_MAX 512

/* A role that waits to be looked at: by whom it is delegated to. The texts belong to documents in the client's cache.
 */
struct step {
    const char *role;
    const skf_json *delegator; /* NULL for targets itself */
};
struct search {
    const char *path;
    struct step stack[STACK_MAX];
    size_t n;
    const char *visited[SKF_TUF_VISITS_MAX];
    size_t n_visited;
};

static enum skf_err remember(struct skf_tuf *t, const struct step *s, skf_json *take_doc)
{
    char *role = skf_strdup(s->role);
    if (!role) {
        skf_json_free(take_doc);
        return SKF_ERR_NOMEM;
    }
    t->cache[t->n_cache++] = (struct skf_tuf_seen){role, s->delegator, take_doc};
    return SKF_OK;
}

/* The role's verified document, and its name in memory that lives as long as the document. */
static enum skf_err open_role(struct skf_tuf *t, int64_t now, const struct step *s, const struct skf_tuf_source *from,
                              const char **role, const skf_json **doc, struct skf_why *why)
{
    if (!s->delegator) {
        *role = "targets";
        *doc = t->targets;
        return SKF_OK;
    }
    size_t i = 0;
    while (i < t->n_cache && (strcmp(t->cache[i].role, s->role) != 0 || t->cache[i].delegator != s->delegator))
        i++;
    if (i == t->n_cache) {
        skf_json *got = NULL;
        if (i == SKF_TUF_CACHE_MAX)
            return skf_fail(why, SKF_ERR_LIMIT, "%.64s: too many roles at once", s->role);
        SKF_TRY(skf_tuf_load_targets(t, now, s->role, s->delegator, from, &got, why));
        if (remember(t, s, got) != SKF_OK)
            return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    }
    *role = t->cache[i].role;
    *doc = t->cache[i].doc;
    return skf_tuf_check_expiry(*role, *doc, now, why);
}

/* 5.6.7.2: pushes the delegations that match, last first, so that the first is looked at next. */
static enum skf_err push_delegations(struct search *q, const char *role, const skf_json *doc, struct skf_why *why)
{
    const skf_json *roles = skf_json_get(skf_json_get(skf_tuf_signed(doc), "delegations"), "roles");
    size_t n = skf_json_len(roles), upto = 0;
    bool is_terminated = false;
    for (; upto < n && !is_terminated; upto++) {
        const skf_json *r = skf_json_at(roles, upto);
        is_terminated = is_tuf_delegated(r, q->path) && skf_json_is_true(skf_json_get(r, "terminating"), false);
    }
    if (is_terminated)
        q->n = 0; /* nor is anything looked at that was waiting */
    for (size_t i = upto; i-- > 0;) {
        const skf_json *r = skf_json_at(roles, i);
        if (!is_tuf_delegated(r, q->path))
            continue;
        if (q->n == STACK_MAX)
            return skf_fail(why, SKF_ERR_LIMIT, "%.64s: delegates to too many roles at once", role);
        q->stack[q->n++] = (struct step){skf_json_cstr(skf_json_get(r, "name")), doc};
    }
    return SKF_OK;
}

static bool is_visited(const struct search *q, const char *role)
{
    for (size_t i = 0; i < q->n_visited; i++)
        if (strcmp(q->visited[i], role) == 0)
            return true;
    return false;
}

static enum skf_err take_target(const skf_json *entry, const char *path, struct skf_tuf_target *out,
                                struct skf_why *why)
{
    const skf_json *hashes = skf_json_get(entry, "hashes");
    const char *h256 = skf_json_cstr(skf_json_get(hashes, "sha256")),
               *h512 = skf_json_cstr(skf_json_get(hashes, "sha512"));
    *out = (struct skf_tuf_target){.length = (uint64_t)skf_json_i64(skf_json_get(entry, "length"), 0)};
    out->no_sha256 = !h256;
    out->has_sha512 = h512 != NULL;
    if (!h256 && !h512)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: signed for by no hash that we know", path);
    if ((h256 && skf_unhex(h256, out->sha256, sizeof out->sha256) != SKF_OK) ||
        (h512 && skf_unhex(h512, out->sha512, sizeof out->sha512) != SKF_OK))
        return skf_fail(why, SKF_ERR_FORMAT, "%s: its hash is not hexadecimal of the right length", path);
    return SKF_OK;
}

static enum skf_err search(struct skf_tuf *t, int64_t now, struct search *q, const struct skf_tuf_source *from,
                           struct skf_tuf_target *out, struct skf_why *why)
{
    q->stack[q->n++] = (struct step){"targets", NULL};
    while (q->n > 0) {
        struct step s = q->stack[--q->n];
        const char *role = NULL;
        const skf_json *doc = NULL;
        if (is_visited(q, s.role))
            continue;
        if (q->n_visited == SKF_TUF_VISITS_MAX)
            return skf_fail(why, SKF_ERR_LIMIT, "%s: more than %d roles would have to be asked", q->path,
                            SKF_TUF_VISITS_MAX);
        SKF_TRY(open_role(t, now, &s, from, &role, &doc, why));
        const skf_json *entry = skf_json_get(skf_json_get(skf_tuf_signed(doc), "targets"), q->path);
        if (entry)
            return take_target(entry, q->path, out, why);
        q->visited[q->n_visited++] = role;
        SKF_TRY(push_delegations(q, role, doc, why));
    }
    return skf_fail(why, SKF_ERR_NOT_FOUND, "%s: is in no signed metadata", q->path);
}

enum skf_err skf_tuf_find(struct skf_tuf *t, int64_t now, const char *path, skf_tuf_fetch *fetch, void *ctx,
                          struct skf_tuf_target *out, struct skf_why *why)
{
    struct skf_tuf_source from = {fetch, ctx};
    if (!is_tuf_path(path))
        return skf_fail(why, SKF_ERR_ARG, "%s: not a target path", path ? path : "(none)");
    if (!t->ready)
        SKF_TRY(skf_tuf_load_local(t, now, why));
    SKF_TRY(skf_tuf_check_expiry("root.json", t->root, now, why));
    SKF_TRY(skf_tuf_check_expiry("timestamp.json", t->timestamp, now, why));
    SKF_TRY(skf_tuf_check_expiry("snapshot.json", t->snapshot, now, why));
    SKF_TRY(skf_tuf_check_expiry("targets.json", t->targets, now, why));
    if (t->n_cache + SKF_TUF_VISITS_MAX > SKF_TUF_CACHE_MAX)
        skf_tuf_cache_clear(t);
    struct search *q = skf_calloc(1, sizeof *q);
    if (!q)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", path);
    q->path = path;
    enum skf_err e = search(t, now, q, &from, out, why);
    skf_free(q);
    return e;
}

enum skf_err skf_tuf_check(const struct skf_tuf_target *t, const char *path, const void *p, size_t n,
                           struct skf_why *why)
{
    uint8_t d[64];
    if (t->length != n)
        return skf_fail(why, SKF_ERR_DIGEST, "%s: has %zu bytes where %llu are signed for", path, n,
                        (unsigned long long)t->length);
    if (t->no_sha256 && !t->has_sha512)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: signed for by no hash that we know", path);
    if (!t->no_sha256) {
        skf_sha256(p, n, d);
        if (memcmp(d, t->sha256, SKF_DIGEST) != 0)
            return skf_fail(why, SKF_ERR_DIGEST, "%s: does not have the SHA-256 that is signed for", path);
    }
    if (t->has_sha512) {
        (void)crypto_hash_sha512(d, p, n);
        if (memcmp(d, t->sha512, sizeof d) != 0)
            return skf_fail(why, SKF_ERR_DIGEST, "%s: does not have the SHA-512 that is signed for", path);
    }
    return SKF_OK;
}
