/*
 * Quantizers against those of the `gguf` package (tests/lib/quant_vectors.py prints the table), bit for bit; halves against
 * arithmetic; rows rewritten on their own grid.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/digest.h"
#include "model/grid.h"
#include "model/tensor.h"

enum { BLOCKS = 4096, N = BLOCKS * 32 };

static const struct {
    enum skf_type type;
    const char *quantized, *back;
} vectors[] = {
    {SKF_T_F16, "f072fe9142a51ad15c51c3d56b91abced1ac87b705ea8d2143acd9c56af5226e",
     "52a2c788ec837f282a46cda173a768f2119763b76d024fde876cf4be60e73b7e"},
    {SKF_T_BF16, "401408fca964ac4319abc538b487304e0db425a95e8f7420fa83795c659b3dfc",
     "3eeb7aab81ee5aee8ef8c16a78ef4980cfe06f035d1eb06d260939b81bc36acd"},
    {SKF_T_Q8_0, "d38202d9ce87607a93a406f19964b532ee73f0cae14ce0bab854a668bb879060",
     "36b46eade23fc34dfcaf7e68b68a4a1a3b45755affef51e70f2cabe6fa48f03f"},
    {SKF_T_Q4_0, "f9df125230d5b41a213ea59f1c4c3fcd50ab8b09e2796d26b3e14887f3a572f9",
     "749559c9a38118d8b4fca95a6773d6c38038e76ee4db25536216fb71002264f6"},
    {SKF_T_Q4_1, "b55c2c75ba38b9fc84a6d527288cbb265a48767dc4004fd35251ea0ff74178e1",
     "0aa6a2f6d9efa96809f652352df2b4b17ec266643af3e815b293a66a8b3a8df0"},
    {SKF_T_Q5_0, "7e033198234502dc214ff00574dc7c1f9efc9112c280f8e36a21f5f2edbc507b",
     "072553d0ddd2e2cfaa14806e811e4587a29b804e6d1a573f8c449ee597bcef18"},
    {SKF_T_Q5_1, "a1f1365b150f98a4d99521c3aaaf621e3bbf3095ed0c15ef0ec44a592c1b880a",
     "28eea76a1ca2210d70b812c81ee6a2b48436fed3b76bfecd440eb28003aa07ba"},
};

/* As quant_vectors.py makes it. */
static void fill_noise(float *x)
{
    uint32_t s = 12345;
    float scale = 1.0f;
    for (int block = 0; block < BLOCKS; block++) {
        scale = block % 40 == 0 ? 1.0f : scale / 2;
        for (int i = 0; i < 32; i++) {
            s = s * 1664525 + 1013904223;
            int v = (int)(s >> 16) - 32768;
            if (block % 7 == 0)
                v = (v + 32768) / 4096 * 4096 - 32768;
            x[block * 32 + i] = (float)v * scale;
        }
    }
    for (int i = 0; i < 64; i++)
        x[i] = i < 32 ? 0.0f : -1.5f;
}

static void digest_is(const void *p, size_t n, const char *want)
{
    uint8_t digest[SKF_DIGEST];
    char hex[SKF_HEX];
    skf_sha256(p, n, digest);
    skf_hex(digest, SKF_DIGEST, hex);
    assert_string_equal(hex, want);
}

static void equals_the_package(void **state)
{
    float *x = skf_alloc(N * sizeof *x), *back = skf_alloc(N * sizeof *back);
    uint8_t *q = skf_alloc(N * sizeof *x);
    assert_true(x && back && q);
    fill_noise(x);
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        const struct skf_type_info *ti = skf_type_info(vectors[i].type);
        assert_int_equal(skf_quantize(ti->type, x, q, N), SKF_OK);
        digest_is(q, N / ti->block * ti->block_bytes, vectors[i].quantized);
        assert_int_equal(skf_dequantize(ti->type, q, back, N), SKF_OK);
        digest_is(back, N * sizeof *back, vectors[i].back);
    }
    assert_int_equal(skf_quantize(SKF_T_F32, x, q, N), SKF_OK);
    assert_int_equal(skf_dequantize(SKF_T_F32, q, back, N), SKF_OK);
    assert_memory_equal(x, back, N * sizeof *x);
    assert_int_equal(skf_quantize(SKF_T_Q6_K, x, q, N), SKF_ERR_UNSUPPORTED);
    assert_int_equal(skf_dequantize(SKF_T_IQ1_S, q, back, N), SKF_ERR_UNSUPPORTED);
    assert_int_equal(skf_quantize(SKF_T_Q4_1, x, q, 33), SKF_ERR_ARG);
    skf_free(x);
    skf_free(back);
    skf_free(q);
}

/* Numbers that are none, infinite or out of any range must neither trap nor leave the codes' range. */
static void survives_what_is_no_number(void **state)
{
    const float bad[] = {__builtin_nanf(""), 1e38f * 10.0f, -1e38f * 10.0f, 3e38f, -3e38f, 1e-45f, -1e-45f, -0.0f};
    float x[32], back[32];
    uint8_t q[32 * 4];
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        for (int at = 0; at < 32; at += 5) {
            for (int i = 0; i < 32; i++)
                x[i] = (float)i - 16.0f;
            x[at] = bad[k];
            for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
                assert_int_equal(skf_quantize(vectors[i].type, x, q, 32), SKF_OK);
                assert_int_equal(skf_dequantize(vectors[i].type, q, back, 32), SKF_OK);
            }
        }
    }
}

static void halves_are_exact(void **state)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = skf_f16_to_f32((uint16_t)h);
        uint32_t exponent = h >> 10 & 31, fraction = h & 1023;
        if (exponent == 31 && fraction) {
            assert_true(f != f && (skf_f32_to_f16(f) & 0x7E00) == 0x7E00);
            continue;
        }
        assert_int_equal(skf_f32_to_f16(f), h);
        double want = exponent == 31 ? 65536.0 * 65536.0 * 65536.0 : (exponent ? 1024.0 + fraction : fraction) / 16777216.0;
        for (uint32_t e = exponent ? exponent : 1; e > 1 && exponent != 31; e--)
            want *= 2;
        if (exponent == 31)
            assert_true((f > 0) == !(h & 0x8000) && f - f != 0);
        else
            assert_true((double)f == (h & 0x8000 ? -want : want));
    }
    /* Ties go to even, what is past them to the nearer. */
    assert_int_equal(skf_f32_to_f16(1.0f + 0x1p-11f), 0x3C00);
    assert_int_equal(skf_f32_to_f16(1.0f + 0x1p-11f + 0x1p-20f), 0x3C01);
    assert_int_equal(skf_f32_to_f16(1.0f + 3 * 0x1p-11f), 0x3C02);
    assert_int_equal(skf_f32_to_f16(65519.0f), 0x7BFF);
    assert_int_equal(skf_f32_to_f16(65520.0f), 0x7C00);
    assert_int_equal(skf_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(skf_f32_to_f16(0x1.8p-25f), 1);
    assert_int_equal(skf_f32_to_f16(-0x1p-14f + 0x1p-26f), 0x8400);
    assert_int_equal(skf_f32_to_bf16(1.0f + 0x1p-8f), 0x3F80);
    assert_int_equal(skf_f32_to_bf16(1.0f + 3 * 0x1p-8f), 0x3F82);
    assert_int_equal(skf_f32_to_bf16(3.4e38f), 0x7F80);
}

static void a_row_on_its_grid_stays(void **state)
{
    static const enum skf_type types[] = {SKF_T_F32,  SKF_T_F16,  SKF_T_BF16, SKF_T_Q8_0,
                                          SKF_T_Q4_0, SKF_T_Q4_1, SKF_T_Q5_0, SKF_T_Q5_1};
    float *x = skf_alloc(N * sizeof *x);
    uint8_t *q = skf_alloc(N * sizeof *x), *again = skf_alloc(N * sizeof *x);
    assert_true(x && q && again);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const struct skf_type_info *ti = skf_type_info(types[i]);
        size_t n = N / ti->block * ti->block_bytes;
        fill_noise(x);
        for (int k = 0; k < N; k++)
            x[k] *= 0x1p-12f; /* so that no scale overflows a half */
        assert_int_equal(skf_quantize(ti->type, x, q, N), SKF_OK);
        memcpy(again, q, n);
        assert_int_equal(skf_dequantize(ti->type, q, x, N), SKF_OK);
        assert_int_equal(skf_grid_row(ti->type, again, x, N), SKF_OK);
        assert_memory_equal(again, q, n);
    }
    skf_free(x);
    skf_free(q);
    skf_free(again);
}

/* A change of a fifth of a step everywhere: rounding alone would lose it, the carried error keeps its sum. */
static void small_changes_add_up(void **state)
{
    static const enum skf_type types[] = {SKF_T_Q8_0, SKF_T_Q4_0, SKF_T_Q4_1, SKF_T_Q5_0, SKF_T_Q5_1};
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        float x[96], back[96], before = 0, after = 0, step = 0;
        uint8_t q[96 * 4], old[96 * 4];
        for (int i = 0; i < 96; i++)
            x[i] = (float)((i * 37) % 64 - 32) / 8.0f;
        assert_int_equal(skf_quantize(types[t], x, q, 96), SKF_OK);
        memcpy(old, q, sizeof q);
        assert_int_equal(skf_dequantize(types[t], q, x, 96), SKF_OK);
        step = skf_f16_to_f32(skf_le16(q));
        step = step < 0 ? -step : step;
        for (int i = 0; i < 96; i++) {
            before += x[i];
            x[i] += step / 5;
        }
        assert_int_equal(skf_grid_row(types[t], q, x, 96), SKF_OK);
        assert_int_equal(skf_dequantize(types[t], q, back, 96), SKF_OK);
        for (int i = 0; i < 96; i++)
            after += back[i];
        uint32_t bytes = skf_type_info((uint32_t)types[t])->block_bytes;
        for (int b = 0; b < 3; b++) /* scales stay */
            assert_memory_equal(q + b * (int)bytes, old + b * (int)bytes, 2);
        float moved = (after - before) / step; /* of 96 / 5 = 19.2 steps; what saturates at the grid's end may be lost */
        if (!(moved > 14 && moved < 21))
            fail_msg("%s: moved %f steps", skf_type_info((uint32_t)types[t])->name, (double)moved);
    }
}

static void flat_blocks_and_bad_scales(void **state)
{
    float x[32] = {0}, back[32];
    uint8_t q[20] = {0};
    assert_int_equal(skf_grid_row(SKF_T_Q4_1, q, x, 32), SKF_OK);
    for (int i = 0; i < 32; i++)
        x[i] = (float)i;
    assert_int_equal(skf_grid_row(SKF_T_Q4_1, q, x, 32), SKF_OK); /* a block of zeros gets a grid */
    assert_int_equal(skf_dequantize(SKF_T_Q4_1, q, back, 32), SKF_OK);
    assert_true(back[0] == 0.0f && back[31] > 30.9f && back[31] < 31.1f);
    skf_put_le16(q, 0x7C00);
    assert_int_equal(skf_grid_row(SKF_T_Q4_1, q, x, 32), SKF_ERR_FORMAT);
    skf_put_le16(q, 0x3C00);
    skf_put_le16(q + 2, 0x7E00);
    assert_int_equal(skf_grid_row(SKF_T_Q4_1, q, x, 32), SKF_ERR_FORMAT);
    x[7] = 1e38f * 10.0f;
    assert_int_equal(skf_grid_row(SKF_T_Q8_0, q, x, 32), SKF_ERR_FORMAT);
    assert_int_equal(skf_grid_row(SKF_T_F16, q, x, 32), SKF_ERR_FORMAT);
    assert_int_equal(skf_grid_row(SKF_T_Q4_K, q, x, 32), SKF_ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_package),      cmocka_unit_test(survives_what_is_no_number),
        cmocka_unit_test(halves_are_exact),        cmocka_unit_test(a_row_on_its_grid_stays),
        cmocka_unit_test(small_changes_add_up),    cmocka_unit_test(flat_blocks_and_bad_scales),
    };
    return cmocka_run_group_tests_name("model_quant", tests, NULL, NULL);
}
