/* UTF-8 and character classes (unicode_priv.h). */
#include "runtime/unicode_priv.h"

static bool is_in(const struct skf_range *r, size_t n, uint32_t c)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (c > r[mid].last)
            lo = mid + 1;
        else if (c < r[mid].first)
            hi = mid;
        else
            return true;
    }
    return false;
}

enum skf_class skf_unicode_class(uint32_t c)
{
    if (c < 0x80) { /* most of all text */
        if ((c | 32) >= 'a' && (c | 32) <= 'z')
            return SKF_CLASS_LETTER;
        if (c >= '0' && c <= '9')
            return SKF_CLASS_NUMBER;
        return c == ' ' || (c >= 9 && c <= 13) ? SKF_CLASS_SPACE : SKF_CLASS_OTHER;
    }
    if (is_in(skf_letters, skf_letters_count, c))
        return SKF_CLASS_LETTER;
    if (is_in(skf_numbers, skf_numbers_count, c))
        return SKF_CLASS_NUMBER;
    return is_in(skf_spaces, skf_spaces_count, c) ? SKF_CLASS_SPACE : SKF_CLASS_OTHER;
}

/* Length of the character that a first byte announces; 0 for one that cannot be first. */
static size_t announced(unsigned char b)
{
    if (b < 0x80)
        return 1;
    if (b < 0xc2 || b > 0xf4)
        return 0;
    return b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
}

/* Whether `second` may follow `first`: no overlong forms, no surrogates, nothing above U+10FFFF. */
static bool is_second(unsigned char first, unsigned char second)
{
    unsigned char lo = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    unsigned char hi = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    return second >= lo && second <= hi;
}

uint32_t skf_utf8_get(const char *p, size_t n, size_t *len)
{
    const unsigned char *u = (const unsigned char *)p;
    size_t want = announced(u[0]);
    *len = 1;
    if (want < 2)
        return want ? u[0] : SKF_NO_CHAR;
    if (want > n || !is_second(u[0], u[1]))
        return SKF_NO_CHAR;
    uint32_t c = u[0] & (0xffu >> (want + 1));
    for (size_t i = 1; i < want; i++) {
        if ((u[i] & 0xc0) != 0x80)
            return SKF_NO_CHAR;
        c = c << 6 | (u[i] & 0x3f);
    }
    *len = want;
    return c;
}

bool is_utf8_begun(const char *p, size_t n)
{
    const unsigned char *u = (const unsigned char *)p;
    if (n == 0 || announced(u[0]) <= n)
        return false;
    if (n > 1 && !is_second(u[0], u[1]))
        return false;
    return n < 3 || (u[2] & 0xc0) == 0x80;
}

size_t skf_utf8_put(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)((0xf00u >> n & 0xf0) | c);
    return n;
}
