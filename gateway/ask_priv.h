/* What the files share that take a request of the API apart: ask.c (sampling, messages), ask_more.c (forms, tools, several answers). */
#ifndef SKF_GATEWAY_ASK_PRIV_H
#define SKF_GATEWAY_ASK_PRIV_H

#include "base/json.h"
#include "gateway/ask.h"
#include "proto/local.pb-c.h"

enum { ASK_STOPS_MAX = 16, ASK_N_MAX = 16, ASK_BIASES_MAX = 1024, ASK_TOOLS_MAX = 128, ASK_TOP_MAX = 20, ASK_CALLS_MAX = 64 };

struct gw_parser {
    const skf_json *body;
    struct skf_gw_ask *ask;
    struct skf_gw_refusal *no;
    Skiff__V1__Generate generate;
    Skiff__V1__Sampling sampling;
    Skiff__V1__ChatMessage *messages; /* an array */
    char **texts; /* all that was made for the frame; [n_texts] */
    size_t n_texts, texts_room;
    char *stops[ASK_STOPS_MAX];
    Skiff__V1__LogitBias *biases; /* an array */
};

/* ask.c: false, with the refusal made. */
bool is_gw_refused(struct gw_parser *p, const char *param, const char *code, const char *fmt, ...) SKF_PRINTF(4, 5);
bool is_gw_out_of_memory(struct gw_parser *p);
const char *skf_gw_kind(const skf_json *j);
skf_json *skf_gw_member(const skf_json *obj, const char *name); /* NULL when it is absent or null */
bool is_gw_flag(struct gw_parser *p, const skf_json *obj, const char *name, bool *out);
/* A number within its range; `whole` asks for an integer. Leaves *out when it is absent. */
bool is_gw_number(struct gw_parser *p, const char *name, double low, double high, bool whole, double *out);
bool is_gw_kept(struct gw_parser *p, char *take_text); /* freed with the parser; NULL is out of memory */
bool is_gw_json_kept(struct gw_parser *p, const skf_json *j, char **out); /* its text */

/* ask_more.c */
bool is_gw_more(struct gw_parser *p);
bool is_gw_calls(struct gw_parser *p, size_t i, const skf_json *m); /* of message i, with what else it says of tools */

#endif
