/*
 * Calls of functions, in the forms that models are taught: Hermes' and Qwen's
 *     <tool_call>\n{"name": "f", "arguments": {...}}\n</tool_call>
 * and Llama 3's
 *     {"name": "f", "parameters": {...}}
 * A grammar holds the model to the form and to the function's schema; so what it says can be taken apart as it comes.
 */
#ifndef SKF_RUNTIME_TOOLS_PRIV_H
#define SKF_RUNTIME_TOOLS_PRIV_H

#include "base/buf.h"
#include "runtime/grammar_priv.h"

#define SKF_TOOLS_MAX 128

enum skf_tool_form { SKF_TOOL_HERMES, SKF_TOOL_LLAMA };
/* The form that a chat template writes; Hermes' where it knows of none. */
enum skf_tool_form skf_tool_form_of(const char *tmpl, size_t n);
bool is_tool_template(const char *tmpl, size_t n); /* does it say what tools there are? */

/*
 * The grammar of an answer, from {"form": "hermes" | "llama", "required": bool, "parallel": bool, "name": the only one that may be
 * called, "tools": as in a request of OpenAI's API}. SKF_ERR_ARG, SKF_ERR_LIMIT.
 */
SKF_MUST enum skf_err skf_grammar_tools(const char *text, size_t n, struct skf_grammar **g, struct skf_why *why);

/* Takes an answer apart. `call` counts from 1; 0: what is said besides. `name` is there with the first piece of a call. */
struct skf_tool_piece {
    unsigned call;
    const char *name, *text; /* of n bytes; no NUL behind it */
    size_t n;
};
typedef void skf_tool_fn(void *ctx, const struct skf_tool_piece *p);
struct skf_tool_parser {
    enum skf_tool_form form;
    enum { SKF_TOOL_START, SKF_TOOL_TEXT, SKF_TOOL_HEAD, SKF_TOOL_ARGS, SKF_TOOL_TAIL } state;
    unsigned calls, matched, depth;
    bool is_string, is_escaped;
    char head[200];
    size_t n_head;
    struct skf_buf out;
};
void skf_tool_parser_init(struct skf_tool_parser *x, enum skf_tool_form form);
void skf_tool_parser_free(struct skf_tool_parser *x);
/* Pieces of what the text brings; with is_last nothing is held back. SKF_ERR_NOMEM, SKF_ERR_LIMIT. */
SKF_MUST enum skf_err skf_tool_feed(struct skf_tool_parser *x, const char *p, size_t n, bool is_last, skf_tool_fn *fn, void *ctx);

#endif
