/* The session's inside: session.c opens and closes the link, inbox.c takes what comes and answers an installation's questions. */
#ifndef SKF_AGENT_SESSION_PRIV_H
#define SKF_AGENT_SESSION_PRIV_H

#include <pthread.h>

#include "agent/agent_priv.h"
#include "wire/wire.h"

#define ASSIGNS_MAX 16
#define INBOX_BYTES (32u << 20) /* payloads that wait for the installing thread; it asks for far less at once */
#define META_PART   (4u << 20)

struct part {
    struct part *next;
    struct skf_payload payload;
};

struct skf_session {
    struct skf_session_opts o;
    char ca[SKF_AGENT_PATH], crt[SKF_AGENT_PATH], key[SKF_AGENT_PATH];
    bool is_warned; /* of a certificate that cannot work */

    pthread_mutex_t mu; /* over all below; never held while anything waits but in a condition */
    pthread_cond_t cv;
    struct skf_wire_channel *channel;
    struct skf_wire_stream *stream; /* NULL while there is none */
    bool is_up;                     /* the Welcome came */
    uint64_t epoch;                 /* of the last Welcome */
    uint64_t breaks;                /* links lost; a question asked before one of them is never answered */
    uint64_t next_try, opened, heard;
    unsigned failures;
    uint32_t next_id;

    struct skf_assign assigns[ASSIGNS_MAX];
    size_t n_assigns;
    char cancels[ASSIGNS_MAX][SKF_AGENT_ID];
    size_t n_cancels;

    uint32_t meta_id; /* the GetMeta under way; 0 for none */
    struct skf_buf *meta;
    bool is_meta_done;
    enum skf_err meta_err;
    struct skf_why meta_why;

    struct part *first, **last; /* payloads, in the order they came */
    size_t queued;
    uint32_t ask_first, ask_last; /* ids of the GetChunks that may still be answered; ask_first > ask_last: none */
    uint64_t ask_breaks;
    char ask_delta[SKF_AGENT_PATH]; /* what was asked for last: late answers of another delta are not this one's */
    char refused[256]; /* what a ChunksEnd said */
};

enum skf_err skf_inbox_message(void *ctx, struct skf_wire_stream *st, const uint8_t *p, size_t n, struct skf_why *why);
void skf_inbox_clear(struct skf_session *s); /* under mu */
void skf_session_wake(struct skf_session *s);
/* Packs and sends; under mu. */
SKF_MUST enum skf_err skf_session_put(struct skf_session *s, const Skiff__V1__AgentMessage *m);

#endif
