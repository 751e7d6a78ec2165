/* Who gets in, and what those who do not are told. */
#include "tests/lib/wire_fix.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

static const struct skf_wire_tls operator_tls = TLS_OF("operator"), nobody = TLS_OF("nobody"),
                                 expired = TLS_OF("expired-device"), foreign = TLS_OF("foreign-device");
static const struct skf_wire_tls bare = {.ca_path = TLS_DIR "ca.crt"};
static const struct skf_wire_tls trusts_foreign = {TLS_DIR "foreign-ca.crt", TLS_DIR "device.crt",
                                                   TLS_DIR "device.key", true};

static void ask_who(int port, const struct skf_wire_tls *tls, const char *name, enum skf_err want, const char *text)
{
    struct skf_wire_channel *c = dial_with(port, tls, name);
    struct skf_why why = {{0}};
    uint8_t *answer;
    size_t n;
    enum skf_err e = skf_wire_call(c, "/test.Wire/Unary", "who", 3, 20000, &answer, &n, &why);
    if (e != want)
        fail_msg("%s instead of %s: %s", skf_err_name(e), skf_err_name(want), why.text);
    if (e == SKF_OK) {
        assert_int_equal(n, strlen(text));
        assert_memory_equal(answer, text, n);
    } else if (!strstr(why.text, text)) {
        fail_msg("'%s' is not in: %s", text, why.text);
    }
    skf_free(answer);
    hang_up(c);
}

static void test_identities(void **state)
{
    struct server_side side = {.all = RECORD_INIT};
    struct skf_wire_server *srv = serve(&side);
    int port = skf_wire_server_port(srv);
    ask_who(port, &tls_device, NULL, SKF_OK, "spiffe://test/device/box1");
    ask_who(port, &operator_tls, NULL, SKF_OK, "spiffe://test/operator/ann");
    ask_who(port, &nobody, NULL, SKF_OK, ""); /* of our CA, but without a name that we give: the method's to refuse */
    skf_wire_server_close(srv);
}

static void test_refused_clients(void **state)
{
    struct server_side side = {.all = RECORD_INIT};
    struct skf_wire_server *srv = serve(&side);
    int port = skf_wire_server_port(srv);
    ask_who(port, &foreign, NULL, SKF_ERR_NET, "refuses our certificate tests/vectors/tls/foreign-device.crt");
    ask_who(port, &expired, NULL, SKF_ERR_NET, "refuses our certificate tests/vectors/tls/expired-device.crt");
    ask_who(port, &bare, NULL, SKF_ERR_NET, "refuses a client without a certificate");
    struct record r = RECORD_INIT;
    struct skf_wire_channel *c = dial_with(port, &foreign, NULL);
    (void)stream(c, "/test.Wire/Echo", &r);
    assert_true(WAIT(&r, r.dones == 1));
    assert_int_equal(r.status, SKF_WIRE_UNAVAILABLE);
    assert_non_null(strstr(r.text, "refuses our certificate"));
    hang_up(c);
    assert_int_equal(side.opened, 0);
    skf_wire_server_close(srv);
}

static void test_refused_servers(void **state)
{
    struct server_side side = {.all = RECORD_INIT};
    struct skf_why why = {{0}};
    struct skf_wire_server_opts o = {.tls = TLS_OF("foreign-server")}, named = {.tls = TLS_OF("named-server")};
    struct skf_wire_server *srv = serve_with(&side, o, &why);
    ask_who(skf_wire_server_port(srv), &tls_device, NULL, SKF_ERR_NET, "not valid for our CA tests/vectors/tls/ca.crt");
    skf_wire_server_close(srv);
    srv = serve_with(&side, named, &why);
    ask_who(skf_wire_server_port(srv), &tls_device, NULL, SKF_ERR_NET, "for another name");
    ask_who(skf_wire_server_port(srv), &tls_device, "centre.example", SKF_OK, "spiffe://test/device/box1");
    ask_who(skf_wire_server_port(srv), &tls_device, "other.example", SKF_ERR_NET, "for another name");
    ask_who(skf_wire_server_port(srv), &trusts_foreign, "centre.example", SKF_ERR_NET, "not valid for our CA");
    skf_wire_server_close(srv);
}

static void test_enrolment_port(void **state)
{
    struct server_side side = {.all = RECORD_INIT};
    struct skf_why why = {{0}};
    struct skf_wire_server_opts o = {.tls = {NULL, TLS_DIR "server.crt", TLS_DIR "server.key", true}};
    struct skf_wire_server *srv = serve_with(&side, o, &why);
    assert_non_null(srv);
    ask_who(skf_wire_server_port(srv), &bare, NULL, SKF_OK, "");
    ask_who(skf_wire_server_port(srv), &foreign, NULL, SKF_OK,
            ""); /* a certificate that was not asked for says nothing */
    skf_wire_server_close(srv);
}

static void test_nobody_there(void **state)
{
    struct server_side side = {.all = RECORD_INIT};
    struct skf_wire_server *srv = serve(&side);
    int port = skf_wire_server_port(srv);
    skf_wire_server_close(srv);
    ask_who(port, &tls_device, NULL, SKF_ERR_NET, "could not connect: Connection refused");
}

static void refuse_server(struct skf_wire_tls tls, enum skf_err want, const char *text)
{
    struct skf_wire_server_opts o = {.listen = "127.0.0.1:0", .tls = tls};
    struct skf_wire_server *s;
    struct skf_why why = {{0}};
    enum skf_err e = skf_wire_server_open(&o, NULL, 0, &s, &why);
    assert_null(s);
    if (e != want || !strstr(why.text, text))
        fail_msg("%s: %s", skf_err_name(e), why.text);
}

static void refuse_channel(const char *address, struct skf_wire_tls tls, enum skf_err want, const char *text)
{
    struct skf_wire_channel *c;
    struct skf_why why = {{0}};
    enum skf_err e = skf_wire_channel_open(address, &tls, NULL, &c, &why);
    assert_null(c);
    if (e != want || !strstr(why.text, text))
        fail_msg("%s: %s", skf_err_name(e), why.text);
}

static void test_bad_files(void **state)
{
    struct skf_wire_tls t = tls_server;
    t.key_path = "tests/vectors/tls/absent.key";
    refuse_server(t, SKF_ERR_NOT_FOUND, "absent.key");
    refuse_channel("127.0.0.1:1", t, SKF_ERR_NOT_FOUND, "absent.key");
    t.key_path = TLS_DIR "server.crt";
    refuse_server(t, SKF_ERR_FORMAT, "server.crt: not PEM with a private key");
    t.key_path = TLS_DIR "device.key"; /* another certificate's */
    refuse_server(t, SKF_ERR_FORMAT, "not a certificate and its key");
    t = tls_server;
    t.cert_path = TLS_DIR "make.py";
    refuse_server(t, SKF_ERR_FORMAT, "make.py: not PEM with a certificate");
    t.cert_path = NULL;
    refuse_channel("127.0.0.1:1", t, SKF_ERR_ARG, "go together");
    t.key_path = NULL;
    refuse_server(t, SKF_ERR_ARG, "a server needs a certificate");
    t.ca_path = NULL;
    refuse_channel("127.0.0.1:1", t, SKF_ERR_ARG, "CA");
    refuse_channel("127.0.0.1", tls_device, SKF_ERR_ARG, "HOST:PORT");
    refuse_channel("127.0.0.1:http", tls_device, SKF_ERR_ARG, "HOST:PORT");
    refuse_channel(":7443", tls_device, SKF_ERR_ARG, "HOST:PORT");
}

/* A key that others can read is refused, by either end, unless that was allowed. */
static void test_open_key(void **state)
{
    static const unsigned modes[] = {0600, 0400, 0640, 0604, 0644};
    char path[128];
    uint8_t *p;
    size_t n;
    const char *base = getenv("SKF_TMP");
    (void)snprintf(path, sizeof path, "%.80s/open-%ld.key", base ? base : "/tmp", (long)getpid());
    assert_int_equal(skf_file_read(TLS_DIR "server.key", 65536, &p, &n, NULL), SKF_OK);
    assert_int_equal(skf_file_write(path, p, n, 0600, NULL), SKF_OK);
    skf_free(p);
    for (size_t i = 0; i < SKF_COUNT(modes); i++) {
        struct skf_wire_server_opts o = {.listen = "127.0.0.1:0", .tls = {TLS_DIR "ca.crt", TLS_DIR "server.crt", path, false}};
        struct skf_wire_server *s = NULL;
        assert_int_equal(chmod(path, modes[i]), 0);
        if (modes[i] & 077) {
            refuse_server(o.tls, SKF_ERR_REFUSED, "others can read this key");
            refuse_channel("127.0.0.1:1", o.tls, SKF_ERR_REFUSED, "others can read this key");
            o.tls.is_open_key_fine = true;
        }
        assert_int_equal(skf_wire_server_open(&o, NULL, 0, &s, NULL), SKF_OK);
        skf_wire_server_close(s);
    }
    assert_int_equal(unlink(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identities),      cmocka_unit_test(test_refused_clients),
        cmocka_unit_test(test_refused_servers), cmocka_unit_test(test_enrolment_port),
        cmocka_unit_test(test_nobody_there),    cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_open_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
