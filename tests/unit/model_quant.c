/*
 * Quantizers against those of the `gguf` package and of ggml (tests/lib/quant_vectors.py prints the table), bit for bit; halves against
 * arithmetic; rows rewritten on their own grid.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/digest.h"
#include "model/grid.h"
#include "model/quant.h"
#include "model/tensor.h"

enum { BLOCKS = 4096, N = BLOCKS * 32, ROW = 1024 };

static const struct {
    enum skf_type type;
    const char *quantized, *back;
    const char *weighed; /* with importance; NULL where that changes nothing */
} vectors[] = {
    {SKF_T_F16, "f072fe9142a51ad15c51c3d56b91abced1ac87b705ea8d2143acd9c56af5226e",
     "52a2c788ec837f282a46cda173a768f2119763b76d024fde876cf4be60e73b7e",
     NULL},
    {SKF_T_BF16, "401408fca964ac4319abc538b487304e0db425a95e8f7420fa83795c659b3dfc",
     "3eeb7aab81ee5aee8ef8c16a78ef4980cfe06f035d1eb06d260939b81bc36acd",
     NULL},
    {SKF_T_Q8_0, "d38202d9ce87607a93a406f19964b532ee73f0cae14ce0bab854a668bb879060",
     "36b46eade23fc34dfcaf7e68b68a4a1a3b45755affef51e70f2cabe6fa48f03f",
     NULL},
    {SKF_T_Q4_0, "f9df125230d5b41a213ea59f1c4c3fcd50ab8b09e2796d26b3e14887f3a572f9",
     "749559c9a38118d8b4fca95a6773d6c38038e76ee4db25536216fb71002264f6",
     "e7c2fae95c04e319f16196e4dbec58e65dc6b0b8486ee12f9dbbe9683eec8efc"},
    {SKF_T_Q4_1, "b55c2c75ba38b9fc84a6d527288cbb265a48767dc4004fd35251ea0ff74178e1",
     "0aa6a2f6d9efa96809f652352df2b4b17ec266643af3e815b293a66a8b3a8df0",
     "47a6cfb31ae5ffceb22b18a79d9af6f5d94bdbec2f9d236febf8fc9514671bfb"},
    {SKF_T_Q5_0, "7e033198234502dc214ff00574dc7c1f9efc9112c280f8e36a21f5f2edbc507b",
     "072553d0ddd2e2cfaa14806e811e4587a29b804e6d1a573f8c449ee597bcef18",
     "5fa92bb6f79b5abc857bd53edafcfb2dbd852943df6adc629cd59aa3e53c6c6b"},
    {SKF_T_Q5_1, "a1f1365b150f98a4d99521c3aaaf621e3bbf3095ed0c15ef0ec44a592c1b880a",
     "28eea76a1ca2210d70b812c81ee6a2b48436fed3b76bfecd440eb28003aa07ba",
     "d2fb4a79f76ed79bcb2353762642db3ea29bfadb7407462d861262392bcac0dc"},
    {SKF_T_TQ1_0, "fb8f23f88669888b1bcc46aa11d125c6a0c3cfeb7244e595f2c37d5bfb1d1dab",
     "914340d0174e09b9363fbac1f2f29833a87f16a84648e1bc216094b656004af3",
     NULL},
    {SKF_T_TQ2_0, "8a8ef7e165332a98c3f39d1b38035388db72104f565f95a41f74feaead7301ef",
     "914340d0174e09b9363fbac1f2f29833a87f16a84648e1bc216094b656004af3",
     NULL},
    {SKF_T_MXFP4, "8c468ebe6487afdbfaeddc85cb32a61d6660191dfe9826a8b96793ee9e5c0dc5",
     "b8c1d2f32598adee410ef94428210b8b96a9d850ce4a81eb436f9fb910bf74fb",
     NULL},
    {SKF_T_Q2_K, "5b554e5f61f2fc4fc81a802fc136dceda0ac870d04d382aff3bb4c0310511943",
     "8d48a00a95d43136672a16e5698ea54935c507a402f3689c6bbfa3bdb612e3ef",
     "61200c59ca4b4108bb9368eeb8782be7acd4dcbae71ccebe42922fbfbd5c9bef"},
    {SKF_T_Q3_K, "df02b7062044ab336d53072795b12f4d2d9c5010acf6fd3184e444201af09bd1",
     "32fbaee5471e6122f92880e0a49a5a6ee4e69776b54975dfe62cd4e3010bf52e",
     "981ee32dfe04f85612a95586d2e5ce219a6b2afe59b77d0c6a9bc97815817263"},
    {SKF_T_Q4_K, "128fb82c79b9076e650667e94730c0ab057c029151fa0690fa3861edf5530d5a",
     "6d2cabc87172f7f7a036776b618f42c077a6100e9effd403776be3acaa0ec2e5",
     "5199381a6d8c0661add756ed0918b497fab0b7ae01319fdccf58e32cec406bb4"},
    {SKF_T_Q5_K, "b66dc14fefcd5e83aa436e2c83873bd66a4c655e5bb7ba772921ecfa5990714d",
     "89dbcf03e0f18e8850c80857d85458968e9d89f07292031ca4a63ed096cc1abe",
     "da7db7020d46dcb64dd10d73324e830fe21a3ae5886618f32d023a39a977268c"},
    {SKF_T_Q6_K, "71456133e089c08131eba2ff583d1907c59255bac635b8018b323c230362b961",
     "b8e113aecc26fe358d2dd2623e0150cdfaceda61768b2cb14b601b90ac43546d",
     "f157b1eda479a752e54b7fa3095e478af61c00bb1d77fb7610a11d43a6899959"},
    {SKF_T_IQ4_NL, "82cac652887f7255df35980a2ebcbd9ce7fdb0d2bb7486dd6045ec1831a5d222",
     "bdb121f461cd57df88042a06afc7a1e111888c6c2aa224914177f79cc4f48ca9",
     "b398871f3b8198a23cd078471bb08fad2e3fbd5110dc077fc8a83ab93fd34151"},
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
    assert_int_equal(skf_quantize(SKF_T_IQ4_XS, x, q, N), SKF_ERR_UNSUPPORTED);
    assert_int_equal(skf_dequantize(SKF_T_IQ1_S, q, back, N), SKF_ERR_UNSUPPORTED);
    assert_int_equal(skf_quantize(SKF_T_Q4_1, x, q, 33), SKF_ERR_ARG);
    assert_int_equal(skf_quantize(SKF_T_Q4_K, x, q, 128), SKF_ERR_ARG);
    skf_free(x);
    skf_free(back);
    skf_free(q);
}

static void importance_as_ggml(void **state)
{
    float *x = skf_alloc(N * sizeof *x), w[ROW];
    uint8_t *q = skf_alloc(N * sizeof *x);
    assert_true(x && q);
    fill_noise(x);
    for (uint32_t i = 0; i < ROW; i++)
        w[i] = i % 4 == 3 ? 0.0f : (float)(i * 2654435761u >> 16) * 0x1p-10f;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        const struct skf_type_info *ti = skf_type_info(vectors[i].type);
        size_t bytes = ROW / ti->block * ti->block_bytes;
        for (size_t r = 0; r < N / ROW; r++)
            assert_int_equal(skf_quantize_weighed(ti->type, x + r * ROW, w, q + r * bytes, ROW), SKF_OK);
        digest_is(q, N / ROW * bytes, vectors[i].weighed ? vectors[i].weighed : vectors[i].quantized);
        assert_true(is_weighable(ti->type) == (vectors[i].weighed != NULL));
        assert_true(is_dequantizable(ti->type));
    }
    assert_false(is_dequantizable(SKF_T_IQ1_S) || is_weighable(SKF_T_F16));
    skf_free(x);
    skf_free(q);
}

/* Which zero of a block of zeros is taken, as the package does it: no value depends on it, but the bytes do. */
static void zeros_keep_their_sign(void **state)
{
    float x[32] = {-0.0f, 0.0f};
    uint8_t q[24];
    assert_int_equal(skf_quantize(SKF_T_Q4_0, x, q, 32), SKF_OK);
    assert_int_equal(skf_le16(q), 0);
    assert_int_equal(skf_quantize(SKF_T_Q5_1, x, q, 32), SKF_OK);
    assert_int_equal(skf_le32(q), 0);
    x[0] = 0.0f;
    x[31] = -0.0f;
    assert_int_equal(skf_quantize(SKF_T_Q4_0, x, q, 32), SKF_OK);
    assert_int_equal(skf_le16(q), 0x8000);
    assert_int_equal(skf_quantize(SKF_T_Q4_1, x, q, 32), SKF_OK);
    assert_int_equal(skf_le32(q), 0x80000000u);
}

/* Pruned blocks: zeros stay, everything else lands within half a step of a grid not much wider than the plain one. */
static void zeros_stay_zero(void **state)
{
    static const struct {
        enum skf_type type;
        float steps, wider;
    } types[] = {{SKF_T_Q4_1, 15, 1.02f}, {SKF_T_Q5_1, 31, 1.04f}};
    uint32_t s = 3;
    for (int round = 0; round < 4000; round++) {
        float x[32], back[32], lo = 0, hi = 0, scale = 1;
        uint8_t q[24];
        for (int k = 0; k < round % 30; k++)
            scale /= 2;
        for (int i = 0; i < 32; i++) {
            s = s * 1664525 + 1013904223;
            x[i] = s >> 30 ? 0.0f : ((float)(s >> 8 & 0xFFFF) - (float)(round % 3) * 32768.0f) / 65536.0f * scale;
            lo = x[i] < lo ? x[i] : lo;
            hi = x[i] > hi ? x[i] : hi;
        }
        for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
            assert_int_equal(skf_quantize_sparse(types[t].type, x, NULL, q, 32), SKF_OK);
            assert_int_equal(skf_dequantize(types[t].type, q, back, 32), SKF_OK);
            float step = (hi - lo) / types[t].steps * types[t].wider + 0x1p-24f;
            for (int i = 0; i < 32; i++) {
                float off = x[i] < back[i] ? back[i] - x[i] : x[i] - back[i];
                assert_true(x[i] == 0 ? back[i] == 0 : off <= step * 1.001f);
            }
        }
    }
    assert_true(has_exact_zero(SKF_T_Q4_1) && has_exact_zero(SKF_T_Q8_0) && !has_exact_zero(SKF_T_Q4_K));
}

/* Numbers that are none, infinite or out of any range must neither trap nor leave the codes' range. */
static void survives_what_is_no_number(void **state)
{
    const float bad[] = {__builtin_nanf(""), 1e38f * 10.0f, -1e38f * 10.0f, 3e38f, -3e38f, 1e-45f, -1e-45f, -0.0f};
    float x[256], back[256], w[256];
    uint8_t q[256 * 4];
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        for (int at = 0; at < 256; at += 5) {
            for (int i = 0; i < 256; i++) {
                x[i] = (float)i - 128.0f;
                w[i] = at % 2 ? 1.0f : bad[k];
            }
            x[at] = bad[k];
            for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
                assert_int_equal(skf_quantize(vectors[i].type, x, q, 256), SKF_OK);
                assert_int_equal(skf_dequantize(vectors[i].type, q, back, 256), SKF_OK);
                assert_int_equal(skf_quantize_weighed(vectors[i].type, x, w, q, 256), SKF_OK);
                assert_int_equal(skf_quantize_sparse(vectors[i].type, x, w, q, 256), SKF_OK);
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
        cmocka_unit_test(equals_the_package),      cmocka_unit_test(importance_as_ggml),
        cmocka_unit_test(zeros_keep_their_sign),   cmocka_unit_test(zeros_stay_zero),
        cmocka_unit_test(survives_what_is_no_number),
        cmocka_unit_test(halves_are_exact),        cmocka_unit_test(a_row_on_its_grid_stays),
        cmocka_unit_test(small_changes_add_up),    cmocka_unit_test(flat_blocks_and_bad_scales),
    };
    return cmocka_run_group_tests_name("model_quant", tests, NULL, NULL);
}
