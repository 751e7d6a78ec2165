/*
 * A request of the OpenAI API, from its JSON to the frame that a worker takes.  Everything a client can send passes here: types, ranges
 * and lengths are checked, and what is not supported is refused by name and never ignored when it would change the answer.
 */
#ifndef SKF_GATEWAY_ASK_H
#define SKF_GATEWAY_ASK_H

#include "base/buf.h"

struct skf_gw_ask {
    char model[129]; /* "" when the client left it out */
    char adapter[65]; /* of that model; "" for none, or when it may stand in `model` behind a colon */
    bool is_chat, stream, include_usage, has_logprobs;
    bool is_batch;       /* waits behind others */
    uint32_t timeout_ms; /* from its coming; 0: none */
    bool is_greedy; /* the same answer each time */
    unsigned n;          /* answers */
    bool is_extract; /* the answer is an object of its own, not a message */
    uint8_t *frame; /* a packed ToWorker; skf_free */
    size_t frame_len;
};
struct skf_gw_refusal {
    unsigned status; /* HTTP */
    const char *type, *code; /* code may be NULL */
    char param[64], text[300];
};
/* The least of both times, and batch if either says so: what came beside the body. The frame is made anew where that changes it. */
SKF_MUST enum skf_err skf_gw_ask_terms(struct skf_gw_ask *ask, bool is_batch, uint32_t timeout_ms);
/* `id` is the request's number on the worker's connection. False: `no` says why, and nothing is to be freed. */
bool is_gw_ask(const void *body, size_t n, bool is_chat, uint64_t id, struct skf_gw_ask *ask, struct skf_gw_refusal *no);
/* The same of {"text", "schema", "instructions", and what else a chat may have}: an object that the schema accepts, out of the text. */
bool is_gw_extract(const void *body, size_t n, uint64_t id, struct skf_gw_ask *ask, struct skf_gw_refusal *no);

#endif
