/*
 * The adapter of a publication: it makes the new version of an older one, and what it makes is sent as little more than
 * itself.  The distributor's builder takes it as a hint only; what can be known to be wrong with it is said here, before
 * anything is sent.
 */
#include <string.h>

#include "base/alloc.h"
#include "cli/publish.h"
#include "distributor/assign.h"
#include "distributor/manifest.h"
#include "model/adapter.h"
#include "model/grid.h"
#include "proto/msg.h"

#define NUMBERS_AT_ONCE (1u << 20)

/* ---- by itself ------------------------------------------------------------------------------------------------- */
/* Every number of its part of one tensor must be one: with anything else there is nothing to merge. */
static enum skf_err check_numbers(const struct skf_adapter *a, const struct skf_low_rank *l, struct skf_why *why)
{
    uint64_t at_once = SKF_MAX(NUMBERS_AT_ONCE / l->rank, 1), most = SKF_MAX(l->inputs, SKF_MIN(at_once, l->outputs)), n;
    float *x = is_mul_ok(most, l->rank * sizeof *x, &n) ? skf_alloc(n) : NULL;
    if (!x)
        return skf_fail(why, SKF_ERR_NOMEM, "adapter: out of memory");
    enum skf_err e = skf_adapter_columns(a, l, x, why);
    for (uint64_t i = 0; i < l->outputs && e == SKF_OK; i += at_once)
        e = skf_adapter_rows(a, l, i, SKF_MIN(at_once, l->outputs - i), x, why);
    skf_free(x);
    return e;
}

static enum skf_err check_fit(void *ctx, struct skf_why *why)
{
    struct skf_publish *p = ctx;
    struct skf_low_rank l;
    size_t n;
    const struct skf_tensor *t = skf_model_tensors(p->content, &n);
    for (size_t i = 0; i < n; i++) {
        SKF_TRY(skf_adapter_find(p->adapter.opened, &t[i], &l, why));
        if (l.rank)
            SKF_TRY(check_numbers(p->adapter.opened, &l, why));
    }
    return SKF_OK;
}

/* Piece i in `out` (SKF_ADAPTER_PIECE bytes); its length. */
static uint32_t piece_length(const struct skf_publish_adapter *a, uint64_t i)
{
    uint64_t left = a->map.size - i * SKF_ADAPTER_PIECE;
    return left < SKF_ADAPTER_PIECE ? (uint32_t)left : SKF_ADAPTER_PIECE;
}

static enum skf_err digest_pieces(void *ctx, struct skf_why *why)
{
    struct skf_publish_adapter *a = ctx;
    for (uint64_t i = 0; i < a->n; i++)
        skf_sha256(a->map.data + i * SKF_ADAPTER_PIECE, piece_length(a, i), a->digests + i * SKF_DIGEST);
    return SKF_OK;
}

enum skf_err skf_publish_adapter_open(struct skf_publish *p, struct skf_why *why)
{
    struct skf_publish_adapter *a = &p->adapter;
    if (!a->file)
        return SKF_OK;
    SKF_TRY(skf_adapter_open(a->file, p->content, p->file, &a->opened, why));
    SKF_TRY(skf_map_guard(check_fit, p, why));
    SKF_TRY(skf_map_open(a->file, &a->map, why));
    if (a->map.size == 0 || a->map.size > SKF_ADAPTER_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: %llu bytes; an adapter has at most %u", a->file,
                        (unsigned long long)a->map.size, SKF_ADAPTER_MAX);
    a->n = (a->map.size + SKF_ADAPTER_PIECE - 1) / SKF_ADAPTER_PIECE;
    a->digests = skf_alloc(a->n * SKF_DIGEST);
    if (!a->digests)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", a->file);
    return skf_map_guard(digest_pieces, a, why);
}

void skf_publish_adapter_close(struct skf_publish *p)
{
    skf_adapter_close(p->adapter.opened);
    skf_map_close(&p->adapter.map);
    skf_free(p->adapter.digests);
}

struct copying {
    const struct skf_publish_adapter *a;
    uint64_t piece;
    uint8_t *to;
};

static enum skf_err copy_piece(void *ctx, struct skf_why *why)
{
    const struct copying *x = ctx;
    memcpy(x->to, x->a->map.data + x->piece * SKF_ADAPTER_PIECE, piece_length(x->a, x->piece));
    return SKF_OK;
}

enum skf_err skf_publish_adapter_piece(const struct skf_publish_adapter *a, uint64_t i, uint8_t *to, uint32_t *n,
                                       struct skf_why *why)
{
    struct copying x = {a, i, to};
    *n = piece_length(a, i);
    return skf_map_guard(copy_piece, &x, why);
}

/* ---- its base -------------------------------------------------------------------------------------------------- */
static bool has_channel(const Skiff__V1__VersionInfo *v, const char *channel)
{
    for (size_t i = 0; channel && i < v->n_channels; i++)
        if (strcmp(v->channels[i], channel) == 0)
            return true;
    return false;
}

/* What the channel stands at, or else the newest. */
static enum skf_err choose_base(struct skf_publish *p, struct skf_why *why)
{
    Skiff__V1__VersionsRequest q = SKIFF__V1__VERSIONS_REQUEST__INIT;
    ProtobufCMessage *answer;
    const Skiff__V1__VersionInfo *best = NULL;
    q.model = (char *)(uintptr_t)p->model;
    SKF_TRY(skf_connect_call(&p->c, "ListVersions", &q.base, &skiff__v1__versions_reply__descriptor, &answer, why));
    const Skiff__V1__VersionsReply *r = (Skiff__V1__VersionsReply *)answer;
    for (size_t i = 0; i < r->n_versions; i++) {
        const Skiff__V1__VersionInfo *v = r->versions[i];
        bool is_there = has_channel(v, p->channel), was_there = best && has_channel(best, p->channel);
        if (strcmp(v->version, p->version) == 0)
            continue;
        if (!best || is_there > was_there || (is_there == was_there && v->created > best->created))
            best = v;
    }
    enum skf_err e = SKF_OK;
    if (best && is_registry_name(best->version))
        (void)snprintf(p->adapter.base, sizeof p->adapter.base, "%s", best->version);
    else
        e = skf_fail(why, SKF_ERR_NOT_FOUND, "%s: no other version of %s is published that it could be for", p->adapter.file,
                     p->model);
    skf_msg_free(answer);
    return e;
}

static bool is_like(const Skiff__V1__ManifestTensor *m, const struct skf_tensor *t)
{
    if (m->n_dims != t->n_dims)
        return false;
    for (size_t i = 0; i < m->n_dims; i++)
        if (m->dims[i] != t->dims[i])
            return false;
    return true;
}

/* Each tensor that the adapter changes must stand in the base with its shape, and in a type that can be merged. */
static enum skf_err check_tensor(const struct skf_publish *p, const Skiff__V1__Manifest *m, const struct skf_tensor *t,
                                 struct skf_why *why)
{
    const Skiff__V1__ManifestTensor *in = NULL;
    const char *wrong = NULL;
    for (size_t i = 0; i < m->n_tensors && !in; i++)
        if (strcmp(m->tensors[i]->name, t->name) == 0)
            in = m->tensors[i];
    if (!in)
        wrong = "has no tensor";
    else if (!is_like(in, t))
        wrong = "has another shape of";
    else if (!is_grid_type((enum skf_type)in->type))
        wrong = "has in a type that cannot be merged";
    if (!wrong)
        return SKF_OK;
    return skf_fail(why, SKF_ERR_ARG, "%s: %s %s %s '%s'; --adapter-base names the version that the adapter is for",
                    p->adapter.file, p->model, p->adapter.base, wrong, t->name);
}

static enum skf_err check_base(const struct skf_publish *p, const Skiff__V1__Manifest *m, struct skf_why *why)
{
    struct skf_low_rank l;
    size_t n;
    const struct skf_tensor *t = skf_model_tensors(p->content, &n);
    if (memcmp(m->root.data, p->cut.root, SKF_DIGEST) == 0)
        return skf_fail(why, SKF_ERR_ARG, "%s: %s %s is %s already; --adapter-base names the version that the adapter is for",
                        p->adapter.file, p->model, p->adapter.base, p->file);
    for (size_t i = 0; i < n; i++) {
        SKF_TRY(skf_adapter_find(p->adapter.opened, &t[i], &l, why));
        if (l.rank)
            SKF_TRY(check_tensor(p, m, &t[i], why));
    }
    return SKF_OK;
}

enum skf_err skf_publish_adapter_base(struct skf_publish *p, struct skf_why *why)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_WIRE_MESSAGE_MAX);
    Skiff__V1__Manifest *m = NULL;
    char path[SKF_TARGET_PATH];
    enum skf_err e;
    if (!p->adapter.file)
        return SKF_OK;
    if (p->adapter.asked)
        (void)snprintf(p->adapter.base, sizeof p->adapter.base, "%s", p->adapter.asked);
    else
        SKF_TRY(choose_base(p, why));
    skf_manifest_path(p->model, p->adapter.base, path);
    e = skf_publish_meta(&p->c, path, &b, why);
    if (e == SKF_ERR_NOT_FOUND)
        e = skf_fail(why, e, "--adapter-base: %s %s is not published; `skiff versions` lists what is", p->model, p->adapter.base);
    if (e == SKF_OK)
        e = skf_manifest_read(b.data, b.len, &m, why);
    if (e == SKF_OK)
        e = check_base(p, m, why);
    skf_manifest_free(m);
    skf_buf_free(&b);
    return e;
}

/* ---- what became of it ----------------------------------------------------------------------------------------- */
static const Skiff__V1__DeltaInfo *its_delta(const struct skf_publish *p)
{
    const Skiff__V1__PublishDone *done = ((Skiff__V1__PublishReply *)p->done)->done;
    for (size_t i = 0; i < done->n_deltas; i++)
        if (strcmp(done->deltas[i]->from_version, p->adapter.base) == 0)
            return done->deltas[i];
    return NULL;
}

enum skf_err skf_publish_adapter_json(const struct skf_publish *p, skf_json *j)
{
    const Skiff__V1__DeltaInfo *d = its_delta(p);
    bool is_used = d && strcmp(d->adapter, "used") == 0;
    skf_json *a = skf_json_obj();
    SKF_TRY(skf_json_set(j, "adapter", a));
    SKF_TRY(skf_json_put_str(a, "base", p->adapter.base));
    SKF_TRY(skf_json_put_u64(a, "bytes", p->adapter.map.size));
    SKF_TRY(skf_json_put_u64(a, "bytes_to_send", p->adapter.need_bytes));
    SKF_TRY(skf_json_put_str(a, "state", is_used ? "used" : !d ? "waiting" : d->adapter[0] ? "unused" : "late"));
    return is_used || !d || !d->adapter[0] ? SKF_OK : skf_json_put_str(a, "why", d->adapter);
}

void skf_publish_adapter_print(const struct skf_publish *p)
{
    const Skiff__V1__DeltaInfo *d = its_delta(p);
    char size[16];
    if (p->is_dry)
        (void)printf("  adapter for %s: %s to be sent\n", p->adapter.base, skf_human_bytes(p->adapter.need_bytes, size));
    else if (!d)
        (void)printf("  adapter for %s: kept until a box needs that delta\n", p->adapter.base);
    else if (!d->adapter[0])
        (void)printf("  adapter for %s: too late, that delta was built without it and stays\n", p->adapter.base);
    else if (strcmp(d->adapter, "used") != 0)
        (void)printf("  adapter for %s: not used: %s\n", p->adapter.base, d->adapter);
}
