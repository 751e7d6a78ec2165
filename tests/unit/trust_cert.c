/* Certificates: identities, times, foreign CAs, requests whose sender does not hold the key. (tests/cli/trust.py asks
 * OpenSSL.) */
#include <sys/stat.h>

#include "tests/lib/trust_fix.h"
#include "trust/cert.h"

static char dir[64], ca[80], tls[80], at[200];

static const char *in(const char *folder, const char *name)
{
    (void)snprintf(at, sizeof at, "%s/%s", folder, name);
    return at;
}

static int setup(void **state)
{
    (void)state;
    fix_dir(dir);
    (void)snprintf(ca, sizeof ca, "%s/ca", dir);
    (void)snprintf(tls, sizeof tls, "%s/tls", dir);
    skf_clock_set(FIX_NOW);
    fix_ok(skf_ca_init(ca, "acme", 3650, why));
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    skf_clock_set(0);
    fix_remove(dir);
    return 0;
}

static enum skf_err check_at(const char *crt, const char *ca_dir, int64_t now, int64_t *to)
{
    char ca_crt[200];
    (void)snprintf(ca_crt, sizeof ca_crt, "%s/ca.crt", ca_dir);
    return skf_cert_check(crt, ca_crt, now, to, why);
}

static void test_issue(void **state)
{
    (void)state;
    static const char *const hosts[] = {"localhost", "127.0.0.1", "::1", "centre.example"};
    const struct skf_cert_req r = {SKF_CERT_DISTRIBUTOR, "centre", hosts, 4, 30};
    struct stat st;
    int64_t to = 0;
    fix_ok(skf_ca_issue(ca, &r, tls, "distributor", why));
    assert_int_equal(stat(in(tls, "distributor.key"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(in(ca, "ca.key"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(access(in(tls, "ca.crt"), R_OK), 0);
    fix_ok(check_at(in(tls, "distributor.crt"), ca, FIX_NOW, &to));
    assert_int_equal(to, FIX_NOW + 30 * FIX_DAY);
    fix_ok(check_at(in(tls, "distributor.crt"), ca, FIX_NOW - FIX_DAY + 60, &to)); /* a clock that is behind */
    fix_err(SKF_ERR_EXPIRED, "distributor.crt: expired",
            check_at(in(tls, "distributor.crt"), ca, FIX_NOW + 31 * FIX_DAY, &to));
    fix_err(SKF_ERR_EXPIRED, "is the clock right", check_at(in(tls, "distributor.crt"), ca, 0, &to));
    fix_err(SKF_ERR_EXISTS, "distributor.crt", skf_ca_issue(ca, &r, tls, "distributor", why));
    fix_err(SKF_ERR_EXISTS, "ca.crt", skf_ca_init(ca, "acme", 10, why));
    char fleet[65];
    fix_ok(skf_ca_fleet(in(ca, "ca.crt"), fleet, why));
    assert_string_equal(fleet, "acme");
}

static void test_ends_with_ca(void **state)
{
    (void)state;
    char short_ca[80];
    int64_t to;
    (void)snprintf(short_ca, sizeof short_ca, "%s/short", dir);
    fix_ok(skf_ca_init(short_ca, "acme", 10, why));
    const struct skf_cert_req r = {SKF_CERT_DEVICE, "box", NULL, 0, 365};
    fix_ok(skf_ca_issue(short_ca, &r, tls, "device", why));
    fix_ok(check_at(in(tls, "device.crt"), short_ca, FIX_NOW, &to));
    assert_int_equal(to, FIX_NOW + 10 * FIX_DAY);
    skf_clock_set(FIX_NOW + 11 * FIX_DAY);
    fix_err(SKF_ERR_EXPIRED, "CA's own", skf_ca_issue(short_ca, &r, tls, "device2", why));
    assert_int_not_equal(access(in(tls, "device2.key"), F_OK), 0);
}

static void test_foreign(void **state)
{
    (void)state;
    char other[80];
    int64_t to;
    (void)snprintf(other, sizeof other, "%s/other", dir);
    fix_ok(skf_ca_init(other, "acme", 3650, why)); /* the same name, another key */
    const struct skf_cert_req r = {SKF_CERT_DEVICE, "box", NULL, 0, 30};
    fix_ok(skf_ca_issue(other, &r, tls, "device", why));
    fix_err(SKF_ERR_SIGNATURE, "device.crt", check_at(in(tls, "device.crt"), ca, FIX_NOW, &to));
    uint8_t *p;
    size_t n;
    fix_ok(skf_file_read(in(other, "ca.key"), 65536, &p, &n, why));
    fix_ok(skf_file_write(in(ca, "ca.key"), p, n, 0600, why)); /* a CA folder of two halves */
    skf_free(p);
    fix_err(SKF_ERR_FORMAT, "is not the key of", skf_ca_issue(ca, &r, tls, "device2", why));
    assert_int_equal(chmod(in(ca, "ca.key"), 0644), 0);
    fix_err(SKF_ERR_REFUSED, "chmod 600", skf_ca_issue(ca, &r, tls, "device2", why));
    fix_ok(skf_file_write(in(tls, "device.crt"), "nothing", 7, 0644, why));
    fix_err(SKF_ERR_FORMAT, "device.crt", check_at(in(tls, "device.crt"), ca, FIX_NOW, &to));
    fix_err(SKF_ERR_NOT_FOUND, "none.crt", check_at(in(tls, "none.crt"), ca, FIX_NOW, &to));
}

static void test_arguments(void **state)
{
    (void)state;
    static const char *const bad_names[] = {
        "",       "a b", "a/b", "..",
        "a,CN=b", "a\n", NULL,  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"};
    static const char *const bad_hosts[] = {"", "a b", "-x", "x_y", "http://x", "x/y"};
    for (size_t i = 0; i < SKF_COUNT(bad_names); i++) {
        const struct skf_cert_req r = {SKF_CERT_DEVICE, bad_names[i], NULL, 0, 30};
        fix_err(SKF_ERR_ARG, "name", skf_ca_issue(ca, &r, tls, "device", why));
    }
    for (size_t i = 0; i < SKF_COUNT(bad_hosts); i++) {
        const struct skf_cert_req r = {SKF_CERT_DISTRIBUTOR, "c", &bad_hosts[i], 1, 30};
        fix_err(SKF_ERR_ARG, "host", skf_ca_issue(ca, &r, tls, "d", why));
    }
    static const char *const host = "localhost";
    const struct skf_cert_req poser = {SKF_CERT_DEVICE, "box", &host, 1, 30},
                              never = {SKF_CERT_DEVICE, "box", NULL, 0, 0};
    fix_err(SKF_ERR_ARG, "only a distributor", skf_ca_issue(ca, &poser, tls, "device", why));
    fix_err(SKF_ERR_ARG, "days", skf_ca_issue(ca, &never, tls, "device", why));
    fix_err(SKF_ERR_ARG, "file name",
            skf_ca_issue(ca, &(struct skf_cert_req){SKF_CERT_DEVICE, "b", NULL, 0, 3}, tls, "ca", why));
    fix_err(SKF_ERR_ARG, "fleet", skf_ca_init(tls, "a/b", 10, why));
    assert_int_not_equal(access(tls, F_OK), 0);
}

static void test_request(void **state)
{
    (void)state;
    char csr[4096], again[4096], crt[8192], key[200];
    int64_t to;
    (void)snprintf(key, sizeof key, "%s/device.key", dir);
    fix_ok(skf_csr_new(key, "box-1", csr, sizeof csr, why));
    fix_ok(skf_csr_new(key, "box-1", again, sizeof again, why)); /* with the key that is there already */
    fix_ok(skf_ca_sign_csr(ca, again, "box-7", 30, crt, sizeof crt, why));
    fix_ok(skf_file_write(in(dir, "device.crt"), crt, strlen(crt), 0644, why));
    fix_ok(check_at(in(dir, "device.crt"), ca, FIX_NOW, &to));
    assert_int_equal(to, FIX_NOW + 30 * FIX_DAY);
    size_t n = strlen(csr);
    unsigned refused = 0, tried = 0;
    for (size_t i = 40; i + 40 < n; i++) { /* any letter changed: no certificate */
        char was = csr[i];
        if (was == '\n')
            continue;
        csr[i] = was == 'A' ? 'B' : 'A';
        tried++;
        refused += skf_ca_sign_csr(ca, csr, "box-1", 30, crt, sizeof crt, why) != SKF_OK;
        csr[i] = was;
    }
    assert_true(tried > 200);
    assert_true(refused + 2 >= tried); /* the last digits of base64 may hold no bits */
    fix_err(SKF_ERR_FORMAT, "signing request", skf_ca_sign_csr(ca, "x", "box-1", 30, crt, sizeof crt, why));
    fix_err(SKF_ERR_LIMIT, "does not fit", skf_ca_sign_csr(ca, csr, "box-1", 30, crt, 100, why));
    fix_err(SKF_ERR_ARG, "name", skf_ca_sign_csr(ca, csr, "box/1", 30, crt, sizeof crt, why));
    assert_int_equal(chmod(key, 0644), 0);
    fix_err(SKF_ERR_REFUSED, "chmod 600", skf_csr_new(key, "box-1", csr, sizeof csr, why));
}

static void test_identity(void **state)
{
    (void)state;
    enum skf_cert_kind k;
    char name[65];
    assert_true(is_spiffe("spiffe://acme/device/box-1", "acme", &k, name));
    assert_int_equal(k, SKF_CERT_DEVICE);
    assert_string_equal(name, "box-1");
    assert_true(is_spiffe("spiffe://acme/operator/ann", NULL, &k, name));
    assert_int_equal(k, SKF_CERT_OPERATOR);
    assert_true(is_spiffe("spiffe://acme/distributor/c", "acme", &k, name));
    assert_int_equal(k, SKF_CERT_DISTRIBUTOR);
    static const char *const bad[] = {"",
                                      "spiffe://",
                                      "spiffe:///device/x",
                                      "spiffe://acme",
                                      "spiffe://acme/",
                                      "spiffe://acme/device",
                                      "spiffe://acme/device/",
                                      "spiffe://acme/device/a/b",
                                      "spiffe://acme/device/..",
                                      "spiffe://acme/devices/x",
                                      "spiffe://acme/admin/x",
                                      "http://acme/device/x",
                                      "SPIFFE://acme/device/x",
                                      "spiffe://acm/device/x",
                                      "spiffe://acme2/device/x",
                                      "spiffe://acme/device/a b"};
    for (size_t i = 0; i < SKF_COUNT(bad); i++)
        if (is_spiffe(bad[i], "acme", &k, name))
            fail_msg("%s", bad[i]);
    assert_false(is_spiffe(NULL, "acme", &k, name));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_issue),     T(test_ends_with_ca), T(test_foreign),
                                       T(test_arguments), T(test_request),      T(test_identity)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
