/*
 * A conversation as tokens.  What its messages say must stay text: a message that spells the model's end of turn would otherwise forge
 * turns of others.  So a mark goes into every control token that a role or content spells, behind its first character; the template
 * carries it along; and where the rendered text is turned into tokens a mark keeps what it lies in from being taken as a token.
 * The mark is a character that Unicode keeps for such inner use, U+FDD0.  One that a message brings along is lost, and does no more
 * than ours: it lies between two characters of that message, never inside a token that the template writes.
 */
#include "base/alloc.h"
#include "base/buf.h"
#include "runtime/chat_priv.h"
#include "runtime/engine_priv.h"
#include "runtime/template.h"
#include "runtime/tools_priv.h"

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

/* A conversation in the making: what it says, with marks. */
struct marked {
    struct skf_chat *msgs;
    struct skf_chat_more *more;
    const char *tools;
    size_t n, *at;
    struct skf_buf all;
};
enum { TEXTS = 5 }; /* of a message */

static void free_marked(struct marked *x)
{
    skf_free(x->msgs);
    skf_free(x->more);
    skf_free(x->at);
    skf_buf_free(&x->all);
}

static enum skf_err put_json(const struct skf_tokenizer *tk, const char *json, bool are_calls, struct marked *x, size_t *at, struct skf_why *why)
{
    char *text = NULL;
    enum skf_err e = skf_chat_json(json, are_calls, &text, why);
    if (e == SKF_OK)
        e = put_marked(tk, text, &x->all, at);
    skf_free(text);
    return e;
}

/* The messages' texts one behind the other; x afterwards points there. */
static enum skf_err mark_all(const struct skf_engine *e, const struct skf_chat *msgs, const struct skf_chat_more *more, size_t n,
                             const char *tools, struct marked *x, struct skf_why *why)
{
    x->all = SKF_BUF_INIT(2 * CHAT_LIMIT);
    x->n = n;
    x->msgs = skf_calloc(n + 1, sizeof *x->msgs);
    x->more = skf_calloc(n + 1, sizeof *x->more);
    x->at = skf_calloc(TEXTS * n + 1, sizeof *x->at);
    if (!x->msgs || !x->more || !x->at)
        return SKF_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct skf_chat_more none = {NULL, NULL, NULL}, *m = more ? &more[i] : &none;
        size_t *at = &x->at[TEXTS * i];
        SKF_TRY(put_marked(e->tk, msgs[i].role, &x->all, &at[0]));
        SKF_TRY(put_marked(e->tk, msgs[i].content, &x->all, &at[1]));
        SKF_TRY(put_json(e->tk, m->calls, true, x, &at[2], why));
        SKF_TRY(put_marked(e->tk, m->call_id, &x->all, &at[3]));
        SKF_TRY(put_marked(e->tk, m->name, &x->all, &at[4]));
    }
    SKF_TRY(put_json(e->tk, tools, false, x, &x->at[TEXTS * n], why));
    const char *base = (const char *)x->all.data;
    for (size_t i = 0; i < n; i++) {
        const size_t *at = &x->at[TEXTS * i];
        x->msgs[i] = (struct skf_chat){base + at[0], base + at[1]};
        x->more[i] = (struct skf_chat_more){base + at[2], base + at[3], base + at[4]};
    }
    x->tools = base + x->at[TEXTS * n];
    return SKF_OK;
}

static enum skf_err render(const struct skf_engine *e, const struct skf_chat *msgs, const struct skf_chat_more *more, size_t n,
                           const char *tools, int32_t **ids, size_t *n_ids, struct skf_why *why)
{
    struct skf_buf text = SKF_BUF_INIT(CHAT_LIMIT);
    struct marked x = {0};
    bool is_own = e->template.n > 0;
    enum skf_err err = mark_all(e, msgs, more, n, tools, &x, why);
    if (err != SKF_OK) {
        err = why && why->text[0] ? err : skf_fail(why, err, "a chat of %zu messages: %s", n, skf_err_name(err));
        goto out;
    }
    SKF_GO(err, skf_template_render_tools(is_own ? e->template.p : chatml, is_own ? e->template.n : sizeof chatml - 1, x.msgs, n,
                                          &(struct skf_template_tools){x.more, x.tools}, skf_tokenizer_bos(e->tk), skf_tokenizer_eos(e->tk),
                                          true, &text, why));
    err = encode(e, &text, ids, n_ids, why);
out:
    free_marked(&x);
    skf_buf_free(&text);
    return err;
}

enum skf_err skf_engine_chat(const struct skf_engine *e, const struct skf_chat *msgs, size_t n, int32_t **ids, size_t *n_ids,
                             struct skf_why *why)
{
    return render(e, msgs, NULL, n, NULL, ids, n_ids, why);
}

const char *skf_engine_tool_form(const struct skf_engine *e)
{
    return skf_tool_form_of(e->template.p, e->template.n) == SKF_TOOL_LLAMA ? "llama" : "hermes";
}

enum skf_err skf_engine_chat_tools(const struct skf_engine *e, const struct skf_chat *msgs, const struct skf_chat_more *more, size_t n,
                                   const char *tools, int32_t **ids, size_t *n_ids, struct skf_why *why)
{
    if (e->template.n > 0 && is_tool_template(e->template.p, e->template.n))
        return render(e, msgs, more, n, tools, ids, n_ids, why);
    struct skf_chat *plain = skf_calloc(n + 2, sizeof *plain);
    char **texts = skf_calloc(n + 2, sizeof *texts);
    size_t n_plain = 0;
    enum skf_err err = plain && texts ? skf_chat_plain(msgs, more, n, tools, plain, texts, &n_plain, why)
                                      : skf_fail(why, SKF_ERR_NOMEM, "no memory for a chat of %zu messages", n);
    if (err == SKF_OK)
        err = render(e, plain, NULL, n_plain, NULL, ids, n_ids, why);
    for (size_t i = 0; texts && i < n + 2; i++)
        skf_free(texts[i]);
    skf_free(texts);
    skf_free(plain);
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
