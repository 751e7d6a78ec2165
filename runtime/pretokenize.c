/*
 * Cutting text into the pieces that BPE may not merge across; of the alternatives the first that matches.
 *
 * gpt-2:  's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * smollm: \p{N} alone is a piece; between them, and not looking past them, gpt-2.
 * llama3: (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * cl100k: the same (what differs is said where merging begins, tokenizer.c).
 * qwen2:  the same, but each \p{N} is a piece.
 */
#include "runtime/tokenizer_priv.h"
#include "runtime/unicode_priv.h"

static enum skf_class class_at(const char *p, size_t n, size_t *len)
{
    uint32_t c = skf_utf8_get(p, n, len);
    return c == SKF_NO_CHAR ? SKF_CLASS_OTHER : skf_unicode_class(c);
}

static size_t contraction(const char *p, size_t n)
{
    static const char *const ends[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t len = strlen(ends[i]);
        if (n > len && memcmp(p + 1, ends[i], len) == 0)
            return 1 + len;
    }
    return 0;
}

/* The same in either case; of what lies outside of ASCII only the long s (U+017F) is one of these letters. */
static size_t any_contraction(const char *p, size_t n)
{
    char low[4] = {'\''};
    if (n >= 3 && memcmp(p + 1, "\xc5\xbf", 2) == 0)
        return 3;
    for (size_t i = 1; i < sizeof low && i < n; i++)
        low[i] = p[i] >= 'A' && p[i] <= 'Z' ? (char)(p[i] | 32) : p[i];
    return contraction(low, n < 3 ? n : 3);
}

/* A run of white space. Its last character is left to the word behind it, unless it is the only one. */
static size_t white_space(const char *p, size_t n)
{
    size_t at = 0, last = 0, len;
    while (at < n && class_at(p + at, n - at, &len) == SKF_CLASS_SPACE) {
        last = at;
        at += len;
    }
    return at == n || last == 0 ? at : last;
}

/* As many bytes from `at` on as characters of the class, at most `most` of them. */
static size_t run_of(enum skf_class c, const char *p, size_t n, size_t at, size_t most)
{
    size_t len;
    for (; most > 0 && at < n && class_at(p + at, n - at, &len) == c; most--)
        at += len;
    return at;
}

static size_t gpt2_piece(const char *p, size_t n)
{
    size_t len = *p == '\'' ? contraction(p, n) : 0;
    if (len)
        return len;
    size_t at = *p == ' ' && n > 1 ? 1 : 0;
    enum skf_class c = class_at(p + at, n - at, &len);
    return c == SKF_CLASS_SPACE ? white_space(p, n) : run_of(c, p, n, at, SIZE_MAX);
}

static size_t smollm_piece(const char *p, size_t n)
{
    size_t len;
    if (class_at(p, n, &len) == SKF_CLASS_NUMBER)
        return len;
    /* The piece ends at the next number at the latest, but what white space sees behind itself must be looked for. */
    size_t at = run_of(SKF_CLASS_SPACE, p, n, 0, SIZE_MAX);
    bool is_before_number = at > 0 && at < n && class_at(p + at, n - at, &len) == SKF_CLASS_NUMBER;
    return is_before_number ? at : gpt2_piece(p, n);
}

static bool is_newline(char c) { return c == '\r' || c == '\n'; }

/* White space up to its last newline; 0 when there is none. */
static size_t to_last_newline(const char *p, size_t n)
{
    size_t at = run_of(SKF_CLASS_SPACE, p, n, 0, SIZE_MAX);
    while (at > 0 && !is_newline(p[at - 1]))
        at--;
    return at;
}

static size_t llama3_piece(const char *p, size_t n, size_t digits)
{
    size_t first, len, at = *p == '\'' ? any_contraction(p, n) : 0;
    if (at)
        return at;
    enum skf_class c = class_at(p, n, &first);
    if (c == SKF_CLASS_LETTER)
        return run_of(c, p, n, 0, SIZE_MAX);
    if (c == SKF_CLASS_NUMBER)
        return run_of(c, p, n, 0, digits);
    enum skf_class next = first < n ? class_at(p + first, n - first, &len) : SKF_CLASS_SPACE;
    if (!is_newline(*p) && next == SKF_CLASS_LETTER)
        return run_of(next, p, n, first, SIZE_MAX);
    if (c == SKF_CLASS_OTHER || (*p == ' ' && next == SKF_CLASS_OTHER)) {
        at = run_of(SKF_CLASS_OTHER, p, n, c == SKF_CLASS_OTHER ? 0 : 1, SIZE_MAX);
        while (at < n && is_newline(p[at]))
            at++;
        return at;
    }
    at = to_last_newline(p, n);
    return at ? at : white_space(p, n);
}

size_t skf_pre_piece(enum skf_pre pre, const char *p, size_t n)
{
    switch (pre) {
    case SKF_PRE_GPT2:
        return gpt2_piece(p, n);
    case SKF_PRE_LLAMA3:
    case SKF_PRE_CL100K:
        return llama3_piece(p, n, 3);
    case SKF_PRE_QWEN2:
        return llama3_piece(p, n, 1);
    case SKF_PRE_SMOLLM:
        break;
    }
    return smollm_piece(p, n);
}
