/*
 * Loading a tokenizer from GGUF metadata.  The file may be hostile: every count is bounded, every merge must name
 * tokens that exist, and the tables are hashed with a seed of our own.
 */
#include "base/alloc.h"
#include "base/digest.h"
#include "runtime/tokenizer_load_priv.h"
#include "runtime/unicode_priv.h"

/* GPT-2 spells the 256 bytes as printable characters: those that are printable in Latin-1 as themselves, the others, in order,
 * from U+0100 on. */
static void spelling(struct spell *s)
{
    memset(s->byte_of, -1, sizeof s->byte_of);
    uint32_t other = 256;
    for (uint32_t b = 0; b < 256; b++) {
        bool is_itself = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        s->byte_of[is_itself ? b : other++] = (int16_t)b;
    }
}

/* Undoes it; false (and nothing of use written) when the text holds another character. out has room for n bytes. */
static bool is_unspelled(const struct spell *s, const char *p, uint64_t n, char *out, uint32_t *out_n)
{
    uint32_t k = 0;
    for (size_t at = 0, len; at < n; at += len) {
        uint32_t c = skf_utf8_get(p + at, n - at, &len);
        if (c >= SKF_COUNT(s->byte_of) || s->byte_of[c] < 0)
            return false;
        out[k++] = (char)s->byte_of[c];
    }
    *out_n = k;
    return true;
}

/* ---- token by its bytes, while loading ------------------------------------------------------------------------------------------ */
static uint64_t hash_bytes(uint64_t seed, const char *p, size_t n)
{
    uint64_t h = seed ^ n;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ (unsigned char)p[i]) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return h ^ h >> 32;
}

int32_t *skf_token_place(const struct index *x, const struct skf_tokenizer *tk, const char *p, size_t n)
{
    uint64_t mask = ((uint64_t)1 << x->bits) - 1, i = hash_bytes(x->seed, p, n) & mask;
    for (;; i = (i + 1) & mask) {
        int32_t id = x->ids[i];
        if (id < 0 || (tk->tokens[id].n == n && memcmp(tk->tokens[id].p, p, n) == 0))
            return &x->ids[i];
    }
}

static unsigned bits_for(uint64_t n)
{
    unsigned bits = 4;
    while ((uint64_t)1 << bits < 2 * n)
        bits++;
    return bits;
}

static const struct skf_gguf_value *strings_of(const struct skf_gguf *g, const char *key, uint64_t most, enum skf_err *e,
                                               struct skf_why *why)
{
    const struct skf_gguf_value *v = skf_gguf_get(g, key);
    if (!v || !v->is_array || v->type != SKF_GGUF_STRING)
        *e = skf_fail(why, SKF_ERR_FORMAT, "%s is missing or no array of strings", key);
    else if (v->count > most)
        *e = skf_fail(why, SKF_ERR_LIMIT, "%s has %llu entries, more than %llu", key, (unsigned long long)v->count,
                      (unsigned long long)most);
    else
        return v;
    return NULL;
}

static enum skf_err load_types(const struct skf_gguf *g, struct skf_tokenizer *tk, struct skf_why *why)
{
    const struct skf_gguf_value *types = skf_gguf_get(g, "tokenizer.ggml.token_type");
    if (types && (!types->is_array || types->count != tk->n))
        return skf_fail(why, SKF_ERR_FORMAT, "tokenizer.ggml.token_type does not have one entry a token (%u)", tk->n);
    for (uint32_t i = 0; i < tk->n; i++) {
        uint64_t t = SKF_TOKEN_NORMAL;
        if (types && (!is_gguf_array_u64(types, i, &t) || t < 1 || t > 6))
            return skf_fail(why, SKF_ERR_FORMAT, "tokenizer.ggml.token_type: entry %u is not one of 1 to 6", i);
        tk->tokens[i].type = (uint8_t)t;
    }
    return SKF_OK;
}

/* The bytes of a SentencePiece token: a space for U+2581, and <0x0A> is the byte 10. */
static uint32_t unscore(uint8_t type, const struct skf_str *s, char *out)
{
    uint32_t n = 0;
    char hex[8] = {0}, *end = NULL;
    if (type == SKF_TOKEN_BYTE && s->n == 6 && memcmp(s->p, "<0x", 3) == 0) {
        memcpy(hex, s->p + 3, 2);
        out[0] = (char)strtoul(hex, &end, 16);
        if (end == hex + 2)
            return 1;
    }
    for (uint64_t i = 0; i < s->n; n++) {
        bool is_space = is_spm_space(s->p + i, s->n - i) && type != SKF_TOKEN_CONTROL;
        out[n] = is_space ? ' ' : s->p[i];
        i += is_space ? 3 : 1;
    }
    return n;
}

static enum skf_err load_tokens(const struct skf_gguf *g, struct skf_tokenizer *tk, const struct spell *s, struct skf_why *why)
{
    enum skf_err e = SKF_OK;
    const struct skf_gguf_value *v = strings_of(g, "tokenizer.ggml.tokens", SKF_TOKENS_MAX, &e, why);
    if (!v)
        return e;
    if (v->count == 0)
        return skf_fail(why, SKF_ERR_FORMAT, "tokenizer.ggml.tokens is empty");
    tk->n = (uint32_t)v->count;
    uint64_t bytes = 0; /* bounded by the file's size: the strings stand in it */
    for (uint32_t i = 0; i < tk->n; i++)
        bytes += v->strings[i].n + 1;
    tk->tokens = skf_calloc(tk->n, sizeof *tk->tokens);
    tk->text = skf_alloc(bytes);
    if (!tk->tokens || !tk->text)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for %u tokens", tk->n);
    SKF_TRY(load_types(g, tk, why));
    char *to = tk->text;
    for (uint32_t i = 0; i < tk->n; i++) {
        struct token *t = &tk->tokens[i];
        const struct skf_str *str = &v->strings[i];
        if (str->n > UINT16_MAX)
            return skf_fail(why, SKF_ERR_LIMIT, "token %u is %llu bytes long", i, (unsigned long long)str->n);
        t->p = to;
        if (tk->is_by_score) {
            t->n = unscore(t->type, str, to);
        } else if (t->type != SKF_TOKEN_NORMAL || !is_unspelled(s, str->p, str->n, to, &t->n)) {
            memcpy(to, str->p, str->n); /* special, or spelt as it is */
            t->n = (uint32_t)str->n;
        }
        to[t->n] = '\0';
        to += t->n + 1;
    }
    return SKF_OK;
}

static enum skf_err index_tokens(struct skf_tokenizer *tk, struct index *x, struct skf_why *why)
{
    x->bits = bits_for(tk->n);
    x->ids = skf_alloc(((size_t)1 << x->bits) * sizeof *x->ids);
    if (!x->ids)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for the index of tokens");
    memset(x->ids, -1, ((size_t)1 << x->bits) * sizeof *x->ids);
    for (uint32_t i = 0; i < tk->n; i++) {
        int32_t *place = skf_token_place(x, tk, tk->tokens[i].p, tk->tokens[i].n);
        uint8_t type = tk->tokens[i].type;
        bool is_word = type == SKF_TOKEN_NORMAL || (tk->is_by_score && (type == SKF_TOKEN_USER || type == SKF_TOKEN_UNUSED));
        if (is_word && *place < 0)
            *place = (int32_t)i;
    }
    for (int b = 0; b < 256; b++) {
        char c = (char)b;
        tk->byte_id[b] = *skf_token_place(x, tk, &c, 1);
    }
    return SKF_OK;
}

static enum skf_err load_merges(const struct skf_gguf *g, struct skf_tokenizer *tk, const struct spell *s, const struct index *x,
                                struct skf_why *why)
{
    enum skf_err e = SKF_OK;
    const struct skf_gguf_value *v = strings_of(g, "tokenizer.ggml.merges", SKF_MERGES_MAX, &e, why);
    if (!v)
        return e;
    tk->merges.bits = bits_for(v->count);
    tk->merges.rules = skf_alloc(((size_t)1 << tk->merges.bits) * sizeof *tk->merges.rules);
    if (!tk->merges.rules)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for %llu merges", (unsigned long long)v->count);
    memset(tk->merges.rules, -1, ((size_t)1 << tk->merges.bits) * sizeof *tk->merges.rules);
    for (uint64_t i = 0; i < v->count; i++) {
        const struct skf_str *m = &v->strings[i];
        char both[1024];
        uint32_t n = 0, n_right = 0;
        const char *space = m->n > 2 && m->n < sizeof both ? memchr(m->p + 1, ' ', m->n - 1) : NULL;
        if (!space || !is_unspelled(s, m->p, (uint64_t)(space - m->p), both, &n) ||
            !is_unspelled(s, space + 1, m->n - (uint64_t)(space + 1 - m->p), both + n, &n_right))
            return skf_fail(why, SKF_ERR_FORMAT, "tokenizer.ggml.merges: entry %llu is no pair", (unsigned long long)i);
        int32_t left = *skf_token_place(x, tk, both, n), right = *skf_token_place(x, tk, both + n, n_right),
                id = *skf_token_place(x, tk, both, n + n_right);
        if (left < 0 || right < 0 || id < 0)
            return skf_fail(why, SKF_ERR_FORMAT, "tokenizer.ggml.merges: entry %llu names a token that is not there",
                            (unsigned long long)i);
        struct skf_merge_rule *r = (struct skf_merge_rule *)skf_merges_find(&tk->merges, left, right);
        if (r->pair == UINT64_MAX) /* of two equal ones the first counts */
            *r = (struct skf_merge_rule){(uint64_t)(uint32_t)left << 32 | (uint32_t)right, (uint32_t)i, id};
    }
    return SKF_OK;
}

static enum skf_err load_special_ids(const struct skf_gguf *g, struct skf_tokenizer *tk, struct skf_why *why)
{
    static const char *const keys[] = {"bos", "eos", "eot", "eom"};
    static const char *const ends[] = {"<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>"};
    tk->bos = tk->eos = -1;
    for (size_t i = 0; i < SKF_COUNT(keys); i++) {
        char key[64];
        uint64_t id;
        (void)snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", keys[i]);
        if (!is_gguf_u64(g, key, &id))
            continue;
        if (id >= tk->n)
            return skf_fail(why, SKF_ERR_FORMAT, "%s is %llu, but there are %u tokens", key, (unsigned long long)id, tk->n);
        if (i == 0)
            tk->bos = (int32_t)id;
        else
            tk->tokens[id].is_stop = true;
        if (i == 1)
            tk->eos = (int32_t)id;
    }
    for (uint32_t i = 0; i < tk->n; i++) /* files that name one end only mean the others too */
        for (size_t k = 0; k < SKF_COUNT(ends) && tk->tokens[i].type == SKF_TOKEN_CONTROL; k++)
            if (strcmp(tk->tokens[i].p, ends[k]) == 0)
                tk->tokens[i].is_stop = true;
    if (tk->is_by_score && tk->bos < 0 && tk->n > 2 && tk->tokens[1].type == SKF_TOKEN_CONTROL) /* SentencePiece's own places */
        tk->bos = 1;
    tk->is_bos_added = (tk->is_by_score || tk->is_whole_first) && tk->bos >= 0; /* unless the file says otherwise */
    (void)is_gguf_bool(g, "tokenizer.ggml.add_bos_token", &tk->is_bos_added);
    if (tk->is_bos_added && tk->bos < 0)
        return skf_fail(why, SKF_ERR_FORMAT, "tokenizer.ggml.add_bos_token is set, but no tokenizer.ggml.bos_token_id");
    return SKF_OK;
}

/* Special tokens by first byte, the longest first. */
static int by_first_then_length(const void *a, const void *b)
{
    const struct special *x = a, *y = b;
    if (x->p[0] != y->p[0])
        return (unsigned char)x->p[0] < (unsigned char)y->p[0] ? -1 : 1;
    if (x->n != y->n)
        return x->n > y->n ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}
/* What is found in a text before all else. */
static bool is_special(const struct token *t) { return is_special_type(t->type) && t->n > 0; }

/* Phi-3's and 3.5's special tokens, the turns' among them, take the white space behind them, but for these three. No file says so: their
 * tokenizer does, which transformers reads and GGUF does not carry. */
static bool takes_space(const struct token *t)
{
    static const char *const not[] = {"<unk>", "<s>", "<|endoftext|>"};
    for (size_t i = 0; i < SKF_COUNT(not); i++)
        if (strcmp(t->p, not[i]) == 0)
            return false;
    return true;
}

static enum skf_err load_specials(const struct skf_gguf *g, struct skf_tokenizer *tk, struct skf_why *why)
{
    struct skf_str s;
    const bool is_phi = tk->is_by_score && is_gguf_str(g, "general.architecture", &s) && s.n == 4 && memcmp(s.p, "phi3", 4) == 0;
    for (uint32_t i = 0; i < tk->n; i++)
        tk->n_special += is_special(&tk->tokens[i]);
    if (tk->n_special > SKF_SPECIALS_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "%u special tokens, more than %u", tk->n_special, SKF_SPECIALS_MAX);
    tk->special = skf_calloc((size_t)tk->n_special + 1, sizeof *tk->special);
    if (!tk->special)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for %u special tokens", tk->n_special);
    uint32_t k = 0;
    for (uint32_t i = 0; i < tk->n; i++)
        if (is_special(&tk->tokens[i]))
            tk->special[k++] = (struct special){tk->tokens[i].p, tk->tokens[i].n, (int32_t)i, is_phi && takes_space(&tk->tokens[i])};
    qsort(tk->special, k, sizeof *tk->special, by_first_then_length);
    for (uint32_t i = k; i-- > 0;)
        tk->first[(unsigned char)tk->special[i].p[0]] = i + 1;
    return SKF_OK;
}

static enum skf_err load_kind(const struct skf_gguf *g, struct skf_tokenizer *tk, struct skf_why *why)
{
    struct skf_str s;
    if (!is_gguf_str(g, "tokenizer.ggml.model", &s))
        return skf_fail(why, SKF_ERR_FORMAT, "the file names no tokenizer (tokenizer.ggml.model)");
    tk->is_by_score = s.n == 5 && memcmp(s.p, "llama", 5) == 0;
    if (tk->is_by_score)
        return SKF_OK; /* it has no pre-tokenizer */
    if (s.n != 4 || memcmp(s.p, "gpt2", 4) != 0)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "tokenizer \"%.*s\" is not known to this build", (int)SKF_MIN(s.n, 64u), s.p);
    if (!is_gguf_str(g, "tokenizer.ggml.pre", &s))
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "the file names no pre-tokenizer (tokenizer.ggml.pre)");
    if (!is_pre_known(s.p, s.n, &tk->pre))
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "pre-tokenizer \"%.*s\" is not known to this build", (int)SKF_MIN(s.n, 64u), s.p);
    tk->is_whole_first = tk->pre == SKF_PRE_LLAMA3;
    return SKF_OK;
}

enum skf_err skf_tokenizer_load(const struct skf_gguf *g, struct skf_tokenizer **out, struct skf_why *why)
{
    enum skf_err e;
    struct spell s;
    struct index x = {0};
    struct skf_tokenizer *tk = skf_calloc(1, sizeof *tk);
    if (!tk)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a tokenizer");
    spelling(&s);
    SKF_GO(e, skf_random(&x.seed, sizeof x.seed));
    tk->merges.seed = x.seed * 0x9e3779b97f4a7c15u;
    SKF_GO(e, load_kind(g, tk, why));
    SKF_GO(e, load_tokens(g, tk, &s, why));
    SKF_GO(e, index_tokens(tk, &x, why));
    if (tk->is_by_score) {
        tk->words = x;
        x.ids = NULL;
        SKF_GO(e, skf_tokenizer_words(g, tk, why));
    } else {
        SKF_GO(e, load_merges(g, tk, &s, &x, why));
        if (tk->is_whole_first) {
            tk->words = x;
            x.ids = NULL;
        }
    }
    SKF_GO(e, load_special_ids(g, tk, why));
    SKF_GO(e, load_specials(g, tk, why));
out:
    skf_free(x.ids);
    if (e == SKF_OK)
        *out = tk;
    else
        skf_tokenizer_free(tk);
    return e;
}
