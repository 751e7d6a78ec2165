/*
 * A tokenizer's tables, for the two files that make and read them.
 */
#ifndef SKF_RUNTIME_TOKENIZER_LOAD_PRIV_H
#define SKF_RUNTIME_TOKENIZER_LOAD_PRIV_H

#include "base/util.h"
#include "runtime/tokenizer_priv.h"

/* GGUF's token types. */
enum { SKF_TOKEN_NORMAL = 1, SKF_TOKEN_UNKNOWN, SKF_TOKEN_CONTROL, SKF_TOKEN_USER, SKF_TOKEN_UNUSED, SKF_TOKEN_BYTE };
static inline bool is_special_type(uint8_t t)
{
    return t == SKF_TOKEN_UNKNOWN || t == SKF_TOKEN_CONTROL || t == SKF_TOKEN_USER;
}

/* The place of a text in an index: its token, or the empty place (-1). */
struct index;
int32_t *skf_token_place(const struct index *x, const struct skf_tokenizer *tk, const char *p, size_t n);

struct token {
    const char *p; /* its bytes, and a NUL behind them */
    uint32_t n;
    uint8_t type;
    bool is_stop;
};
struct special {
    const char *p;
    uint32_t n;
    int32_t id;
    bool takes_space; /* white space behind it belongs to it */
};
struct index { /* hash table of token ids by their bytes; -1: empty */
    int32_t *ids;
    unsigned bits;
    uint64_t seed;
};
struct skf_tokenizer {
    enum skf_pre pre;
    bool is_by_score;       /* SentencePiece: words and ranks instead of merges */
    bool is_whole_first;    /* a piece that is a token is not merged */
    bool is_space_prefixed; /* a text, and what follows a special token, begins with a space */
    struct index words; /* ids NULL unless one of these two */
    uint32_t *ranks, longest; /* [n], by falling score; bytes of the longest word */
    uint32_t n, n_special;
    struct token *tokens;
    char *text;
    struct skf_merges merges;
    int32_t byte_id[256], bos, eos;
    bool is_bos_added;
    struct special *special;
    uint32_t first[256]; /* 1 + place of the first special token that begins with this byte; 0: none does */
};

/* U+2581, which stands for a space there. */
static inline bool is_spm_space(const char *p, uint64_t n) { return n >= 3 && memcmp(p, "\xe2\x96\x81", 3) == 0; }

struct spell { /* character below U+0144 -> byte, or -1 */
    int16_t byte_of[0x144];
};

/* Scores, the tokens of bytes and the habit of spaces of a SentencePiece tokenizer whose tokens are there (tokenizer_words.c). */
SKF_MUST enum skf_err skf_tokenizer_words(const struct skf_gguf *g, struct skf_tokenizer *tk, struct skf_why *why);

#endif
