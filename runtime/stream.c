/* What may be given out of a generation's text (stream_priv.h). */
#include "runtime/stream_priv.h"

#include "base/alloc.h"
#include "base/util.h"
#include "runtime/unicode_priv.h"

enum skf_err skf_stream_init(struct skf_stream *s, const char *const *stops, size_t n, struct skf_why *why)
{
    memset(s, 0, sizeof *s);
    s->held = SKF_BUF_INIT(1u << 20);
    s->ready = SKF_BUF_INIT(4u << 20);
    for (size_t i = 0; i < n; i++) {
        size_t len = strnlen(stops[i], SKF_STOP_LEN_MAX + 1);
        if (len == 0)
            continue;
        if (len > SKF_STOP_LEN_MAX || s->n_stops == SKF_STOPS_MAX)
            return skf_fail(why, SKF_ERR_LIMIT, "at most %u stop strings of at most %u bytes", SKF_STOPS_MAX, SKF_STOP_LEN_MAX);
        s->stops[s->n_stops] = skf_strdup(stops[i]);
        if (!s->stops[s->n_stops])
            return skf_fail(why, SKF_ERR_NOMEM, "no memory for a stop string");
        s->stop_len[s->n_stops++] = len;
    }
    return SKF_OK;
}

void skf_stream_free(struct skf_stream *s)
{
    for (size_t i = 0; i < s->n_stops; i++)
        skf_free(s->stops[i]);
    s->n_stops = 0;
    skf_buf_free(&s->held);
    skf_buf_free(&s->ready);
}

/* Where the first stop string begins; n when there is none. */
static size_t find_stop(const struct skf_stream *s, const char *p, size_t n)
{
    for (size_t at = 0; at < n; at++)
        for (size_t i = 0; i < s->n_stops; i++)
            if (s->stop_len[i] <= n - at && memcmp(p + at, s->stops[i], s->stop_len[i]) == 0)
                return at;
    return n;
}

/* Length of the longest end of p that a stop string begins with. */
static size_t begun_stop(const struct skf_stream *s, const char *p, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < s->n_stops; i++)
        for (size_t len = SKF_MIN(s->stop_len[i] - 1, n); len > most; len--)
            if (memcmp(p + n - len, s->stops[i], len) == 0)
                most = len;
    return most;
}

/* Gives out whole characters of p[n]; *used says how many bytes they were. The beginning of a character stays, unless is_last. */
static enum skf_err give(struct skf_buf *out, const char *p, size_t n, bool is_last, size_t *used)
{
    size_t at = 0, len;
    for (; at < n; at += len) {
        uint32_t c = skf_utf8_get(p + at, n - at, &len);
        if (c == SKF_NO_CHAR && is_utf8_begun(p + at, n - at)) {
            if (!is_last)
                break;
            len = n - at; /* cut off: one mark for all of it */
        }
        if (c == SKF_NO_CHAR)
            SKF_TRY(skf_buf_put(out, "\xef\xbf\xbd", 3));
        else
            SKF_TRY(skf_buf_put(out, p + at, len));
    }
    *used = at;
    return SKF_OK;
}

enum skf_err skf_stream_add(struct skf_stream *s, const char *p, size_t n, bool is_last, bool *is_stopped)
{
    skf_buf_clear(&s->ready);
    SKF_TRY(skf_buf_put(&s->held, p, n));
    char *held = (char *)s->held.data;
    size_t len = s->held.len, used = 0, end = find_stop(s, held, len);
    *is_stopped = end < len;
    if (!*is_stopped && !is_last)
        end = len - begun_stop(s, held, len);
    SKF_TRY(give(&s->ready, held, end, *is_stopped || is_last, &used));
    if (*is_stopped)
        used = len;
    if (used > 0)
        memmove(held, held + used, len - used);
    s->held.len = len - used;
    return SKF_OK;
}
