/* Key files: what is written can be read by its owner alone, and nothing but a whole, true key file is taken. */
#include <sys/stat.h>

#include <sodium.h>

#include "tests/lib/trust_fix.h"

static char dir[64], path[128], pub_path[140];

static int setup(void **state)
{
    (void)state;
    fix_dir(dir);
    (void)snprintf(path, sizeof path, "%s/k.key", dir);
    (void)snprintf(pub_path, sizeof pub_path, "%s.pub", path);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    fix_remove(dir);
    return 0;
}

static void test_round(void **state)
{
    (void)state;
    struct skf_key *k, *l;
    struct stat st;
    fix_ok(skf_key_generate("targets", &k, why));
    fix_ok(skf_key_save(k, path, why));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    fix_ok(skf_key_load(path, &l, why));
    assert_string_equal(skf_key_id(k), skf_key_id(l));
    assert_string_equal(skf_key_role(l), "targets");
    uint8_t a[64], b[64];
    skf_key_sign(k, "x", 1, a);
    skf_key_sign(l, "x", 1, b);
    assert_memory_equal(a, b, 64);
    skf_json *pub;
    char id[SKF_KEYID_HEX];
    fix_ok(skf_key_load_public(pub_path, &pub, id, why));
    assert_string_equal(id, skf_key_id(k));
    uint8_t bytes[32];
    fix_ok(skf_unhex(skf_json_cstr(skf_json_get(skf_json_get(pub, "keyval"), "public")), bytes, 32));
    assert_int_equal(crypto_sign_verify_detached(a, (const uint8_t *)"x", 1, bytes), 0);
    skf_json_free(pub);
    fix_err(SKF_ERR_EXISTS, "k.key", skf_key_save(k, path, why));
    assert_int_equal(unlink(path), 0);
    fix_err(SKF_ERR_EXISTS, "k.key.pub", skf_key_save(k, path, why));
    assert_int_not_equal(access(path, F_OK), 0);
    skf_key_free(k);
    skf_key_free(l);
    skf_key_free(NULL);
}

/* The keyid is the hash of the canonical key, as python-tuf computes it (this key and id are from there). */
static void test_keyid(void **state)
{
    (void)state;
    static const char text[] = "{\"scheme\": \"ed25519\", \"keytype\": \"ed25519\", \"keyval\": {\"public\": "
                               "\"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\"}}";
    skf_json *pub;
    char id[SKF_KEYID_HEX];
    fix_ok(skf_file_write(pub_path, text, strlen(text), 0644, why));
    fix_ok(skf_key_load_public(pub_path, &pub, id, why));
    assert_string_equal(id, "74c181c7ad8a0855d4b55e44d2ba87aabdddb196832571f15f92fece332e4916");
    skf_json_free(pub);
}

static void test_open_to_others(void **state)
{
    (void)state;
    struct skf_key *k, *l = NULL;
    fix_ok(skf_key_generate("root", &k, why));
    fix_ok(skf_key_save(k, path, why));
    static const mode_t modes[] = {0640, 0604, 0660, 0620};
    for (size_t i = 0; i < SKF_COUNT(modes); i++) {
        assert_int_equal(chmod(path, modes[i]), 0);
        fix_err(SKF_ERR_REFUSED, "chmod 600", skf_key_load(path, &l, why));
    }
    assert_int_equal(chmod(path, 0400), 0);
    fix_ok(skf_key_load(path, &l, why));
    skf_key_free(k);
    skf_key_free(l);
}

static void test_bad_files(void **state)
{
    (void)state;
    struct skf_key *k, *l = NULL;
    skf_json *pub = NULL;
    char id[SKF_KEYID_HEX];
    uint8_t *text;
    size_t n;
    fix_err(SKF_ERR_NOT_FOUND, "k.key", skf_key_load(path, &l, why));
    fix_err(SKF_ERR_ARG, "role", skf_key_generate("no/role", &k, why));
    fix_ok(skf_key_generate("root", &k, why));
    fix_ok(skf_key_save(k, path, why));
    skf_key_free(k);
    fix_ok(skf_file_read(path, 65536, &text, &n, why));
    fix_err(SKF_ERR_ARG, "private key", skf_key_load_public(path, &pub, id, why));
    for (size_t cut = 0; cut < n - 3; cut += 11) { /* no part of it is a key */
        fix_ok(skf_file_write(path, text, cut, 0600, why));
        assert_int_not_equal(skf_key_load(path, &l, why), SKF_OK);
    }
    char *pub_at = strstr((char *)text, "\"public\": \"") + 11;
    *pub_at = *pub_at == '0' ? '1' : '0';
    fix_ok(skf_file_write(path, text, n, 0600, why));
    fix_err(SKF_ERR_FORMAT, "public half", skf_key_load(path, &l, why));
    char *version = strstr((char *)text, "\"version\": 1") + 11;
    *version = '2';
    fix_ok(skf_file_write(path, text, n, 0600, why));
    fix_err(SKF_ERR_UNSUPPORTED, "version 1", skf_key_load(path, &l, why));
    skf_free(text);
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "{\"keytype\":\"ed25519\",\"scheme\":\"ed25519\",\"keyval\":{\"public\":\"00\"}}",
        "{\"keytype\":\"dsa\",\"scheme\":\"dsa\",\"keyval\":{\"public\":\"00\"}}",
        "{\"keytype\":\"rsa\",\"scheme\":\"rsassa-pss-sha256\",\"keyval\":{\"public\":\"-----BEGIN\"}}"};
    for (size_t i = 0; i < SKF_COUNT(bad); i++) {
        fix_ok(skf_file_write(pub_path, bad[i], strlen(bad[i]), 0644, why));
        fix_err(i == 4 ? SKF_ERR_UNSUPPORTED : SKF_ERR_FORMAT, "k.key.pub",
                skf_key_load_public(pub_path, &pub, id, why));
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_round), T(test_keyid), T(test_open_to_others), T(test_bad_files)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
