/* The distributor put together and taken apart (centre.h), and the table of devices. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/util.h"
#include "distributor/centre_priv.h"
#include "distributor/enrol.h"
#include "proto/msg.h"
#include "trust/cert.h"

#define THREADS     4 /* completion queues: one that writes a chunk must not hold up all sessions */
#define METHODS_MAX 16

/* ---- devices --------------------------------------------------------------------------------------------------- */
/* Where the name stands, or would. */
static size_t place_of(const struct skf_centre *c, const char *name, bool *is_there)
{
    size_t lo = 0, hi = c->n_devices;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int cmp = strcmp(c->devices[mid]->d.name, name);
        if (cmp == 0) {
            *is_there = true;
            return mid;
        }
        if (cmp < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *is_there = false;
    return lo;
}

struct device *skf_centre_find(struct skf_centre *c, const char *name)
{
    bool is_there;
    size_t at = place_of(c, name, &is_there);
    return is_there ? c->devices[at] : NULL;
}

struct device *skf_centre_take(struct skf_centre *c, const char *name)
{
    bool is_there;
    size_t at = place_of(c, name, &is_there);
    if (is_there)
        return c->devices[at];
    if (c->n_devices == SKF_DEVICES_MAX)
        return NULL;
    if (c->n_devices == c->cap_devices) {
        size_t cap = c->cap_devices ? 2 * c->cap_devices : 64;
        struct device **more = skf_realloc(c->devices, cap * sizeof(struct device *));
        if (!more)
            return NULL;
        c->devices = more;
        c->cap_devices = cap;
    }
    struct device *d = skf_calloc(1, sizeof *d);
    if (!d)
        return NULL;
    (void)snprintf(d->d.name, sizeof d->d.name, "%s", name);
    memmove(c->devices + at + 1, c->devices + at, (c->n_devices - at) * sizeof(struct device *));
    c->devices[at] = d;
    c->n_devices++;
    return d;
}

static enum skf_err load_device(void *ctx, struct skf_reg_device *d)
{
    struct device *to = skf_centre_take(ctx, d->name);
    if (!to)
        return SKF_ERR_NOMEM;
    to->d = *d;
    *d = (struct skf_reg_device){.tags = NULL}; /* taken */
    return SKF_OK;
}

void skf_centre_wake(struct skf_centre *c, struct device *d)
{
    if (d)
        d->is_asking = true;
    else
        c->is_all = true;
    c->is_woken = true;
    (void)pthread_cond_signal(&c->wake);
}

struct skf_reg_work *skf_centre_work(struct device *d, const char *model)
{
    struct skf_reg_work *w = skf_device_work(&d->d, model);
    if (w || d->d.n_work == SKF_REG_WORK_MAX)
        return w;
    struct skf_reg_work *more = skf_realloc(d->d.work, (d->d.n_work + 1) * sizeof *more);
    if (!more)
        return NULL;
    d->d.work = more;
    w = &more[d->d.n_work++];
    *w = (struct skf_reg_work){.phase = 0};
    (void)snprintf(w->model, sizeof w->model, "%s", model);
    return w;
}

/* ---- for the services ------------------------------------------------------------------------------------------ */
enum skf_err skf_centre_admit(const struct skf_centre *c, const char *identity, int kind, char name[65],
                              struct skf_why *why)
{
    static const char *const kinds[] = {"device", "operator", "distributor"};
    enum skf_cert_kind is;
    if (!is_spiffe(identity, c->fleet, &is, name))
        return skf_fail(why, SKF_ERR_REFUSED, "'%.200s' is nobody of the fleet %s", identity, c->fleet);
    if ((int)is != kind)
        return skf_fail(why, SKF_ERR_REFUSED, "this is for a%s %s; the certificate is a%s %s's", kind == 1 ? "n" : "",
                        kinds[kind], is == SKF_CERT_OPERATOR ? "n" : "", kinds[is]);
    return SKF_OK;
}

enum skf_err skf_centre_send(struct skf_wire_stream *s, const ProtobufCMessage *m)
{
    uint8_t *p;
    size_t n;
    SKF_TRY(skf_msg_pack(m, &p, &n));
    enum skf_err e = skf_wire_send(s, p, n);
    skf_free(p);
    return e;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */
static enum skf_err sub(const struct skf_centre *c, const char *name, char out[PATH_MAX])
{
    return skf_path(out, PATH_MAX, c->dir, name);
}

/* Said, so that a folder mistyped, or one whose registry was lost, is seen at once. */
static enum skf_err look_at_folder(const struct skf_centre *c, struct skf_why *why)
{
    char crt[PATH_MAX], registry[PATH_MAX], chunks[PATH_MAX];
    SKF_TRY(sub(c, "tls/distributor.crt", crt));
    SKF_TRY(sub(c, "registry/data.mdb", registry));
    SKF_TRY(sub(c, "chunks", chunks));
    if (access(crt, F_OK) != 0) /* before anything is made */
        return skf_fail_errno(why, errno, "%s", crt);
    if (access(registry, F_OK) == 0)
        return SKF_OK;
    if (access(chunks, F_OK) == 0)
        skf_log(SKF_LOG_WARN, "%sregistry: not there, though chunks are: begins anew, without any version or box; stop now to put it back",
                c->dir);
    else
        skf_log(SKF_LOG_INFO, "%sregistry: begins anew, without any version or box", c->dir);
    return SKF_OK;
}

static enum skf_err open_stores(struct skf_centre *c, unsigned jobs, struct skf_why *why)
{
    char a[PATH_MAX], b[PATH_MAX];
    SKF_TRY(sub(c, "registry", a));
    SKF_TRY(skf_registry_open(a, &c->registry, why));
    SKF_TRY(sub(c, "chunks", a));
    SKF_TRY(sub(c, "content", b));
    SKF_TRY(skf_chunks_open(a, b, &c->chunks, why));
    SKF_TRY(sub(c, "tuf", a));
    SKF_TRY(sub(c, "keys", b));
    SKF_TRY(skf_signer_open(a, b, &c->signer, why));
    SKF_TRY(sub(c, "content", a));
    skf_draft_sweep(a); /* the registry's lock says that we are the only one; what a kill leaves here is as large as a model */
    SKF_TRY(sub(c, "deltas", a));
    skf_draft_sweep(a);
    struct skf_builder_opts o = {.registry = c->registry,
                                 .chunks = c->chunks,
                                 .signer = c->signer,
                                 .dir = a,
                                 .jobs = jobs,
                                 .event = skf_centre_on_build,
                                 .ctx = c};
    SKF_TRY(skf_builder_open(&o, &c->builder, why));
    SKF_TRY(skf_feeds_open(a, c->registry, c->signer, &c->feeds, why));
    SKF_TRY(skf_path(c->deltas, sizeof c->deltas, a, ""));
    skf_centre_clear(c);
    return skf_registry_each_device(c->registry, load_device, c, why);
}

static enum skf_err open_server(struct skf_centre *c, const struct skf_centre_opts *opts, struct skf_why *why)
{
    char ca[PATH_MAX], crt[PATH_MAX], key[PATH_MAX];
    struct skf_wire_method methods[METHODS_MAX];
    int64_t not_after;
    SKF_TRY(sub(c, "tls/ca.crt", ca));
    SKF_TRY(sub(c, "tls/distributor.crt", crt));
    SKF_TRY(sub(c, "tls/distributor.key", key));
    SKF_TRY(skf_ca_fleet(ca, c->fleet, why));
    SKF_TRY(skf_cert_check(crt, ca, skf_now_unix(), &not_after, why));
    struct skf_wire_server_opts o = {.listen = opts->listen, .tls = {ca, crt, key, opts->is_open_key_fine}, .threads = THREADS};
    methods[0] = skf_session_method;
    methods[1] = skf_publish_method;
    methods[0].ctx = methods[1].ctx = c;
    size_t n = 2 + skf_operator_methods(c, methods + 2, METHODS_MAX - 2);
    return skf_wire_server_open(&o, methods, n, &c->server, why);
}

static enum skf_err open_enrolment(struct skf_centre *c, const struct skf_centre_opts *opts, struct skf_why *why)
{
    char crt[PATH_MAX], key[PATH_MAX];
    SKF_TRY(sub(c, "tls/distributor.crt", crt));
    SKF_TRY(sub(c, "tls/distributor.key", key));
    struct skf_wire_method m = {.path = "/skiff.v1.Enrolment/Enrol", .unary = skf_enrol_unary, .ctx = c->dir};
    struct skf_wire_server_opts o = {
        .listen = opts->enrol_listen, .tls = {NULL, crt, key, opts->is_open_key_fine}, .threads = 1,
        .max_message = SKF_ENROL_MESSAGE, .max_streams = 100};
    return skf_wire_server_open(&o, &m, 1, &c->enrol_server, why);
}

enum skf_err skf_centre_open(const struct skf_centre_opts *o, struct skf_centre **out, struct skf_why *why)
{
    struct skf_centre *c = skf_calloc(1, sizeof *c);
    if (!c)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    enum skf_err e;
    SKF_GO(e, skf_path(c->dir, sizeof c->dir, o->dir, ""));
    if (pthread_mutex_init(&c->lock, NULL) != 0 || pthread_mutex_init(&c->publish_lock, NULL) != 0 ||
        pthread_cond_init(&c->wake, NULL) != 0) {
        e = skf_fail(why, SKF_ERR_NOMEM, "no locks");
        goto out;
    }
    c->has_lock = true;
    SKF_GO(e, look_at_folder(c, why));
    SKF_GO(e, open_stores(c, o->jobs, why));
    if (pthread_create(&c->dispatcher, NULL, skf_centre_dispatch, c) != 0) {
        e = skf_fail(why, SKF_ERR_NOMEM, "no thread");
        goto out;
    }
    c->has_dispatcher = true;
    SKF_GO(e, open_server(c, o, why));
    if (o->enrol_listen)
        SKF_GO(e, open_enrolment(c, o, why));
    *out = c;
    return SKF_OK;
out:
    skf_centre_close(c);
    return e;
}

int skf_centre_port(const struct skf_centre *c)
{
    return skf_wire_server_port(c->server);
}
int skf_centre_enrol_port(const struct skf_centre *c)
{
    return c->enrol_server ? skf_wire_server_port(c->enrol_server) : 0;
}

void skf_centre_close(struct skf_centre *c)
{
    if (!c)
        return;
    if (c->enrol_server)
        skf_wire_server_close(c->enrol_server);
    if (c->server)
        skf_wire_server_close(c->server); /* no session after this */
    if (c->has_dispatcher) {
        (void)pthread_mutex_lock(&c->lock);
        c->is_ending = true;
        (void)pthread_cond_signal(&c->wake);
        (void)pthread_mutex_unlock(&c->lock);
        (void)pthread_join(c->dispatcher, NULL);
    }
    skf_builder_close(c->builder);
    skf_feeds_close(c->feeds);
    skf_signer_close(c->signer);
    skf_chunks_close(c->chunks);
    skf_registry_close(c->registry);
    for (size_t i = 0; i < c->n_devices; i++) {
        skf_reg_device_clear(&c->devices[i]->d);
        skf_free(c->devices[i]);
    }
    skf_free(c->devices);
    if (c->has_lock) {
        (void)pthread_mutex_destroy(&c->lock);
        (void)pthread_mutex_destroy(&c->publish_lock);
        (void)pthread_cond_destroy(&c->wake);
    }
    skf_free(c);
}
