/*
 * A conversation as tokens.  What its messages say must stay text: a message that spells the model's end of turn would otherwise forge
 * turns of others.  So a mark goes into every control token that a role or content spells, behind its first character; the template
 * carries it along; and where the rendered text is turned into tokens a mark keeps what it lies in from being taken as a token.
 * The mark is a character that Unicode keeps for such inner use, U+FDD0.  One that a message brings along is lost, and does no more
 * than ours: it lies between two characters of that message, never inside a token that the template writes.
 */
#include "base/alloc.h"
#include "base/buf.h"
#include "runtime/engine_priv.h"
#include "runtime/template.h"

#define CHAT_LIMIT (8u << 20)

static const char mark[] = "\357\267\220";
enum { MARK = sizeof mark - 1 };

static const char chatml[] = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
                             "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ "
                             "'<|im_start|>assistant\\n' }}{% endif %}";

/* Adds the text with its marks, and a NUL; *at is where it begins. */
static enum skf_err put_marked(const struct skf_tokenizer *tk, const char *text, struct skf_buf *out, size_t *at)
{
    text = text ? text : "";
    size_t n = strlen(text), from = 0;
    *at = out->len;
    for (size_t i = 0; i < n; i++) {
        if (!is_tokenizer_control_at(tk, text + i, n - i))
            continue;
        size_t end = i + 1; /* of its first character */
        while (end < n && ((unsigned char)text[end] & 0xc0) == 0x80)
            end++;
        SKF_TRY(skf_buf_put(out, text + from, end - from));
        SKF_TRY(skf_buf_put(out, mark, MARK));
        from = end;
    }
    SKF_TRY(skf_buf_put(out, text + from, n - from));
    return skf_buf_u8(out, 0);
}

/* Takes the marks out of the n bytes and notes before which bytes they stood; gives back how many bytes are left. */
static size_t take_marks(char *text, size_t n, uint8_t *cut)
{
    size_t to = 0;
    for (size_t i = 0; i < n;) {
        if (n - i >= MARK && memcmp(text + i, mark, MARK) == 0) {
            cut[to] = 1;
            i += MARK;
        } else {
            text[to++] = text[i++];
        }
    }
    return to;
}

static enum skf_err encode(const struct skf_engine *e, struct skf_buf *text, int32_t **ids, size_t *n_ids, struct skf_why *why)
{
    uint8_t *cut = skf_calloc(text->len + 1, 1);
    if (!cut)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a chat of %zu bytes", text->len);
    size_t n = take_marks((char *)text->data, text->len, cut);
    enum skf_err err = skf_tokenizer_encode_cut(e->tk, (const char *)text->data, n, cut, false, ids, n_ids, why);
    skf_free(cut);
    return err;
}

/* The messages' texts one behind the other in `all`; msgs afterwards points there. */
static enum skf_err mark_all(const struct skf_engine *e, struct skf_chat *msgs, size_t n, struct skf_buf *all, size_t *at)
{
    for (size_t i = 0; i < n; i++) {
        SKF_TRY(put_marked(e->tk, msgs[i].role, all, &at[2 * i]));
        SKF_TRY(put_marked(e->tk, msgs[i].content, all, &at[2 * i + 1]));
    }
    for (size_t i = 0; i < n; i++)
        msgs[i] = (struct skf_chat){(const char *)all->data + at[2 * i], (const char *)all->data + at[2 * i + 1]};
    return SKF_OK;
}

enum skf_err skf_engine_chat(const struct skf_engine *e, const struct skf_chat *msgs, size_t n, int32_t **ids, size_t *n_ids,
                             struct skf_why *why)
{
    struct skf_buf all = SKF_BUF_INIT(2 * CHAT_LIMIT), text = SKF_BUF_INIT(CHAT_LIMIT);
    bool is_own = e->template.n > 0;
    struct skf_chat *marked = skf_calloc(n + 1, sizeof *marked);
    size_t *at = skf_calloc(2 * n + 1, sizeof *at);
    enum skf_err err = marked && at ? SKF_OK : SKF_ERR_NOMEM;
    for (size_t i = 0; err == SKF_OK && i < n; i++)
        marked[i] = msgs[i];
    if (err == SKF_OK)
        err = mark_all(e, marked, n, &all, at);
    if (err != SKF_OK) {
        err = skf_fail(why, err, "a chat of %zu messages: %s", n, skf_err_name(err));
        goto out;
    }
    SKF_GO(err, skf_template_render(is_own ? e->template.p : chatml, is_own ? e->template.n : sizeof chatml - 1, marked, n,
                                    skf_tokenizer_bos(e->tk), skf_tokenizer_eos(e->tk), true, &text, why));
    err = encode(e, &text, ids, n_ids, why);
out:
    skf_free(marked);
    skf_free(at);
    skf_buf_free(&all);
    skf_buf_free(&text);
    return err;
}

/* One conversation more, and back: how it would go on. */
static enum skf_err go_on(const struct skf_engine *e, struct skf_chat *all, size_t n, const char *text, int32_t **ids, size_t *n_ids,
                          struct skf_why *why)
{
    all[n] = (struct skf_chat){"user", text};
    return skf_engine_chat(e, all, n + 1, ids, n_ids, why);
}

enum skf_err skf_engine_beginning(const struct skf_engine *e, const struct skf_chat *msgs, size_t n, int32_t **ids, size_t *n_ids,
                                  struct skf_why *why)
{
    int32_t *other = NULL;
    size_t n_other = 0, same = 0;
    if (n > 0 && strcmp(msgs[n - 1].role, "user") == 0)
        return skf_engine_chat(e, msgs, n, ids, n_ids, why);
    struct skf_chat *all = skf_calloc(n + 1, sizeof *all);
    if (!all)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a chat of %zu messages", n);
    for (size_t i = 0; i < n; i++)
        all[i] = msgs[i];
    enum skf_err err = go_on(e, all, n, "0", ids, n_ids, why);
    if (err == SKF_OK) {
        err = go_on(e, all, n, "A", &other, &n_other, why);
        while (err == SKF_OK && same < SKF_MIN(*n_ids, n_other) && (*ids)[same] == other[same])
            same++;
        if (err != SKF_OK) {
            skf_free(*ids);
            *ids = NULL;
        }
        *n_ids = same;
    }
    skf_free(other);
    skf_free(all);
    return err;
}
