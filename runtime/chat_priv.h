/* Conversations about tools, for the file that renders conversations (chat.c). */
#ifndef SKF_RUNTIME_CHAT_PRIV_H
#define SKF_RUNTIME_CHAT_PRIV_H

#include "base/buf.h"
#include "runtime/engine.h"

#define SKF_CHAT_JSON_DEPTH 128
#define SKF_CHAT_TEXT_MAX   (8u << 20)

/* JSON written anew without escapes that could hide a control token, NULL for none; the arguments of calls as values. *out with skf_free. */
SKF_MUST enum skf_err skf_chat_json(const char *text, bool are_calls, char **out, struct skf_why *why);
/* The conversation for a template that knows of no tools: out[n + 1], the texts of which are texts[n + 1], freed with skf_free each. */
SKF_MUST enum skf_err skf_chat_plain(const struct skf_chat *msgs, const struct skf_chat_more *more, size_t n, const char *tools,
                                     struct skf_chat *out, char **texts, size_t *n_out, struct skf_why *why);

#endif
