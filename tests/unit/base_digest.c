/* SHA-256: every way of hashing one message or many against plain C after FIPS 180-4, and that against the standard's examples. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/digest.h"
#include "base/digest_priv.h"
#include "base/util.h"

static uint32_t turn(uint32_t x, unsigned n) { return x >> n | x << (32 - n); }

static void plain_block(uint32_t s[8], const uint8_t *p)
{
    uint32_t w[64], x[8];
    memcpy(x, s, sizeof x);
    for (unsigned i = 0; i < 64; i++) {
        if (i < 16) {
            w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
        } else {
            uint32_t a = w[i - 15], b = w[i - 2];
            w[i] = w[i - 16] + w[i - 7] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) + (turn(b, 17) ^ turn(b, 19) ^ b >> 10);
        }
        uint32_t t = x[7] + (turn(x[4], 6) ^ turn(x[4], 11) ^ turn(x[4], 25)) + ((x[4] & x[5]) ^ (~x[4] & x[6])) + sha_constants[i] + w[i];
        uint32_t u = (turn(x[0], 2) ^ turn(x[0], 13) ^ turn(x[0], 22)) + ((x[0] & x[1]) ^ (x[0] & x[2]) ^ (x[1] & x[2]));
        memmove(x + 1, x, 7 * sizeof *x);
        x[4] += t;
        x[0] = t + u;
    }
    for (unsigned i = 0; i < 8; i++)
        s[i] += x[i];
}

static void plain(const uint8_t *p, size_t n, uint8_t out[SKF_DIGEST])
{
    uint32_t s[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t end[128] = {0};
    size_t left = n % 64, all = left < 56 ? 64 : 128;
    for (size_t at = 0; at + 64 <= n; at += 64)
        plain_block(s, p + at);
    memcpy(end, p + n - left, left);
    end[left] = 0x80;
    for (unsigned i = 0; i < 8; i++)
        end[all - 1 - i] = (uint8_t)((uint64_t)n * 8 >> 8 * i);
    for (size_t at = 0; at < all; at += 64)
        plain_block(s, end + at);
    for (unsigned i = 0; i < 32; i++)
        out[i] = (uint8_t)(s[i / 4] >> (24 - 8 * (i % 4)));
}

static uint8_t *numbers(size_t n)
{
    uint8_t *p = malloc(n);
    uint32_t x = 12345;
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
    return p;
}

static void test_examples(void **state)
{
    static const struct {
        const char *text, *hex;
    } known[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    uint8_t got[SKF_DIGEST], want[SKF_DIGEST];
    for (size_t i = 0; i < SKF_COUNT(known); i++) {
        size_t n = strlen(known[i].text);
        assert_int_equal(skf_unhex(known[i].hex, want, SKF_DIGEST), SKF_OK);
        plain((const uint8_t *)known[i].text, n, got);
        assert_memory_equal(got, want, SKF_DIGEST);
        skf_sha256(known[i].text, n, got);
        assert_memory_equal(got, want, SKF_DIGEST);
    }
    skf_sha256(NULL, 0, got);
    plain((const uint8_t *)"", 0, want);
    assert_memory_equal(got, want, SKF_DIGEST);
}

static void test_lengths(void **state)
{
    uint8_t *p = numbers(400), got[SKF_DIGEST], want[SKF_DIGEST];
    for (size_t n = 0; n < 300; n++) {
        plain(p + n % 7, n, want);
        skf_sha256(p + n % 7, n, got);
        assert_memory_equal(got, want, SKF_DIGEST);
    }
    free(p);
}

static void test_added_in_pieces(void **state)
{
    uint8_t *p = numbers(5000), got[SKF_DIGEST], want[SKF_DIGEST];
    for (size_t step = 1; step < 200; step += step < 70 ? 1 : 13) {
        struct skf_sha256_ctx *c = skf_sha256_new();
        assert_non_null(c);
        size_t n = 3000 + step;
        for (size_t at = 0; at < n; at += step)
            skf_sha256_add(c, p + at, SKF_MIN(step, n - at));
        skf_sha256_final(c, got);
        plain(p, n, want);
        assert_memory_equal(got, want, SKF_DIGEST);
    }
    skf_sha256_free(skf_sha256_new());
    skf_sha256_free(NULL);
    free(p);
}

/* Any number of messages, of any lengths: short behind long, none, ends of one block and of two. */
static void test_many(void **state)
{
    enum { MOST = 50, ALL = 20000 };
    uint8_t *p = numbers(ALL), got[MOST][SKF_DIGEST], want[SKF_DIGEST];
    struct skf_message m[MOST];
    uint32_t x = 7;
    for (unsigned n = 0; n <= MOST; n++) {
        for (unsigned kind = 0; kind < 4; kind++) {
            for (unsigned i = 0; i < n; i++) {
                x = x * 1664525 + 1013904223;
                size_t len = kind == 0 ? 1024 : kind == 1 ? (x >> 8) % 130 : kind == 2 ? (x >> 8) % ALL : i % 3 ? 64 * (i % 5) : 9000;
                m[i] = (struct skf_message){len ? p + (x >> 3) % (ALL - len + 1) : NULL, len, got[i]};
            }
            memset(got, 0, sizeof got);
            skf_sha256_many(m, n);
            for (unsigned i = 0; i < n; i++) {
                plain(m[i].p ? m[i].p : p, m[i].n, want);
                assert_memory_equal(got[i], want, SKF_DIGEST);
            }
        }
    }
    unsigned lanes = skf_sha256_lanes();
    assert_true(lanes >= 1 && lanes <= SKF_SHA256_MANY);
    free(p);
}

#if defined __x86_64__
static void check_kernel(sha_blocks_fn *fn, unsigned lanes)
{
    enum { BLOCKS = 9 };
    uint8_t *p = numbers(SHA_LANES * (BLOCKS * SHA_BLOCK + 5));
    uint32_t s[SHA_LANES][8], want[SHA_LANES][8];
    const uint8_t *at[SHA_LANES];
    for (unsigned blocks = 0; blocks <= BLOCKS; blocks++) {
        for (unsigned k = 0; k < lanes; k++) {
            at[k] = p + k * (BLOCKS * SHA_BLOCK + 5);
            for (unsigned i = 0; i < 8; i++)
                s[k][i] = want[k][i] = k * 2654435761u + i * 40503u + blocks;
            for (unsigned b = 0; b < blocks; b++)
                plain_block(want[k], at[k] + b * SHA_BLOCK);
        }
        fn(s, at, blocks);
        assert_memory_equal(s, want, lanes * sizeof *s);
    }
    free(p);
}

static void test_kernels(void **state)
{
    enum skf_isa isa;
    if (is_sha_there()) {
        check_kernel(sha_blocks_one, 1);
        check_kernel(sha_blocks_two, 2);
    }
    if (skf_isa_pick(&isa, NULL) == SKF_OK && isa == SKF_ISA_AVX512)
        check_kernel(sha_blocks_avx512, SHA_LANES);
}
#else
static void test_kernels(void **state) {}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_examples), cmocka_unit_test(test_lengths), cmocka_unit_test(test_added_in_pieces),
                                       cmocka_unit_test(test_many), cmocka_unit_test(test_kernels)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
