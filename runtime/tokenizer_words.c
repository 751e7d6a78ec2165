/*
 * What a SentencePiece tokenizer needs beside its tokens: which text is one, and which of two merges is made first.  A file's scores
 * become ranks, so that equal scores leave the choice to the place in the text, as the original does.
 */
#include "base/alloc.h"
#include "runtime/tokenizer_load_priv.h"

struct scored {
    double score;
    uint32_t id;
};

static int by_falling_score(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static bool is_word_type(uint8_t t) { return t == SKF_TOKEN_NORMAL || t == SKF_TOKEN_USER || t == SKF_TOKEN_UNUSED; }

static enum skf_err rank(struct skf_tokenizer *tk, const struct skf_gguf_value *scores, struct scored *all, struct skf_why *why)
{
    for (uint32_t i = 0; i < tk->n; i++) {
        all[i].id = i;
        if (!is_gguf_array_f64(scores, i, &all[i].score) || all[i].score != all[i].score)
            return skf_fail(why, SKF_ERR_FORMAT, "tokenizer.ggml.scores: entry %u is no number", i);
    }
    qsort(all, tk->n, sizeof *all, by_falling_score);
    for (uint32_t i = 0; i < tk->n; i++)
        tk->ranks[all[i].id] = i && all[i].score == all[i - 1].score ? tk->ranks[all[i - 1].id] : i;
    return SKF_OK;
}

enum skf_err skf_tokenizer_words(const struct skf_gguf *g, struct skf_tokenizer *tk, struct skf_why *why)
{
    const struct skf_gguf_value *scores = skf_gguf_get(g, "tokenizer.ggml.scores");
    if (!scores || !scores->is_array || scores->count != tk->n)
        return skf_fail(why, SKF_ERR_FORMAT, "tokenizer.ggml.scores does not have one entry a token (%u)", tk->n);
    struct scored *all = skf_calloc(tk->n, sizeof *all);
    tk->ranks = skf_calloc(tk->n, sizeof *tk->ranks);
    enum skf_err e = all && tk->ranks ? rank(tk, scores, all, why) : skf_fail(why, SKF_ERR_NOMEM, "no memory for the scores of %u tokens", tk->n);
    skf_free(all);
    for (int b = 0; b < 256; b++)
        tk->byte_id[b] = -1;
    for (uint32_t i = 0; i < tk->n; i++) {
        const struct token *t = &tk->tokens[i];
        if (t->type == SKF_TOKEN_BYTE && t->n == 1)
            tk->byte_id[(unsigned char)t->p[0]] = (int32_t)i;
        if (is_word_type(t->type))
            tk->longest = SKF_MAX(tk->longest, t->n);
    }
    tk->is_space_prefixed = true; /* unless the file says otherwise */
    (void)is_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &tk->is_space_prefixed);
    return e;
}

bool is_tokenizer_word(const struct skf_tokenizer *tk, const char *p, size_t n, int32_t *id, uint32_t *rank)
{
    if (n > tk->longest)
        return false;
    *id = *skf_token_place(&tk->words, tk, p, n);
    *rank = *id < 0 ? 0 : tk->ranks[*id];
    return *id >= 0;
}
