/*
 * A generation's text as it may be given out: whole UTF-8 characters only, and nothing that may yet turn out to be a stop string.
 */
#ifndef SKF_RUNTIME_STREAM_PRIV_H
#define SKF_RUNTIME_STREAM_PRIV_H

#include "base/buf.h"

#define SKF_STOPS_MAX     16u
#define SKF_STOP_LEN_MAX 256u

struct skf_stream {
    struct skf_buf held;  /* said by the model, not yet given out */
    struct skf_buf ready; /* what the last call gave out */
    char *stops[SKF_STOPS_MAX];
    size_t stop_len[SKF_STOPS_MAX], n_stops;
};

/* Copies the stop strings; empty ones are left out. SKF_ERR_LIMIT for too many or too long ones. A zeroed stream may be freed. */
SKF_MUST enum skf_err skf_stream_init(struct skf_stream *s, const char *const *stops, size_t n, struct skf_why *why);
void skf_stream_free(struct skf_stream *s);

/* Adds a token's bytes. s->ready then holds what may be given out now; *is_stopped says that a stop string was met (the text before it
 * is ready, the rest dropped). With `is_last` nothing is held back. Bytes that are not UTF-8 are given out as U+FFFD. */
SKF_MUST enum skf_err skf_stream_add(struct skf_stream *s, const char *p, size_t n, bool is_last, bool *is_stopped);

#endif
