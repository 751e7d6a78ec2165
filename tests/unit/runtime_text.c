/* runtime/: UTF-8 and classes, pre-tokenizers, BPE, the tokenizer over a tiny file, sampler, stop strings. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/util.h"
#include "runtime/sampler_priv.h"
#include "runtime/stream_priv.h"
#include "runtime/tokenizer_priv.h"
#include "runtime/unicode_priv.h"
#include "tests/unit/runtime_tiny.h"

static void test_utf8_takes_only_utf8(void **state)
{
    const struct {
        const char *p;
        size_t n, len;
        uint32_t c;
    } cases[] = {
        {"a", 1, 1, 'a'}, {"\xc3\xa9", 2, 2, 0xe9}, {"\xe2\x82\xac", 3, 3, 0x20ac}, {"\xf0\x9f\x9a\x80", 4, 4, 0x1f680},
        {"\0", 1, 1, 0},
        {"\xc3", 1, 1, SKF_NO_CHAR},                /* cut off */
        {"\xc0\x80", 2, 1, SKF_NO_CHAR},            /* overlong */
        {"\xe0\x80\x80", 3, 1, SKF_NO_CHAR},        /* overlong */
        {"\xed\xa0\x80", 3, 1, SKF_NO_CHAR},        /* a surrogate */
        {"\xf4\x90\x80\x80", 4, 1, SKF_NO_CHAR},    /* above U+10FFFF */
        {"\x80", 1, 1, SKF_NO_CHAR}, {"\xff", 1, 1, SKF_NO_CHAR},
    };
    for (size_t i = 0; i < SKF_COUNT(cases); i++) {
        size_t len;
        assert_int_equal(skf_utf8_get(cases[i].p, cases[i].n, &len), cases[i].c);
        assert_int_equal(len, cases[i].len);
    }
    for (uint32_t c = 0; c < 0x110000; c += 0x3d) { /* and back */
        char out[4];
        size_t n = skf_utf8_put(c, out), len;
        if (c >= 0xd800 && c < 0xe000)
            continue;
        assert_int_equal(skf_utf8_get(out, n, &len), c);
        assert_int_equal(len, n);
    }
    assert_true(is_utf8_begun("\xf0\x9f", 2) && is_utf8_begun("\xe2", 1));
    assert_false(is_utf8_begun("\xed\xa0", 2) || is_utf8_begun("a", 1) || is_utf8_begun("\xff", 1));
}

static void test_classes(void **state)
{
    static const uint32_t letters[] = {'a', 'Z', 0xe9, 0x416, 0x65e5, 0xd55c, 0x1d518}, numbers[] = {'0', 0xbd, 0xb2, 0x2462, 0x2167},
                          spaces[] = {' ', '\t', '\r', 0x85, 0xa0, 0x2003, 0x3000}, others[] = {'!', '_', 0x301, 0x200b, 0x1f680, 0};
    for (size_t i = 0; i < SKF_COUNT(letters); i++)
        assert_int_equal(skf_unicode_class(letters[i]), SKF_CLASS_LETTER);
    for (size_t i = 0; i < SKF_COUNT(numbers); i++)
        assert_int_equal(skf_unicode_class(numbers[i]), SKF_CLASS_NUMBER);
    for (size_t i = 0; i < SKF_COUNT(spaces); i++)
        assert_int_equal(skf_unicode_class(spaces[i]), SKF_CLASS_SPACE);
    for (size_t i = 0; i < SKF_COUNT(others); i++)
        assert_int_equal(skf_unicode_class(others[i]), SKF_CLASS_OTHER);
}

/* Pieces joined by '|', as Python's regex module cuts them with the expressions in pretokenize.c. */
static void test_pieces(void **state)
{
    static const struct {
        enum skf_pre pre;
        const char *text, *pieces;
    } cases[] = {
        {SKF_PRE_GPT2, "Hello world", "Hello| world"},
        {SKF_PRE_GPT2, "a  b   c", "a| | b|  | c"},
        {SKF_PRE_GPT2, "end  ", "end|  "},
        {SKF_PRE_GPT2, "x\n\ny", "x|\n|\n|y"},
        {SKF_PRE_GPT2, "don't I'VE we'll", "don|'t| I|'|VE| we|'ll"},
        {SKF_PRE_GPT2, "abc123 456", "abc|123| 456"},
        {SKF_PRE_GPT2, " \t x", " \t| x"},
        {SKF_PRE_GPT2, "a!!! ?b", "a|!!!| ?|b"},
        {SKF_PRE_GPT2, "\xff\xfe!a", "\xff\xfe!|a"},
        {SKF_PRE_GPT2, "'", "'"},
        {SKF_PRE_GPT2, " ", " "},
        {SKF_PRE_SMOLLM, "abc123 456", "abc|1|2|3| |4|5|6"},
        {SKF_PRE_SMOLLM, "a  1", "a|  |1"},
        {SKF_PRE_SMOLLM, "a  b", "a| | b"},
        {SKF_PRE_SMOLLM, "3.14", "3|.|1|4"},
        {SKF_PRE_SMOLLM, "'s1", "'s|1"},
    };
    for (size_t i = 0; i < SKF_COUNT(cases); i++) {
        char out[128];
        size_t n = 0;
        for (const char *p = cases[i].text; *p;) {
            size_t len = skf_pre_piece(cases[i].pre, p, strlen(p));
            if (n)
                out[n++] = '|';
            memcpy(out + n, p, len);
            n += len;
            p += len;
        }
        out[n] = '\0';
        assert_string_equal(out, cases[i].pieces);
    }
}

static struct skf_tokenizer *load_tiny(const struct tiny *t, enum skf_err want, const char *names)
{
    char path[256];
    struct skf_model *m = NULL;
    struct skf_tokenizer *tk = NULL;
    struct skf_why why = {{0}};
    assert_int_equal(tiny_write(tiny_path(path, "text"), t), SKF_OK);
    assert_int_equal(skf_model_open(path, &m, &why), SKF_OK);
    assert_int_equal(skf_tokenizer_load(skf_model_gguf(m), &tk, &why), want);
    if (names)
        assert_non_null(strstr(why.text, names));
    skf_model_close(m); /* the tokenizer has copied what it needs */
    (void)unlink(path);
    return tk;
}

static void check_ids(const struct skf_tokenizer *tk, const char *text, bool add_bos, const int32_t *want, size_t n_want)
{
    int32_t *ids = NULL;
    size_t n = 0;
    assert_int_equal(skf_tokenizer_encode(tk, text, strlen(text), add_bos, &ids, &n, NULL), SKF_OK);
    assert_int_equal(n, n_want);
    assert_memory_equal(ids, want, n * sizeof *ids);
    skf_free(ids);
}
#define CHECK_IDS(tk, text, add_bos, ...)                                                                              \
    check_ids(tk, text, add_bos, (int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void test_tokenizer_merges_by_rank(void **state)
{
    struct tiny t = {.type = SKF_T_F32};
    struct skf_tokenizer *tk = load_tiny(&t, SKF_OK, NULL);
    enum { HE = 256, LL, HELL, HELLO, SP_HELLO };
    CHECK_IDS(tk, "hello hello", false, HELLO, SP_HELLO);
    CHECK_IDS(tk, "hell hel", false, HELL, ' ', HE, 'l');
    CHECK_IDS(tk, "lll", false, LL, 'l');
    CHECK_IDS(tk, "<|im_start|>he<|im_end|>", true, TINY_START, HE, TINY_END); /* BOS is not added: the file does not say so */
    CHECK_IDS(tk, "<|im_star", false, '<', '|', 'i', 'm', '_', 's', 't', 'a', 'r');
    CHECK_IDS(tk, "a<tool>", false, 'a', TINY_TOOL);
    assert_true(is_tokenizer_stop(tk, TINY_END) && !is_tokenizer_stop(tk, TINY_START) && !is_tokenizer_stop(tk, -1));
    assert_true(is_tokenizer_control(tk, TINY_START) && !is_tokenizer_control(tk, TINY_TOOL) && !is_tokenizer_control(tk, 9999));
    assert_string_equal(skf_tokenizer_bos(tk), "<|im_start|>");
    skf_tokenizer_free(tk);

    t.is_bos_added = true;
    tk = load_tiny(&t, SKF_OK, NULL);
    CHECK_IDS(tk, "he", true, TINY_START, HE);
    CHECK_IDS(tk, "he", false, HE);
    CHECK_IDS(tk, "<|im_start|>he", true, TINY_START, HE); /* it is there already */
    CHECK_IDS(tk, "", true, TINY_START);
    skf_tokenizer_free(tk);
}

/* SentencePiece: characters that are no tokens merge where the text is one, and end as bytes where it is not. */
static void test_tokenizer_merges_by_score(void **state)
{
    enum { HE = TINY_BYTES, LL, HELL, HELLO, SPACE_HELLO };
    struct tiny t = {.is_scored = true, .is_space_unasked = true};
    struct skf_tokenizer *tk = load_tiny(&t, SKF_OK, NULL);
    size_t n;
    CHECK_IDS(tk, "hello", false, HELLO);
    CHECK_IDS(tk, " hello", false, SPACE_HELLO);
    CHECK_IDS(tk, "\xe2\x96\x81hello", false, SPACE_HELLO);
    CHECK_IDS(tk, "help", false, HE, 'l', 'p');
    CHECK_IDS(tk, "lll", false, LL, 'l');
    CHECK_IDS(tk, "\xc3\xa9\xff", false, 0xc3, 0xa9, 0xff);
    CHECK_IDS(tk, "<|im_end|>hello", false, TINY_END, HELLO);
    check_ids(tk, "", false, NULL, 0);
    assert_memory_equal(skf_tokenizer_text(tk, SPACE_HELLO, &n), " hello", 7);
    assert_int_equal(n, 6);
    assert_memory_equal(skf_tokenizer_text(tk, 0xe9, &n), "\xe9", 2);
    skf_tokenizer_free(tk);
    t.is_space_unasked = false; /* a space goes in front of every run */
    tk = load_tiny(&t, SKF_OK, NULL);
    CHECK_IDS(tk, "hello<|im_end|>hello", false, SPACE_HELLO, TINY_END, SPACE_HELLO);
    CHECK_IDS(tk, "<|im_end|>x<|im_end|>", false, TINY_END, ' ', 'x', TINY_END);
    skf_tokenizer_free(tk);
}

static void test_phi_tokens_take_the_space_behind_them(void **state)
{
    struct tiny t = {.is_scored = true, .is_space_unasked = true, .arch = "phi3", .window = 9};
    struct skf_tokenizer *tk = load_tiny(&t, SKF_OK, NULL);
    CHECK_IDS(tk, "<|im_start|>\n \thello<|im_end|>\n", false, TINY_START, TINY_BYTES + 3, TINY_END);
    CHECK_IDS(tk, "<|im_start|>\n<|im_end|> ", false, TINY_START, TINY_END);
    skf_tokenizer_free(tk);
    t.arch = "gemma3";
    tk = load_tiny(&t, SKF_OK, NULL);
    CHECK_IDS(tk, "<|im_end|>\n", false, TINY_END, '\n');
    skf_tokenizer_free(tk);
}

static void test_tokenizer_gives_back_every_byte(void **state)
{
    struct tiny t = {.type = SKF_T_F32};
    struct skf_tokenizer *tk = load_tiny(&t, SKF_OK, NULL);
    enum { N = 5000 };
    static char text[N], back[N];
    uint64_t seed = 3;
    for (int i = 0; i < N; i++)
        text[i] = (char)(i < 1000 ? tiny_next(&seed) : (uint32_t)"hello  12\n\xc3\xa9"[tiny_next(&seed) % 12]);
    int32_t *ids = NULL;
    size_t n = 0, len = 0;
    assert_int_equal(skf_tokenizer_encode(tk, text, N, true, &ids, &n, NULL), SKF_OK);
    for (size_t i = 0; i < n; i++) {
        size_t k;
        const char *p = skf_tokenizer_text(tk, ids[i], &k);
        assert_true(p && len + k <= N);
        memcpy(back + len, p, k);
        len += k;
    }
    assert_int_equal(len, N);
    assert_memory_equal(back, text, N);
    assert_null(skf_tokenizer_text(tk, TINY_VOCAB, &n));
    assert_null(skf_tokenizer_text(tk, -1, &n));
    skf_free(ids);
    skf_tokenizer_free(tk);
}

/* One piece as long as a text can be: its time must not grow with the square. */
static void test_tokenizer_takes_one_long_word(void **state)
{
    struct tiny t = {.type = SKF_T_F32};
    struct skf_tokenizer *tk = load_tiny(&t, SKF_OK, NULL);
    enum { N = 1 << 20 };
    char *text = skf_alloc(N);
    assert_non_null(text);
    memset(text, 'l', N);
    int32_t *ids = NULL;
    size_t n = 0;
    assert_int_equal(skf_tokenizer_encode(tk, text, N, true, &ids, &n, NULL), SKF_OK);
    assert_int_equal(n, N / 2);
    skf_free(ids);
    skf_free(text);
    skf_tokenizer_free(tk);
}

static void test_tokenizer_refuses(void **state)
{
    const struct {
        struct tiny t;
        enum skf_err err;
        const char *names;
    } cases[] = {
        {{.pre = "deepseek-llm"}, SKF_ERR_UNSUPPORTED, "\"deepseek-llm\""},
        {{.merge = "nospace"}, SKF_ERR_FORMAT, "entry 5 is no pair"},
        {{.merge = "h \xe6\x97\xa5"}, SKF_ERR_FORMAT, "entry 5 is no pair"},
        {{.merge = "q u"}, SKF_ERR_FORMAT, "entry 5 names a token that is not there"},
        {{.merge = "zz z"}, SKF_ERR_FORMAT, "entry 5 names a token that is not there"},
        {{.is_short_types = true}, SKF_ERR_FORMAT, "tokenizer.ggml.token_type"},
        {{.type_of_tokens = 9}, SKF_ERR_FORMAT, "tokenizer.ggml.token_type"},
        {{.is_scored = true, .scores = "other"}, SKF_ERR_FORMAT, "tokenizer.ggml.scores"},
    };
    for (size_t i = 0; i < SKF_COUNT(cases); i++)
        assert_null(load_tiny(&cases[i].t, cases[i].err, cases[i].names));
}

/* ---- sampler ---------------------------------------------------------------------------------------------------------------------- */
static int32_t pick(struct skf_sampler *s, const float *logits, uint32_t n)
{
    float copy[64];
    struct skf_candidate c[64];
    memcpy(copy, logits, n * sizeof *copy);
    return skf_sampler_pick(s, copy, n, c);
}

static void test_sampler_ends(void **state)
{
    const float logits[] = {0.5f, 2.0f, -1.0f, 2.0f, 1.9f};
    struct skf_sampler s;
    skf_sampler_init(&s, 0, 0, 1, 1, 1);
    assert_int_equal(pick(&s, logits, 5), 1); /* the lower id of two equal ones */
    for (uint64_t seed = 0; seed < 50; seed++) {
        skf_sampler_init(&s, 1.0f, 1, 1, 1, seed);
        assert_int_equal(pick(&s, logits, 5), 1);
        skf_sampler_init(&s, 1.0f, 0, 1e-6f, 1, seed);
        assert_int_equal(pick(&s, logits, 5), 1);
        skf_sampler_init(&s, 1.0f, 3, 0.999f, 1, seed);
        int32_t id = pick(&s, logits, 5);
        assert_true(id == 1 || id == 3 || id == 4);
    }
    skf_sampler_init(&s, NAN, 0, NAN, NAN, 1); /* nonsense counts as not given */
    assert_int_equal(pick(&s, logits, 5), 1);
    skf_sampler_init(&s, 0, 0, 1, 2.0f, 1);
    skf_sampler_saw(&s, 1);
    skf_sampler_saw(&s, 1);
    skf_sampler_saw(&s, 3);
    skf_sampler_saw(&s, 70); /* out of range */
    assert_int_equal(pick(&s, logits, 5), 4);
    const float bad[] = {1.0f, INFINITY}, worse[] = {NAN, 1.0f};
    assert_int_equal(pick(&s, bad, 2), -1);
    assert_int_equal(pick(&s, worse, 2), -1);
}

static void test_sampler_draws_by_probability(void **state)
{
    const float logits[] = {0.0f, 1.0f, 2.0f, -30.0f};
    enum { N = 20000 };
    static const struct {
        uint32_t top_k;
        float top_p;
    } ways[] = {{0, 1}, {3, 1}, {0, 0.99999f}, {4, 0.99999f}};
    for (size_t w = 0; w < SKF_COUNT(ways); w++) {
        struct skf_sampler s, again;
        int count[4] = {0};
        skf_sampler_init(&s, 0.5f, ways[w].top_k, ways[w].top_p, 1, 42);
        again = s;
        for (int i = 0; i < N; i++) {
            int32_t id = pick(&s, logits, 4);
            assert_int_equal(id, pick(&again, logits, 4));
            count[id]++;
        }
        double total = 1 + exp(2) + exp(4); /* at temperature 0.5 */
        for (int k = 0; k < 3; k++) {
            double p = exp(2.0 * k) / total, sigma = sqrt(N * p * (1 - p));
            assert_true(fabs(count[k] - N * p) < 5 * sigma);
        }
        assert_int_equal(count[3], 0);
    }
}

/* ---- what may be given out ----------------------------------------------------------------------------------------------------------- */
static void add(struct skf_stream *s, const char *p, size_t n, bool is_last, const char *want, bool want_stopped)
{
    bool is_stopped;
    assert_int_equal(skf_stream_add(s, p, n, is_last, &is_stopped), SKF_OK);
    assert_int_equal(s->ready.len, strlen(want));
    if (s->ready.len)
        assert_memory_equal(s->ready.data, want, s->ready.len);
    assert_int_equal(is_stopped, want_stopped);
}
#define ADD(s, text, is_last, want, stopped) add(s, text, sizeof(text) - 1, is_last, want, stopped)

static void test_stream_holds_back(void **state)
{
    struct skf_stream s;
    const char *stops[] = {"STOP", "", "END."};
    assert_int_equal(skf_stream_init(&s, stops, 3, NULL), SKF_OK);
    ADD(&s, "one S", false, "one ", false);   /* may become STOP */
    ADD(&s, "T", false, "", false);
    ADD(&s, "AR EN", false, "STAR ", false);  /* did not; but EN may become END. */
    ADD(&s, "D", false, "", false);
    ADD(&s, ".rest", false, "", true);
    skf_stream_free(&s);

    assert_int_equal(skf_stream_init(&s, stops, 3, NULL), SKF_OK);
    ADD(&s, "abSTOPcd", false, "ab", true);
    skf_stream_free(&s);

    assert_int_equal(skf_stream_init(&s, stops, 3, NULL), SKF_OK);
    ADD(&s, "x STO", false, "x ", false);
    ADD(&s, "", true, "STO", false); /* the end: it will not come */
    skf_stream_free(&s);
}

static void test_stream_gives_whole_characters(void **state)
{
    struct skf_stream s;
    assert_int_equal(skf_stream_init(&s, NULL, 0, NULL), SKF_OK);
    ADD(&s, "a\xf0\x9f", false, "a", false);
    ADD(&s, "\x9a", false, "", false);
    ADD(&s, "\x80!", false, "\xf0\x9f\x9a\x80!", false);
    ADD(&s, "\xff" "b\xc3", false, "\xef\xbf\xbd" "b", false); /* no character, and the beginning of one */
    ADD(&s, "c", false, "\xef\xbf\xbd" "c", false);
    ADD(&s, "\xe2\x82", true, "\xef\xbf\xbd", false);
    skf_stream_free(&s);
    char long_stop[300];
    memset(long_stop, 'x', sizeof long_stop);
    long_stop[299] = '\0';
    const char *stops[] = {long_stop};
    assert_int_equal(skf_stream_init(&s, stops, 1, NULL), SKF_ERR_LIMIT);
    skf_stream_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_phi_tokens_take_the_space_behind_them),
        cmocka_unit_test(test_utf8_takes_only_utf8),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_tokenizer_merges_by_rank),
        cmocka_unit_test(test_tokenizer_merges_by_score),
        cmocka_unit_test(test_tokenizer_gives_back_every_byte),
        cmocka_unit_test(test_tokenizer_takes_one_long_word),
        cmocka_unit_test(test_tokenizer_refuses),
        cmocka_unit_test(test_sampler_ends),
        cmocka_unit_test(test_sampler_draws_by_probability),
        cmocka_unit_test(test_stream_holds_back),
        cmocka_unit_test(test_stream_gives_whole_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
