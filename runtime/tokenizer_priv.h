/*
 * Text to token ids and back: GPT-2's byte-level BPE (Radford et al. 2019) and SentencePiece's BPE by scores (Kudo and Richardson
 * 2018), as GGUF files carry them ("gpt2" and "llama").
 *
 * Special tokens (control, user defined, unknown) are found in the text first, the longest at each place.  What lies between is
 * cut into pieces by the file's pre-tokenizer, and each piece is merged by rank: the pair that was learnt first, then the leftmost.
 * It works on bytes; the characters by which the file spells them are undone at load.
 *
 * Pre-tokenizers: gpt-2 (the expression of the GPT-2 release), smollm (each number character a piece of its own, then gpt-2
 * on what lies between), llama-bpe and its kin, qwen2 (pretokenize.c).  With llama-bpe a piece that is a token as a whole is that token, however
 * its merges would go (tiktoken's way).  Text is not normalized first.  SentencePiece has none: a run of text between special tokens is one piece.  There a space is spelt
 * U+2581, which is undone at load, and what no token spells becomes tokens of bytes.
 */
#ifndef SKF_RUNTIME_TOKENIZER_PRIV_H
#define SKF_RUNTIME_TOKENIZER_PRIV_H

#include "model/gguf.h"
#include "model/runs.h"

#define SKF_TOKENS_MAX (1u << 20) /* a vocabulary of more is refused */
#define SKF_MERGES_MAX (1u << 22)
#define SKF_SPECIALS_MAX (1u << 14) /* each place of a text is compared with those that begin alike */

struct skf_tokenizer;

/* Copies what it needs from g. SKF_ERR_UNSUPPORTED names an unknown model or pre-tokenizer, SKF_ERR_FORMAT what is wrong. */
SKF_MUST enum skf_err skf_tokenizer_load(const struct skf_gguf *g, struct skf_tokenizer **tk, struct skf_why *why);
void skf_tokenizer_free(struct skf_tokenizer *tk); /* NULL is fine */

/* Any number of threads may encode at once. *ids is freed with skf_free; *n_ids may be 0. Bytes that no token spells are left out. */
SKF_MUST enum skf_err skf_tokenizer_encode(const struct skf_tokenizer *tk, const char *text, size_t n, bool add_bos,
                                           int32_t **ids, size_t *n_ids, struct skf_why *why);
/* The same; cut[i] says that no special token may reach over the place before byte i. NULL: none is cut. */
SKF_MUST enum skf_err skf_tokenizer_encode_cut(const struct skf_tokenizer *tk, const char *text, size_t n, const uint8_t *cut,
                                               bool add_bos, int32_t **ids, size_t *n_ids, struct skf_why *why);
bool is_tokenizer_control_at(const struct skf_tokenizer *tk, const char *p, size_t n); /* does one begin here? */
uint32_t skf_tokenizer_size(const struct skf_tokenizer *tk);
/* The bytes of a token; NULL for an id out of range. Lives as long as tk. */
const char *skf_tokenizer_text(const struct skf_tokenizer *tk, int32_t id, size_t *n);
bool is_tokenizer_stop(const struct skf_tokenizer *tk, int32_t id);
bool is_tokenizer_control(const struct skf_tokenizer *tk, int32_t id); /* its text is no part of what is said */
/* NUL-terminated text of the BOS and EOS token; NULL where the file names none. */
const char *skf_tokenizer_bos(const struct skf_tokenizer *tk);
const char *skf_tokenizer_eos(const struct skf_tokenizer *tk);

/* ---- its parts ---------------------------------------------------------------------------------------------------------------- */
/* Bytes of the next piece of the n > 0 at p. */
size_t skf_pre_piece(enum skf_pre pre, const char *p, size_t n);

/* Pairs of tokens that merge. */
struct skf_merge_rule {
    uint64_t pair; /* left id in the high half, right id in the low; UINT64_MAX: an empty place */
    uint32_t rank;
    int32_t id;
};
struct skf_merges {
    struct skf_merge_rule *rules; /* a hash table of 2^bits places */
    unsigned bits;
    uint64_t seed;
};
const struct skf_merge_rule *skf_merges_find(const struct skf_merges *m, int32_t left, int32_t right);
/* Merges one piece; `byte_id` gives the token of each byte, or -1. Appends at most n ids to out and counts them in *n_out. */
struct skf_bpe; /* memory that one encoding uses again and again */
struct skf_bpe *skf_bpe_new(void);
void skf_bpe_free(struct skf_bpe *b);
SKF_MUST enum skf_err skf_bpe_piece(struct skf_bpe *b, const struct skf_merges *m, const int32_t byte_id[256], const char *p,
                                    size_t n, int32_t *out, size_t *n_out);
/* Merges one piece by the tokens' texts and scores. Appends at most n ids. */
SKF_MUST enum skf_err skf_bpe_text(struct skf_bpe *b, const struct skf_tokenizer *tk, const int32_t byte_id[256], const char *p,
                                   size_t n, int32_t *out, size_t *n_out);
/* The token that is spelt so, of those with a score; the lower its rank the sooner it is made. */
bool is_tokenizer_word(const struct skf_tokenizer *tk, const char *p, size_t n, int32_t *id, uint32_t *rank);

#endif
