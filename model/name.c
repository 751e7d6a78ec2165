/*
 * Names from outside.  They end up in error lines, on terminals, in JSON and in signed manifests, so one rule for all of them
 * stands here: valid UTF-8, no control characters.
 */
#include "model/model_priv.h"

/* Length of the UTF-8 sequence at p (n > 0 bytes are left), or 0 when there is none: no overlong forms, no surrogates. */
static uint64_t sequence(const uint8_t *p, uint64_t n)
{
    if (p[0] < 0x80)
        return 1;
    uint64_t len = p[0] >= 0xC2 && p[0] <= 0xDF ? 2 : (p[0] & 0xF0) == 0xE0 ? 3 : p[0] >= 0xF0 && p[0] <= 0xF4 ? 4 : 0;
    if (len == 0 || len > n)
        return 0;
    for (uint64_t i = 1; i < len; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    bool is_overlong = (p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xF0 && p[1] < 0x90);
    bool is_outside = (p[0] == 0xED && p[1] > 0x9F) || (p[0] == 0xF4 && p[1] > 0x8F);
    return is_overlong || is_outside ? 0 : len;
}

bool is_clean_name(const char *name, uint64_t n)
{
    const uint8_t *p = (const uint8_t *)name;
    if (n > SKF_NAME_MAX)
        return false;
    while (n) {
        uint64_t len = sequence(p, n);
        /* C0, DEL, and C1 (U+0080 to U+009F), which terminals obey too. */
        if (len == 0 || p[0] < 0x20 || p[0] == 0x7F || (p[0] == 0xC2 && p[1] < 0xA0))
            return false;
        p += len;
        n -= len;
    }
    return true;
}

static int by_bytes(const void *a, const void *b)
{
    const struct skf_str *x = a, *y = b;
    if (x->n != y->n)
        return x->n < y->n ? -1 : 1;
    return x->n ? memcmp(x->p, y->p, x->n) : 0;
}

bool has_duplicate(struct skf_str *v, uint64_t n, struct skf_str *again)
{
    if (n < 2)
        return false;
    qsort(v, n, sizeof *v, by_bytes);
    for (uint64_t i = 1; i < n; i++) {
        if (by_bytes(&v[i - 1], &v[i]) == 0) {
            *again = v[i];
            return true;
        }
    }
    return false;
}
