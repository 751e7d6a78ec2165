/* Expressions of a grammar, put together (grammar_priv.h). */
#include "runtime/grammar_priv.h"

#include "base/alloc.h"
#include "base/util.h"

#define PARTS_MAX (1u << 19)

void skf_gb_fail(struct skf_gb *b, enum skf_err e, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    if (b->err != SKF_OK)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    b->err = skf_fail(b->why, e, "%s", text);
}

static uint32_t make(struct skf_gb *b, struct skf_gx x)
{
    if (b->err != SKF_OK)
        return 0;
    if (b->n == b->room) {
        uint32_t room = b->room ? 2 * b->room : 256;
        struct skf_gx *more = room <= PARTS_MAX ? skf_realloc(b->x, room * sizeof *more) : NULL;
        if (!more) {
            skf_gb_fail(b, room > PARTS_MAX ? SKF_ERR_LIMIT : SKF_ERR_NOMEM, room > PARTS_MAX ? "the grammar is too large" : "out of memory");
            return 0;
        }
        b->x = more;
        b->room = room;
    }
    if (b->n == 0)
        b->x[b->n++] = (struct skf_gx){0};
    b->x[b->n] = x;
    return b->n++;
}

uint32_t skf_gb_bytes(struct skf_gb *b, uint8_t lo, uint8_t hi) { return make(b, (struct skf_gx){.kind = SKF_GX_BYTES, .lo = lo, .hi = hi}); }
uint32_t skf_gb_seq(struct skf_gb *b) { return make(b, (struct skf_gx){.kind = SKF_GX_SEQ}); }
uint32_t skf_gb_alt(struct skf_gb *b) { return make(b, (struct skf_gx){.kind = SKF_GX_ALT}); }
uint32_t skf_gb_call(struct skf_gb *b, uint32_t rule) { return make(b, (struct skf_gx){.kind = SKF_GX_CALL, .min = rule}); }

uint32_t skf_gb_rep(struct skf_gb *b, uint32_t x, uint32_t min, uint32_t max)
{
    uint32_t r = make(b, (struct skf_gx){.kind = SKF_GX_REP, .min = min, .max = max});
    skf_gb_add(b, r, x);
    return r;
}

void skf_gb_add(struct skf_gb *b, uint32_t whole, uint32_t part)
{
    if (b->err != SKF_OK)
        return;
    if (b->x[whole].last)
        b->x[b->x[whole].last].next = part;
    else
        b->x[whole].first = part;
    b->x[whole].last = part;
}

uint32_t skf_gb_text(struct skf_gb *b, const char *p, size_t n)
{
    uint32_t seq = skf_gb_seq(b);
    for (size_t i = 0; i < n && b->err == SKF_OK; i++)
        skf_gb_add(b, seq, skf_gb_bytes(b, (uint8_t)p[i], (uint8_t)p[i]));
    return seq;
}

void skf_gb_str(struct skf_gb *b, uint32_t seq, const char *s) { skf_gb_add(b, seq, skf_gb_text(b, s, strlen(s))); }

static unsigned encode(uint32_t c, uint8_t out[4])
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    unsigned n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (unsigned i = n; i-- > 1; c >>= 6)
        out[i] = (uint8_t)(0x80 | (c & 0x3f));
    out[0] = (uint8_t)((0xf0u << (4 - n) & 0xffu) | c);
    return n;
}

/* Characters whose encodings have the same length: pieces in which each byte ranges by itself (as RE2 cuts them, Cox 2010). */
static void same_length(struct skf_gb *b, uint32_t alt, uint32_t lo, uint32_t hi, unsigned n)
{
    for (unsigned i = 1; i < n; i++) {
        uint32_t m = (1u << 6 * i) - 1;
        if ((lo & ~m) == (hi & ~m))
            continue;
        if (lo & m) {
            same_length(b, alt, lo, lo | m, n);
            same_length(b, alt, (lo | m) + 1, hi, n);
            return;
        }
        if ((hi & m) != m) {
            same_length(b, alt, lo, (hi & ~m) - 1, n);
            same_length(b, alt, hi & ~m, hi, n);
            return;
        }
    }
    uint8_t from[4], to[4];
    uint32_t seq = skf_gb_seq(b);
    (void)encode(lo, from);
    (void)encode(hi, to);
    for (unsigned i = 0; i < n; i++)
        skf_gb_add(b, seq, skf_gb_bytes(b, from[i], to[i]));
    skf_gb_add(b, alt, seq);
}

void skf_gb_chars(struct skf_gb *b, uint32_t alt, uint32_t lo, uint32_t hi)
{
    static const struct {
        uint32_t lo, hi;
        unsigned n;
    } spans[] = {{0, 0x7f, 1}, {0x80, 0x7ff, 2}, {0x800, 0xd7ff, 3}, {0xe000, 0xffff, 3}, {0x10000, 0x10ffff, 4}};
    for (size_t i = 0; i < SKF_COUNT(spans); i++) {
        uint32_t from = SKF_MAX(lo, spans[i].lo), to = SKF_MIN(hi, spans[i].hi);
        if (from <= to)
            same_length(b, alt, from, to, spans[i].n);
    }
}

uint32_t skf_gb_rule(struct skf_gb *b)
{
    if (b->err != SKF_OK)
        return 0;
    if (b->n_rules == b->rules_room) {
        uint32_t room = b->rules_room ? 2 * b->rules_room : 32;
        uint32_t *more = room <= SKF_GRAMMAR_RULES_MAX ? skf_realloc(b->bodies, room * sizeof *more) : NULL;
        if (!more) {
            bool is_many = room > SKF_GRAMMAR_RULES_MAX;
            skf_gb_fail(b, is_many ? SKF_ERR_LIMIT : SKF_ERR_NOMEM, is_many ? "the grammar has too many rules" : "out of memory");
            return 0;
        }
        b->bodies = more;
        b->rules_room = room;
    }
    b->bodies[b->n_rules] = 0;
    return b->n_rules++;
}

void skf_gb_body(struct skf_gb *b, uint32_t rule, uint32_t x)
{
    if (b->err == SKF_OK)
        b->bodies[rule] = x;
}

void skf_gb_free(struct skf_gb *b)
{
    skf_free(b->x);
    skf_free(b->bodies);
    b->x = NULL;
    b->bodies = NULL;
    b->n = b->room = b->n_rules = b->rules_room = 0;
}
