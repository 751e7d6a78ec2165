/* Sets of characters, for what describes texts by them: classes of grammars and of patterns. */
#ifndef SKF_RUNTIME_GRAMMAR_CHARS_H
#define SKF_RUNTIME_GRAMMAR_CHARS_H

#include "runtime/grammar_priv.h"

#define SKF_CHARS_MAX 512u /* ranges */
#define SKF_CHAR_LAST 0x10ffffu

struct skf_chars {
    uint32_t n;
    bool is_over; /* there were more ranges than it holds */
    struct skf_span {
        uint32_t lo, hi;
    } range[SKF_CHARS_MAX];
};
void skf_chars_add(struct skf_chars *c, uint32_t lo, uint32_t hi);
void skf_chars_settle(struct skf_chars *c); /* sorted, none touching another */
void skf_chars_negate(struct skf_chars *c); /* settles it first */
bool is_in_chars(const struct skf_chars *c, uint32_t ch);

/* The character at p[*at], *at < n, which is moved behind it; false when it is not UTF-8. */
bool is_char_taken(const char *p, size_t n, size_t *at, uint32_t *ch);

#endif
