/*
 * Cutting text into the pieces that BPE may not merge across.
 *
 * gpt-2:  's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+      (first alternative that matches)
 * smollm: \p{N} alone is a piece; between them, and not looking past them, gpt-2.
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

static size_t gpt2_piece(const char *p, size_t n)
{
    size_t len = *p == '\'' ? contraction(p, n) : 0;
    if (len)
        return len;
    size_t at = *p == ' ' && n > 1 ? 1 : 0;
    enum skf_class c = class_at(p + at, n - at, &len);
    if (c == SKF_CLASS_SPACE)
        return white_space(p, n);
    do {
        at += len;
    } while (at < n && class_at(p + at, n - at, &len) == c);
    return at;
}

size_t skf_pre_piece(enum skf_pre pre, const char *p, size_t n)
{
    if (pre == SKF_PRE_GPT2)
        return gpt2_piece(p, n);
    size_t len, at = 0;
    if (class_at(p, n, &len) == SKF_CLASS_NUMBER)
        return len;
    /* The piece ends at the next number at the latest, but what white space sees behind itself must be looked for. */
    while (at < n && class_at(p + at, n - at, &len) == SKF_CLASS_SPACE)
        at += len;
    bool is_before_number = at > 0 && at < n && class_at(p + at, n - at, &len) == SKF_CLASS_NUMBER;
    return is_before_number ? at : gpt2_piece(p, n);
}
