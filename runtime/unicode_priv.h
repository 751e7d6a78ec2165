/*
 * UTF-8 and the three character classes that pre-tokenizers know.
 */
#ifndef SKF_RUNTIME_UNICODE_PRIV_H
#define SKF_RUNTIME_UNICODE_PRIV_H

#include "base/err.h"

struct skf_range {
    uint32_t first, last;
};
extern const struct skf_range skf_letters[], skf_numbers[], skf_spaces[];
extern const size_t skf_letters_count, skf_numbers_count, skf_spaces_count;

enum skf_class { SKF_CLASS_OTHER, SKF_CLASS_LETTER, SKF_CLASS_NUMBER, SKF_CLASS_SPACE };
enum skf_class skf_unicode_class(uint32_t c);

/* The character at p (n > 0 bytes are there) and its length in bytes. What is not UTF-8 (also overlong forms and surrogates) is one
 * byte long and gives SKF_NO_CHAR. */
#define SKF_NO_CHAR 0xffffffffu
uint32_t skf_utf8_get(const char *p, size_t n, size_t *len);
size_t skf_utf8_put(uint32_t c, char out[4]); /* bytes written; c is a character */
/* Whether the n < 4 bytes at p may be the beginning of a longer character. */
bool is_utf8_begun(const char *p, size_t n);

#endif
