/* Encoding with a loaded tokenizer, and what is known of each token (tokenizer_priv.h). */
#include "base/alloc.h"
#include "runtime/tokenizer_load_priv.h"

void skf_tokenizer_free(struct skf_tokenizer *tk)
{
    if (!tk)
        return;
    skf_free(tk->tokens);
    skf_free(tk->text);
    skf_free(tk->merges.rules);
    skf_free(tk->special);
    skf_free(tk->words.ids);
    skf_free(tk->ranks);
    skf_free(tk);
}

/* The longest special token at p that no cut goes through, or NULL. */
static const struct special *special_at(const struct skf_tokenizer *tk, const char *p, size_t n, const uint8_t *cut)
{
    uint32_t i = tk->first[(unsigned char)*p];
    if (i == 0)
        return NULL;
    for (i--; i < tk->n_special && tk->special[i].p[0] == *p; i++)
        if (tk->special[i].n <= n && memcmp(tk->special[i].p, p, tk->special[i].n) == 0 &&
            !(cut && memchr(cut + 1, 1, tk->special[i].n - 1)))
            return &tk->special[i];
    return NULL;
}

/* A run of text for SentencePiece: U+2581 means a space there, and a space may be put in front. */
static enum skf_err encode_words(const struct skf_tokenizer *tk, struct skf_bpe *b, const char *p, size_t n, int32_t *ids, size_t *n_ids)
{
    if (n == 0)
        return SKF_OK;
    char *text = n < SIZE_MAX - 1 ? skf_alloc(n + 1) : NULL;
    size_t to = 0;
    if (!text)
        return SKF_ERR_NOMEM;
    if (tk->is_space_prefixed)
        text[to++] = ' ';
    for (size_t i = 0; i < n; to++) {
        bool is_space = is_spm_space(p + i, n - i);
        text[to] = is_space ? ' ' : p[i];
        i += is_space ? 3 : 1;
    }
    enum skf_err e = skf_bpe_text(b, tk, tk->byte_id, text, to, ids, n_ids);
    skf_free(text);
    return e;
}

static enum skf_err encode_plain(const struct skf_tokenizer *tk, struct skf_bpe *b, const char *p, size_t n, int32_t *ids,
                                 size_t *n_ids)
{
    if (tk->is_by_score)
        return encode_words(tk, b, p, n, ids, n_ids);
    while (n > 0) {
        size_t len = skf_pre_piece(tk->pre, p, n);
        int32_t whole = tk->is_whole_first ? *skf_token_place(&tk->words, tk, p, len) : -1;
        if (whole >= 0)
            ids[(*n_ids)++] = whole;
        else
            SKF_TRY(skf_bpe_piece(b, &tk->merges, tk->byte_id, p, len, ids, n_ids));
        p += len;
        n -= len;
    }
    return SKF_OK;
}

enum skf_err skf_tokenizer_encode(const struct skf_tokenizer *tk, const char *text, size_t n, bool add_bos, int32_t **out,
                                  size_t *n_out, struct skf_why *why)
{
    return skf_tokenizer_encode_cut(tk, text, n, NULL, add_bos, out, n_out, why);
}

bool is_tokenizer_control_at(const struct skf_tokenizer *tk, const char *p, size_t n)
{
    const struct special *s = n ? special_at(tk, p, n, NULL) : NULL;
    return s && tk->tokens[s->id].type == SKF_TOKEN_CONTROL;
}

enum skf_err skf_tokenizer_encode_cut(const struct skf_tokenizer *tk, const char *text, size_t n, const uint8_t *cut, bool add_bos,
                                      int32_t **out, size_t *n_out, struct skf_why *why)
{
    enum skf_err e = SKF_ERR_NOMEM;
    size_t n_ids = 0, from = 0;
    struct skf_bpe *b = skf_bpe_new();
    int32_t *ids = n < SIZE_MAX / sizeof *ids / 2 - 2 ? skf_alloc((2 * n + 2) * sizeof *ids) : NULL; /* a byte a token at the least, and a space before each run */
    if (!b || !ids)
        goto out;
    if (add_bos && tk->is_bos_added) {
        const struct special *s = n ? special_at(tk, text, n, cut) : NULL;
        if (!s || s->id != tk->bos) /* a template may have put it there already */
            ids[n_ids++] = tk->bos;
    }
    for (size_t at = 0; at < n;) {
        const struct special *s = special_at(tk, text + at, n - at, cut ? cut + at : NULL);
        if (!s) {
            at++;
            continue;
        }
        SKF_GO(e, encode_plain(tk, b, text + from, at - from, ids, &n_ids));
        ids[n_ids++] = s->id;
        at += s->n;
        while (s->takes_space && at < n && (text[at] == ' ' || (text[at] >= '\t' && text[at] <= '\r')))
            at++;
        from = at;
    }
    SKF_GO(e, encode_plain(tk, b, text + from, n - from, ids, &n_ids));
out:
    skf_bpe_free(b);
    if (e != SKF_OK) {
        skf_free(ids);
        return skf_fail(why, e, "cannot turn %zu bytes of text into tokens: %s", n, skf_err_name(e));
    }
    *out = ids;
    *n_out = n_ids;
    return SKF_OK;
}

uint32_t skf_tokenizer_size(const struct skf_tokenizer *tk) { return tk->n; }

static const struct token *token_of(const struct skf_tokenizer *tk, int32_t id)
{
    return id >= 0 && (uint32_t)id < tk->n ? &tk->tokens[id] : NULL;
}

const char *skf_tokenizer_text(const struct skf_tokenizer *tk, int32_t id, size_t *n)
{
    const struct token *t = token_of(tk, id);
    *n = t ? t->n : 0;
    return t ? t->p : NULL;
}

bool is_tokenizer_stop(const struct skf_tokenizer *tk, int32_t id)
{
    const struct token *t = token_of(tk, id);
    return t && t->is_stop;
}

bool is_tokenizer_control(const struct skf_tokenizer *tk, int32_t id)
{
    const struct token *t = token_of(tk, id);
    return t && (t->type == SKF_TOKEN_CONTROL || t->type == SKF_TOKEN_UNUSED);
}

const char *skf_tokenizer_bos(const struct skf_tokenizer *tk) { return tk->bos < 0 ? NULL : tk->tokens[tk->bos].p; }
const char *skf_tokenizer_eos(const struct skf_tokenizer *tk) { return tk->eos < 0 ? NULL : tk->tokens[tk->eos].p; }
