/* Sets of characters (grammar_chars.h). */
#include "runtime/grammar_chars.h"

#include "base/util.h"
#include "runtime/unicode_priv.h"

void skf_chars_add(struct skf_chars *c, uint32_t lo, uint32_t hi)
{
    if (c->n == SKF_CHARS_MAX)
        c->is_over = true;
    else if (lo <= hi)
        c->range[c->n++] = (struct skf_span){lo, hi};
}

static int by_lo(const void *a, const void *b)
{
    const struct skf_span *x = a, *y = b;
    return x->lo != y->lo ? (x->lo < y->lo ? -1 : 1) : 0;
}

void skf_chars_settle(struct skf_chars *c)
{
    uint32_t n = 0;
    if (c->n > 1)
        qsort(c->range, c->n, sizeof *c->range, by_lo);
    for (uint32_t i = 0; i < c->n; i++) {
        if (n > 0 && c->range[i].lo <= c->range[n - 1].hi + 1)
            c->range[n - 1].hi = SKF_MAX(c->range[n - 1].hi, c->range[i].hi);
        else
            c->range[n++] = c->range[i];
    }
    c->n = n;
}

void skf_chars_negate(struct skf_chars *c)
{
    uint32_t from = 0, n = 0;
    skf_chars_settle(c);
    struct skf_span out[SKF_CHARS_MAX + 1];
    for (uint32_t i = 0; i < c->n; i++) {
        if (c->range[i].lo > from)
            out[n++] = (struct skf_span){from, c->range[i].lo - 1};
        from = c->range[i].hi + 1;
    }
    if (from <= SKF_CHAR_LAST)
        out[n++] = (struct skf_span){from, SKF_CHAR_LAST};
    c->is_over |= n > SKF_CHARS_MAX;
    c->n = SKF_MIN(n, SKF_CHARS_MAX);
    memcpy(c->range, out, c->n * sizeof *out);
}

bool is_in_chars(const struct skf_chars *c, uint32_t ch)
{
    for (uint32_t i = 0; i < c->n; i++)
        if (ch >= c->range[i].lo && ch <= c->range[i].hi)
            return true;
    return false;
}

bool is_char_taken(const char *p, size_t n, size_t *at, uint32_t *ch)
{
    size_t len = 0;
    *ch = skf_utf8_get(p + *at, n - *at, &len);
    if (*ch == SKF_NO_CHAR)
        return false;
    *at += len;
    return true;
}
