/*
 * The bytes of answers, written by hand rather than through a JSON tree: a streamed token passes here, and the gateway's hop is to
 * cost little of its time.
 */
#include <inttypes.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/util.h"
#include "gateway/gateway_priv.h"

static enum skf_err put_string(struct skf_buf *b, const char *s)
{
    static const char hex[] = "0123456789abcdef";
    SKF_TRY(skf_buf_u8(b, '"'));
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

static enum skf_err put_usage(struct skf_buf *b, const Skiff__V1__Finished *f)
{
    return skf_buf_printf(b, ",\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%" PRIu64
                             ",\"prompt_tokens_details\":{\"cached_tokens\":%u},\"completion_tokens_details\":{\"accepted_prediction_tokens\":%u,"
                             "\"rejected_prediction_tokens\":%u}}",
                          f->prompt_tokens, f->completion_tokens, (uint64_t)f->prompt_tokens + f->completion_tokens, f->cached_tokens,
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

static const char *finish_of(const Skiff__V1__Finished *f) { return strcmp(f->reason, "length") == 0 ? "length" : "stop"; }

/* One event whose choice is {"index":0,<choice>,"logprobs":null,"finish_reason":<finish>}; text NULL for none. */
static enum skf_err put_event(struct skf_gw *g, struct gw_req *r, const char *before, const char *text, const char *after,
                              const char *finish)
{
    struct skf_buf *b = &r->line;
    skf_buf_clear(b);
    SKF_TRY(skf_buf_str(b, "data: "));
    SKF_TRY(put_head(b, g, r, r->ask.is_chat ? "chat.completion.chunk" : "text_completion"));
    SKF_TRY(skf_buf_printf(b, "{\"index\":0,%s", before));
    if (text)
        SKF_TRY(put_string(b, text));
    SKF_TRY(skf_buf_printf(b, "%s,\"logprobs\":null,\"finish_reason\":%s}]", after, finish));
    SKF_TRY(skf_buf_str(b, r->ask.include_usage ? ",\"usage\":null}\n\n" : "}\n\n"));
    return skf_http_put(r->http, b->data, b->len);
}

enum skf_err skf_gw_put_begin(struct skf_gw *g, struct gw_req *r)
{
    SKF_TRY(skf_http_set_header(r->http, "x-skiff-version", r->version));
    SKF_TRY(skf_http_set_header(r->http, "Cache-Control", "no-cache"));
    SKF_TRY(skf_http_begin(r->http, 200, "text/event-stream"));
    r->is_begun = true;
    return r->ask.is_chat ? put_event(g, r, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}", NULL, "", "null") : SKF_OK;
}

enum skf_err skf_gw_put_text(struct skf_gw *g, struct gw_req *r, const char *text)
{
    return r->ask.is_chat ? put_event(g, r, "\"delta\":{\"content\":", text, "}", "null")
                          : put_event(g, r, "\"text\":", text, "", "null");
}

enum skf_err skf_gw_put_end(struct skf_gw *g, struct gw_req *r, const Skiff__V1__Finished *f)
{
    struct skf_buf *b = &r->line;
    const char *finish = strcmp(finish_of(f), "length") == 0 ? "\"length\"" : "\"stop\"";
    SKF_TRY(put_event(g, r, r->ask.is_chat ? "\"delta\":{}" : "\"text\":\"\"", NULL, "", finish));
    skf_buf_clear(b);
    if (r->ask.include_usage) {
        SKF_TRY(skf_buf_str(b, "data: "));
        SKF_TRY(put_head(b, g, r, r->ask.is_chat ? "chat.completion.chunk" : "text_completion"));
        SKF_TRY(skf_buf_str(b, "]"));
        SKF_TRY(put_usage(b, f));
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

enum skf_err skf_gw_reply_whole(struct skf_gw *g, struct gw_req *r, const Skiff__V1__Finished *f)
{
    struct skf_buf b = SKF_BUF_INIT(7 * (size_t)GW_TEXT);
    const char *text = "";
    enum skf_err e;
    SKF_GO(e, skf_buf_cstr(&r->text, &text));
    SKF_GO(e, put_head(&b, g, r, r->ask.is_chat ? "chat.completion" : "text_completion"));
    SKF_GO(e, skf_buf_str(&b, r->ask.is_chat ? "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":" : "{\"index\":0,\"text\":"));
    SKF_GO(e, put_string(&b, text));
    SKF_GO(e, skf_buf_printf(&b, "%s,\"logprobs\":null,\"finish_reason\":\"%s\"}]", r->ask.is_chat ? "}" : "", finish_of(f)));
    SKF_GO(e, put_usage(&b, f));
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
