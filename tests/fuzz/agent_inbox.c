/* What comes over a session: messages, each with its length (u16) in front, while a question of each sort waits for its answer. */
#include "agent/session_priv.h"

#include <sys/eventfd.h>

#include "base/alloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static int wake = -1;
    struct skf_session *s;
    struct skf_buf meta = SKF_BUF_INIT(4096);
    struct skf_assign a;
    char id[SKF_AGENT_ID];
    if (wake < 0) {
        wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        skf_log_open("fuzz", SKF_LOG_ERROR);
    }
    const struct skf_session_opts o = {.centre = "centre", .tls_dir = "tls", .wake_fd = wake};
    if (skf_session_new(&o, &s, NULL) != SKF_OK)
        return 0;
    s->meta_id = 1;
    s->meta = &meta;
    s->ask_first = 2;
    s->ask_last = 3;
    while (n >= 2) {
        struct skf_why why = {{0}};
        size_t len = SKF_MIN((size_t)skf_le16(p), n - 2);
        enum skf_err e = skf_inbox_message(s, NULL, p + 2, len, &why);
        if (e != SKF_OK && e != SKF_ERR_NET && !why.text[0])
            __builtin_trap(); /* a refusal says why */
        if (s->n_assigns > ASSIGNS_MAX || s->n_cancels > ASSIGNS_MAX || s->queued > 2 * INBOX_BYTES || meta.len > 4096)
            __builtin_trap();
        p += 2 + len;
        n -= 2 + len;
    }
    while (is_assign_taken(s, &a))
        if (!is_agent_name(a.model) || !is_agent_name(a.version))
            __builtin_trap();
    while (is_cancel_taken(s, id))
        if (!memchr(id, 0, sizeof id))
            __builtin_trap();
    skf_session_free(s);
    skf_buf_free(&meta);
    return 0;
}
