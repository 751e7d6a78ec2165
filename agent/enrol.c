/*
 * The first certificate: the box makes its key, which never leaves it, and has a request signed over a channel on which only the
 * centre shows a certificate.  Who the centre is, is known beforehand: tls/ca.crt (or tls/enrol-ca.crt, where the enrolment port
 * answers under another CA) was put there with the software.
 */
#include "agent/agent_priv.h"

#include <signal.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "proto/msg.h"
#include "trust/cert.h"
#include "trust/tuf.h"
#include "wire/wire.h"

#define ENROL_PATH  "/skiff.v1.Enrolment/Enrol"
#define ENROL_MS    15000
#define ANSWER_MAX  (4u << 20)
#define CSR_MAX     8192
#define PAUSE_FIRST 500u
#define PAUSE_MOST  30000u

static const char crt_path[] = "tls/device.crt", key_path[] = "tls/device.key", ca_path[] = "tls/ca.crt",
                  enrol_ca_path[] = "tls/enrol-ca.crt";

static enum skf_err save(const Skiff__V1__EnrolReply *r, struct skf_why *why)
{
    int64_t end;
    if (access(ca_path, F_OK) != 0)
        SKF_TRY(skf_file_write(ca_path, r->ca, strlen(r->ca), 0644, why));
    if (r->root.len) {
        enum skf_err e = skf_tuf_init("tuf", r->root.data, r->root.len, why);
        if (e == SKF_ERR_EXISTS) /* the one that came with the software is the one to trust */
            skf_log(SKF_LOG_INFO, "enrolment: the trusted root that is here already stays");
        else
            SKF_TRY(e);
    }
    /* The certificate last: it is what says that enrolment is done. */
    SKF_TRY(skf_file_write("tls/device.crt.offered", r->certificate, strlen(r->certificate), 0644, why));
    enum skf_err e = skf_cert_check("tls/device.crt.offered", ca_path, skf_now_unix(), &end, why);
    if (e == SKF_OK)
        e = skf_file_write(crt_path, r->certificate, strlen(r->certificate), 0644, why);
    (void)unlink("tls/device.crt.offered");
    return e;
}

static enum skf_err try_once(const struct skf_agent_opts *o, const uint8_t *p, size_t n, struct skf_why *why)
{
    const char *ca = access(enrol_ca_path, F_OK) == 0 ? enrol_ca_path : ca_path;
    struct skf_wire_tls tls = {.ca_path = ca};
    struct skf_wire_channel *c;
    uint8_t *answer = NULL;
    size_t len = 0;
    Skiff__V1__EnrolReply *r = NULL;
    SKF_TRY(skf_wire_channel_open(o->enrol, &tls, NULL, &c, why));
    enum skf_err e = skf_wire_call(c, ENROL_PATH, p, n, ENROL_MS, &answer, &len, why);
    if (e == SKF_OK)
        e = SKF_UNPACK(skiff__v1__enrol_reply, Skiff__V1__EnrolReply, answer, len, ANSWER_MAX, &r, why);
    if (e == SKF_OK)
        e = save(r, why);
    if (r)
        skf_msg_free(&r->base);
    skf_free(answer);
    skf_wire_channel_close(c);
    return e;
}

/* The loop that takes signals is not running yet. */
static bool is_told_to_stop(unsigned ms)
{
    sigset_t set;
    for (; ms; ms -= SKF_MIN(ms, 100u)) {
        if (sigpending(&set) == 0 && (sigismember(&set, SIGTERM) == 1 || sigismember(&set, SIGINT) == 1))
            return true;
        skf_sleep_ms(SKF_MIN(ms, 100u));
    }
    return false;
}

enum skf_err skf_enrol(const struct skf_agent_opts *o, const char *token, struct skf_why *why)
{
    char csr[CSR_MAX], host[65] = "";
    if (access(crt_path, F_OK) == 0)
        return SKF_OK;
    if (access(enrol_ca_path, F_OK) != 0 && access(ca_path, F_OK) != 0)
        return skf_fail(why, SKF_ERR_NOT_FOUND, "%s: not there; put the fleet's CA certificate into the agent's folder",
                        ca_path);
    if (!o->name && gethostname(host, sizeof host - 1) != 0)
        return skf_fail(why, SKF_ERR_ARG, "enrolment: no --name, and this machine has no host name");
    Skiff__V1__EnrolRequest m = SKIFF__V1__ENROL_REQUEST__INIT;
    m.name = (char *)(uintptr_t)(o->name ? o->name : host);
    m.token = (char *)(uintptr_t)(token ? token : "");
    SKF_TRY(skf_csr_new(key_path, m.name, csr, sizeof csr, why));
    m.csr = csr;
    uint8_t *p;
    size_t n;
    enum skf_err e = skf_msg_pack(&m.base, &p, &n);
    if (e != SKF_OK)
        return skf_fail(why, e, "enrolment: no memory");
    for (unsigned pause = PAUSE_FIRST;; pause = SKF_MIN(pause * 2, PAUSE_MOST)) {
        e = try_once(o, p, n, why);
        if (e != SKF_ERR_NET && e != SKF_ERR_TIMEOUT)
            break;
        skf_log(SKF_LOG_WARN, "enrolment at %s: %s", o->enrol, why ? why->text : "");
        if (is_told_to_stop(pause)) {
            e = skf_fail(why, SKF_ERR_CANCELLED, "stopped");
            break;
        }
    }
    skf_wipe(p, n); /* the token is in it */
    skf_free(p);
    return e == SKF_OK ? e : skf_fail_prefix(why, e, "enrolment at %s", o->enrol);
}
