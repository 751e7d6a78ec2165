/*
 * Chat templates: the Jinja text that a model file carries, rendered over a conversation.
 *
 * The text comes from a model file, so it is hostile until shown otherwise: this interpreter has no loader, no attribute of
 * anything but the values given to it, and bounds on template size, nesting, steps, memory and output.  What it knows is what the
 * common templates use (runtime/template_priv.h lists it); anything else is SKF_ERR_UNSUPPORTED naming the construct, and only
 * when a conversation really reaches it.  White space follows trim_blocks and lstrip_blocks, as the templates are written for.
 */
#ifndef SKF_RUNTIME_TEMPLATE_H
#define SKF_RUNTIME_TEMPLATE_H

#include "base/buf.h"
#include "runtime/engine.h"

/*
 * Appends the rendered text to `out`, whose limit bounds it.  `tmpl` has n bytes, no NUL needed; roles and contents are NUL-terminated;
 * bos and eos are the texts of those tokens, NULL when the file has none.
 *
 * SKF_ERR_FORMAT for a template that breaks its grammar, SKF_ERR_UNSUPPORTED naming a construct that is not known,
 * SKF_ERR_REFUSED with the template's own words when it calls raise_exception, SKF_ERR_LIMIT over a bound, SKF_ERR_NOMEM.
 * On failure `out` is as it was. Thread-safe.
 */
SKF_MUST enum skf_err skf_template_render(const char *tmpl, size_t n, const struct skf_chat *msgs, size_t n_msgs, const char *bos,
                                          const char *eos, bool add_generation_prompt, struct skf_buf *out,
                                          struct skf_why *why);

/* The same with what a conversation about tools has besides: `more` (NULL, or one a message) and the tools, JSON (NULL: none). */
struct skf_template_tools {
    const struct skf_chat_more *more;
    const char *tools;
};
SKF_MUST enum skf_err skf_template_render_tools(const char *tmpl, size_t n, const struct skf_chat *msgs, size_t n_msgs,
                                                const struct skf_template_tools *tools, const char *bos, const char *eos,
                                                bool add_generation_prompt, struct skf_buf *out, struct skf_why *why);

#endif
