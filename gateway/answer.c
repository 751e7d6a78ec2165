/*
 * The bytes of answers, written by hand rather than through a JSON tree: a streamed token passes here, and the gateway's hop is to
 * cost little of its time.
 */
#include <inttypes.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/util.h"
#include "gateway/gateway_priv.h"

/* Without the quotes. */
static enum skf_err put_escaped(struct skf_buf *b, const char *s)
{
    static const char hex[] = "0123456789abcdef";
    while (*s) {
        size_t n = 0;
        while ((unsigned char)s[n] >= 0x20 && s[n] != '"' && s[n] != '\\')
            n++;
        SKF_TRY(skf_buf_put(b, s, n));
        s += n;
        if (!*s)
            break;
        char c = *s++, e = c == '\n' ? 'n' : c == '\t' ? 't' : c == '\r' ? 'r' : c == '"' || c == '\\' ? c : 0;
        const char two[2] = {'\\', e}, six[6] = {'\\', 'u', '0', '0', hex[(c >> 4) & 1], hex[c & 15]};
        SKF_TRY(e ? skf_buf_put(b, two, 2) : skf_buf_put(b, six, 6));
    }
    return SKF_OK;
}

static enum skf_err put_string(struct skf_buf *b, const char *s)
{
    SKF_TRY(skf_buf_u8(b, '"'));
    SKF_TRY(put_escaped(b, s));
    return skf_buf_u8(b, '"');
}

/* A token's bytes as a string: what is no character becomes U+FFFD. Gives how many characters there were. */
static enum skf_err put_bytes(struct skf_buf *b, const ProtobufCBinaryData *t, uint64_t *characters)
{
    char part[8];
    SKF_TRY(skf_buf_u8(b, '"'));
    for (size_t i = 0; i < t->len; ++*characters) {
        size_t n = skf_utf8_len(t->data + i, t->len - i);
        memcpy(part, n ? (const char *)t->data + i : "\xEF\xBF\xBD", n ? n : 3);
        part[n ? n : 3] = 0;
        SKF_TRY(put_escaped(b, part));
        i += n ? n : 1;
    }
    return skf_buf_u8(b, '"');
}

/* "model" or "model:adapter": names without quotes and controls but for what put_string minds. */
static enum skf_err put_name(struct skf_buf *b, const char *model, const char *adapter)
{
    char name[GW_NAME + 66];
    snprintf(name, sizeof name, "%s%s%s", model, adapter[0] ? ":" : "", adapter);
    return put_string(b, name);
}

/* {"id":...,"object":...,"created":...,"model":...,"system_fingerprint":...,"choices":[ */
static enum skf_err put_head(struct skf_buf *b, const struct skf_gw *g, const struct gw_req *r, const char *object)
{
    SKF_TRY(skf_buf_printf(b, "{\"id\":\"%s-%s-%" PRIu64 "\",\"object\":\"%s\",\"created\":%" PRId64 ",\"model\":",
                           r->ask.is_chat ? "chatcmpl" : "cmpl", g->run_id, r->id, object, r->created));
    SKF_TRY(put_name(b, r->ask.model, r->ask.adapter));
    SKF_TRY(skf_buf_str(b, ",\"system_fingerprint\":"));
    SKF_TRY(put_string(b, r->version));
    return skf_buf_str(b, ",\"choices\":[");
}

static enum skf_err put_usage(struct skf_buf *b, const struct gw_req *f)
{
    return skf_buf_printf(b, ",\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%" PRIu64
                             ",\"prompt_tokens_details\":{\"cached_tokens\":%u},\"completion_tokens_details\":{\"accepted_prediction_tokens\":%u,"
                             "\"rejected_prediction_tokens\":%u}}",
                          f->prompt_tokens, f->tokens, (uint64_t)f->prompt_tokens + f->tokens, f->cached_tokens,
                          f->accepted_tokens, f->drafted_tokens - SKF_MIN(f->accepted_tokens, f->drafted_tokens));
}

/* Where the time went, in milliseconds: the worker's measures, and all of it as seen here. */
static enum skf_err put_timing(struct skf_buf *b, const struct gw_req *r, const Skiff__V1__Finished *f)
{
    return skf_buf_printf(b, ",\"x_skiff\":{\"timing\":{\"queue_ms\":%.3f,\"prefill_ms\":%.3f,\"decode_ms\":%.3f,\"sample_ms\":%.3f,\"write_ms\":%.3f,"
                             "\"longest_gap_ms\":%.3f,\"total_ms\":%.3f}}",
                          (double)f->queue_us / 1e3, (double)f->prefill_us / 1e3, (double)f->decode_us / 1e3, (double)f->sample_us / 1e3, (double)f->write_us / 1e3,
                          (double)f->gap_us / 1e3, (double)(skf_now_ns() - r->start_ns) / 1e6);
}

static enum skf_err set_timing(struct gw_req *r, const Skiff__V1__Finished *f)
{
    char text[200];
    snprintf(text, sizeof text, "queue;dur=%.3f, prefill;dur=%.3f, decode;dur=%.3f, sample;dur=%.3f, write;dur=%.3f, total;dur=%.3f", (double)f->queue_us / 1e3,
             (double)f->prefill_us / 1e3, (double)f->decode_us / 1e3, (double)f->sample_us / 1e3, (double)f->write_us / 1e3, (double)(skf_now_ns() - r->start_ns) / 1e6);
    return skf_http_set_header(r->http, "Server-Timing", text);
}

/* ---- chances of tokens ---------------------------------------------------------------------------------------------------------- */
static enum skf_err put_chance(struct skf_buf *b, const Skiff__V1__Chance *c)
{
    uint64_t characters = 0;
    SKF_TRY(skf_buf_str(b, "{\"token\":"));
    SKF_TRY(put_bytes(b, &c->text, &characters));
    SKF_TRY(skf_buf_printf(b, ",\"logprob\":%.9g,\"bytes\":[", c->logprob));
    for (size_t i = 0; i < c->text.len; i++)
        SKF_TRY(skf_buf_printf(b, i ? ",%u" : "%u", c->text.data[i]));
    return skf_buf_u8(b, ']');
}

/* In chats: one item of the list "content". */
static enum skf_err put_chat_chance(struct skf_buf *b, const Skiff__V1__Token *t)
{
    SKF_TRY(put_chance(b, t->chance));
    SKF_TRY(skf_buf_str(b, ",\"top_logprobs\":["));
    for (size_t i = 0; i < t->n_top; i++) {
        SKF_TRY(i ? skf_buf_u8(b, ',') : SKF_OK);
        SKF_TRY(put_chance(b, t->top[i]));
        SKF_TRY(skf_buf_u8(b, '}'));
    }
    return skf_buf_str(b, "]}");
}

/* Elsewhere: one more of each of tokens, token_logprobs, top_logprobs, text_offset. */
static enum skf_err put_text_chance(struct skf_buf b[4], const Skiff__V1__Token *t, uint64_t *characters)
{
    uint64_t offset = *characters, other = 0;
    for (int k = 0; k < 4; k++)
        SKF_TRY(b[k].len ? skf_buf_u8(&b[k], ',') : SKF_OK);
    SKF_TRY(put_bytes(&b[0], &t->chance->text, characters));
    SKF_TRY(skf_buf_printf(&b[1], "%.9g", t->chance->logprob));
    SKF_TRY(skf_buf_u8(&b[2], '{'));
    for (size_t i = 0; i < t->n_top; i++) {
        SKF_TRY(i ? skf_buf_u8(&b[2], ',') : SKF_OK);
        SKF_TRY(put_bytes(&b[2], &t->top[i]->text, &other));
        SKF_TRY(skf_buf_printf(&b[2], ":%.9g", t->top[i]->logprob));
    }
    SKF_TRY(skf_buf_u8(&b[2], '}'));
    return skf_buf_printf(&b[3], "%" PRIu64, offset);
}

static enum skf_err keep_chance(const struct gw_req *r, struct gw_choice *c, const Skiff__V1__Token *t)
{
    if (!t->chance)
        return SKF_OK;
    if (!r->ask.is_chat)
        return put_text_chance(c->chances, t, &c->characters);
    SKF_TRY(c->chances[0].len ? skf_buf_u8(&c->chances[0], ',') : SKF_OK);
    return put_chat_chance(&c->chances[0], t);
}

/* ,"logprobs":... of what was kept. */
static enum skf_err put_chances(struct skf_buf *b, const struct gw_req *r, const struct gw_choice *c)
{
    static const char *const names[] = {"\"tokens\":[", "],\"token_logprobs\":[", "],\"top_logprobs\":[", "],\"text_offset\":["};
    if (!r->ask.has_logprobs || (!r->ask.is_chat && !c->chances[0].len))
        return skf_buf_str(b, ",\"logprobs\":null");
    SKF_TRY(skf_buf_str(b, ",\"logprobs\":{"));
    for (int k = 0; k < (r->ask.is_chat ? 1 : 4); k++) {
        SKF_TRY(skf_buf_str(b, r->ask.is_chat ? "\"content\":[" : names[k]));
        SKF_TRY(skf_buf_put(b, c->chances[k].data, c->chances[k].len));
    }
    return skf_buf_str(b, "]}");
}

static void clear_chances(struct gw_choice *c)
{
    for (int k = 0; k < 4; k++)
        skf_buf_clear(&c->chances[k]);
}

void skf_gw_choices_clear(struct gw_req *r)
{
    for (unsigned i = 0; r->choices && i < r->ask.n; i++) {
        struct gw_choice *c = &r->choices[i];
        skf_buf_free(&c->text);
        skf_buf_free(&c->tools);
        for (int k = 0; k < 4; k++)
            skf_buf_free(&c->chances[k]);
        *c = (struct gw_choice){.finish = "stop", .text = SKF_BUF_INIT(GW_TEXT), .tools = SKF_BUF_INIT(GW_TEXT)};
        for (int k = 0; k < 4; k++)
            c->chances[k] = SKF_BUF_INIT(4 * (size_t)GW_TEXT);
    }
}

/* ---- streams --------------------------------------------------------------------------------------------------------------------- */
/* One event whose choice is {"index":i,<choice>,"logprobs":...,"finish_reason":<finish>}; text NULL for none. */
static enum skf_err put_event(struct skf_gw *g, struct gw_req *r, struct gw_choice *c, const char *before, const char *text,
                              const char *after, const char *finish)
{
    struct skf_buf *b = &r->line;
    skf_buf_clear(b);
    SKF_TRY(skf_buf_str(b, "data: "));
    SKF_TRY(put_head(b, g, r, r->ask.is_chat ? "chat.completion.chunk" : "text_completion"));
    SKF_TRY(skf_buf_printf(b, "{\"index\":%u,%s", (unsigned)(c - r->choices), before));
    if (text)
        SKF_TRY(put_string(b, text));
    SKF_TRY(skf_buf_str(b, after));
    SKF_TRY(c->chances[0].len ? put_chances(b, r, c) : skf_buf_str(b, ",\"logprobs\":null"));
    SKF_TRY(skf_buf_printf(b, finish ? ",\"finish_reason\":\"%s\"}]" : ",\"finish_reason\":null}]", finish));
    SKF_TRY(skf_buf_str(b, r->ask.include_usage ? ",\"usage\":null}\n\n" : "}\n\n"));
    return skf_http_put(r->http, b->data, b->len);
}

enum skf_err skf_gw_put_begin(struct skf_gw *g, struct gw_req *r)
{
    (void)g;
    SKF_TRY(skf_http_set_header(r->http, "x-skiff-version", r->version));
    SKF_TRY(skf_http_set_header(r->http, "Cache-Control", "no-cache"));
    SKF_TRY(skf_http_begin(r->http, 200, "text/event-stream"));
    r->is_begun = true;
    return SKF_OK;
}

static enum skf_err begin_choice(struct skf_gw *g, struct gw_req *r, struct gw_choice *c)
{
    if (c->is_begun)
        return SKF_OK;
    c->is_begun = true;
    return r->ask.is_chat ? put_event(g, r, c, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}", NULL, "", NULL) : SKF_OK;
}

/* The start of a call; its arguments follow as a string. */
static enum skf_err put_call_head(struct skf_buf *b, const struct skf_gw *g, const struct gw_req *r, const struct gw_choice *c,
                                  const Skiff__V1__Token *t)
{
    SKF_TRY(skf_buf_printf(b, "\"id\":\"call_%s_%" PRIu64 "_%u_%u\",\"type\":\"function\",\"function\":{\"name\":", g->run_id, r->id,
                           (unsigned)(c - r->choices), t->call));
    SKF_TRY(put_string(b, t->call_name));
    return skf_buf_str(b, ",\"arguments\":");
}

static enum skf_err stream_call(struct skf_gw *g, struct gw_req *r, struct gw_choice *c, const Skiff__V1__Token *t)
{
    const char *before = "";
    struct skf_buf head = SKF_BUF_INIT(4096);
    enum skf_err e = skf_buf_printf(&head, "\"delta\":{\"tool_calls\":[{\"index\":%u,", t->call - 1);
    if (e == SKF_OK)
        e = t->call_name[0] ? put_call_head(&head, g, r, c, t) : skf_buf_str(&head, "\"function\":{\"arguments\":");
    if (e == SKF_OK)
        e = skf_buf_cstr(&head, &before);
    if (e == SKF_OK)
        e = put_event(g, r, c, before, t->text, "}}]}", NULL);
    skf_buf_free(&head);
    return e;
}

static enum skf_err stream_token(struct skf_gw *g, struct gw_req *r, struct gw_choice *c, const Skiff__V1__Token *t)
{
    SKF_TRY(begin_choice(g, r, c));
    clear_chances(c);
    SKF_TRY(keep_chance(r, c, t));
    if (t->call)
        return stream_call(g, r, c, t);
    if (!t->text[0] && !t->chance)
        return SKF_OK;
    return r->ask.is_chat ? put_event(g, r, c, "\"delta\":{\"content\":", t->text, "}", NULL)
                          : put_event(g, r, c, "\"text\":", t->text, "", NULL);
}

static enum skf_err keep_token(struct skf_gw *g, struct gw_req *r, struct gw_choice *c, const Skiff__V1__Token *t)
{
    SKF_TRY(keep_chance(r, c, t));
    if (!t->call)
        return skf_buf_str(&c->text, t->text);
    if (t->call_name[0]) {
        SKF_TRY(skf_buf_str(&c->tools, c->tools.len ? "\"}},{" : "{"));
        SKF_TRY(put_call_head(&c->tools, g, r, c, t));
        SKF_TRY(skf_buf_u8(&c->tools, '"'));
    }
    return put_escaped(&c->tools, t->text);
}

enum skf_err skf_gw_put_token(struct skf_gw *g, struct gw_req *r, const Skiff__V1__Token *t)
{
    struct gw_choice *c = &r->choices[t->choice];
    c->calls = SKF_MAX(c->calls, t->call);
    if (!r->ask.stream)
        return keep_token(g, r, c, t);
    if (!r->is_begun)
        SKF_TRY(skf_gw_put_begin(g, r));
    return stream_token(g, r, c, t);
}

enum skf_err skf_gw_put_choice_end(struct skf_gw *g, struct gw_req *r, struct gw_choice *c)
{
    SKF_TRY(begin_choice(g, r, c));
    clear_chances(c);
    return put_event(g, r, c, r->ask.is_chat ? "\"delta\":{}" : "\"text\":\"\"", NULL, "", c->finish);
}

enum skf_err skf_gw_put_end(struct skf_gw *g, struct gw_req *r, const Skiff__V1__Finished *f)
{
    struct skf_buf *b = &r->line;
    skf_buf_clear(b);
    if (r->ask.include_usage) {
        SKF_TRY(skf_buf_str(b, "data: "));
        SKF_TRY(put_head(b, g, r, r->ask.is_chat ? "chat.completion.chunk" : "text_completion"));
        SKF_TRY(skf_buf_str(b, "]"));
        SKF_TRY(put_usage(b, r));
        SKF_TRY(put_timing(b, r, f));
        SKF_TRY(skf_buf_str(b, "}\n\n"));
    }
    SKF_TRY(skf_buf_str(b, "data: [DONE]\n\n"));
    SKF_TRY(skf_http_put(r->http, b->data, b->len));
    skf_http_end(r->http);
    return SKF_OK;
}

static enum skf_err put_error(struct skf_buf *b, const char *text, const char *type, const char *param, const char *code)
{
    SKF_TRY(skf_buf_str(b, "{\"error\":{\"message\":"));
    SKF_TRY(put_string(b, text));
    SKF_TRY(skf_buf_str(b, ",\"type\":"));
    SKF_TRY(put_string(b, type));
    SKF_TRY(skf_buf_str(b, ",\"param\":"));
    SKF_TRY(param && *param ? put_string(b, param) : skf_buf_str(b, "null"));
    SKF_TRY(skf_buf_str(b, ",\"code\":"));
    SKF_TRY(code ? put_string(b, code) : skf_buf_str(b, "null"));
    return skf_buf_str(b, "}}");
}

/* In a stream that has begun: an event that says so, and an end without [DONE]. */
enum skf_err skf_gw_put_error(struct gw_req *r, const char *type, const char *text)
{
    struct skf_buf *b = &r->line;
    skf_buf_clear(b);
    SKF_TRY(skf_buf_str(b, "data: "));
    SKF_TRY(put_error(b, text, type, NULL, NULL));
    SKF_TRY(skf_buf_str(b, "\n\n"));
    SKF_TRY(skf_http_put(r->http, b->data, b->len));
    skf_http_end(r->http);
    return SKF_OK;
}

static enum skf_err put_choice(struct skf_buf *b, const struct gw_req *r, struct gw_choice *c)
{
    const char *text = "";
    SKF_TRY(skf_buf_cstr(&c->text, &text));
    SKF_TRY(skf_buf_printf(b, r->ask.is_chat ? "{\"index\":%u,\"message\":{\"role\":\"assistant\",\"content\":" : "{\"index\":%u,\"text\":",
                           (unsigned)(c - r->choices)));
    SKF_TRY(c->tools.len && !c->text.len ? skf_buf_str(b, "null") : put_string(b, text));
    if (c->tools.len) {
        SKF_TRY(skf_buf_str(b, ",\"tool_calls\":["));
        SKF_TRY(skf_buf_put(b, c->tools.data, c->tools.len));
        SKF_TRY(skf_buf_str(b, "\"}}]"));
    }
    SKF_TRY(skf_buf_str(b, r->ask.is_chat ? "}" : ""));
    SKF_TRY(put_chances(b, r, c));
    return skf_buf_printf(b, ",\"finish_reason\":\"%s\"}", c->finish);
}

/* An object of its own; it is null where the answer was cut before its end. */
static enum skf_err put_extraction(struct skf_buf *b, struct gw_req *r)
{
    struct gw_choice *c = &r->choices[0];
    bool is_whole = strcmp(c->finish, "stop") == 0;
    const char *text = "";
    SKF_TRY(skf_buf_cstr(&c->text, &text));
    SKF_TRY(skf_buf_str(b, "{\"object\":\"extraction\",\"model\":"));
    SKF_TRY(put_string(b, r->ask.model));
    SKF_TRY(skf_buf_str(b, ",\"system_fingerprint\":"));
    SKF_TRY(put_string(b, r->version));
    SKF_TRY(skf_buf_str(b, ",\"data\":"));
    SKF_TRY(skf_buf_str(b, is_whole ? text : "null"));
    return skf_buf_printf(b, ",\"finish_reason\":\"%s\"", c->finish);
}

static enum skf_err put_answers(struct skf_buf *b, struct skf_gw *g, struct gw_req *r)
{
    SKF_TRY(put_head(b, g, r, r->ask.is_chat ? "chat.completion" : "text_completion"));
    for (unsigned i = 0; i < r->ask.n; i++) {
        SKF_TRY(i ? skf_buf_u8(b, ',') : SKF_OK);
        SKF_TRY(put_choice(b, r, &r->choices[i]));
    }
    return skf_buf_u8(b, ']');
}

enum skf_err skf_gw_reply_whole(struct skf_gw *g, struct gw_req *r, const Skiff__V1__Finished *f)
{
    struct skf_buf b = SKF_BUF_INIT(16 * (size_t)GW_TEXT);
    enum skf_err e;
    SKF_GO(e, r->ask.is_extract ? put_extraction(&b, r) : put_answers(&b, g, r));
    SKF_GO(e, put_usage(&b, r));
    SKF_GO(e, skf_buf_u8(&b, '}'));
    SKF_GO(e, skf_http_set_header(r->http, "x-skiff-version", r->version));
    SKF_GO(e, set_timing(r, f));
    e = skf_http_reply(r->http, 200, "application/json", b.data, b.len);
out:
    skf_buf_free(&b);
    return e;
}

void skf_gw_reply_refusal(struct skf_http_req *http, const struct skf_gw_refusal *no, unsigned retry_after)
{
    struct skf_buf b = SKF_BUF_INIT(8 << 10);
    char seconds[16];
    enum skf_err e;
    snprintf(seconds, sizeof seconds, "%u", retry_after);
    SKF_GO(e, put_error(&b, no->text, no->type, no->param, no->code));
    if (retry_after)
        SKF_GO(e, skf_http_set_header(http, "Retry-After", seconds));
    e = skf_http_reply(http, no->status, "application/json", b.data, b.len);
out:
    if (e != SKF_OK)
        skf_http_cut(http);
    skf_buf_free(&b);
}
