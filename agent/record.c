/*
 * What survives a restart: a model's assignment and how far it came, as JSON in the store's journal (docs/formats.md), written
 * together with the slots where both change.
 */
#include "agent/agent_priv.h"

#include "base/alloc.h"

#define RECORD_DEPTH 4
#define MODELS_KEY   "models"

static const char *const phase_names[] = {"idle",     "verifying", "fetching", "staged", "checking",
                                          "watching", "confirmed", "returned", "failed"};

const char *skf_phase_name(Skiff__V1__Phase p)
{
    return (unsigned)p < SKF_COUNT(phase_names) ? phase_names[p] : "unknown";
}

bool is_agent_name(const char *s)
{
    size_t n = 0;
    for (; s[n]; n++) {
        char c = s[n];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
              c == '-') ||
            n + 1 >= SKF_NAME_MAX)
            return false;
    }
    return n > 0;
}

/* ---- assignments --------------------------------------------------------------------------------------------------- */

static bool is_printable(const char *s, size_t cap)
{
    size_t n = 0;
    for (; s[n]; n++)
        if ((unsigned char)s[n] < 0x20 || (unsigned char)s[n] > 0x7e || n + 1 >= cap)
            return false;
    return true;
}

/* "deltas/<64 hex>-<64 hex>.skdx" */
static bool is_delta_path(const char *s)
{
    static const char prefix[] = "deltas/", suffix[] = ".skdx";
    size_t n = strlen(s), pre = sizeof prefix - 1, suf = sizeof suffix - 1;
    if (n != pre + 129 + suf || strncmp(s, prefix, pre) != 0 || strcmp(s + n - suf, suffix) != 0 || s[pre + 64] != '-')
        return false;
    for (size_t i = 0; i < 129; i++) {
        char c = s[pre + i];
        if (i != 64 && !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
    }
    return true;
}

static enum skf_err check_assign(const struct skf_assign *a, struct skf_why *why)
{
    char path[SKF_AGENT_PATH];
    (void)snprintf(path, sizeof path, "models/%s/%s.manifest", a->model, a->version);
    if (strcmp(path, a->manifest) != 0)
        return skf_fail(why, SKF_ERR_FORMAT, "assignment %s: '%s' is not the manifest of %s %s", a->id, a->manifest,
                        a->model, a->version);
    if (a->delta[0] && !is_delta_path(a->delta))
        return skf_fail(why, SKF_ERR_FORMAT, "assignment %s: '%s' is no path of a delta", a->id, a->delta);
    return SKF_OK;
}

enum skf_err skf_assign_of(const Skiff__V1__Assign *m, struct skf_assign *a, struct skf_why *why)
{
    memset(a, 0, sizeof *a);
    if (!is_agent_name(m->model) || !is_agent_name(m->version) || (m->channel[0] && !is_agent_name(m->channel)))
        return skf_fail(why, SKF_ERR_FORMAT, "assignment: bad name of a model, version or channel");
    if (!m->id[0] || !is_printable(m->id, sizeof a->id) || !is_printable(m->manifest, sizeof a->manifest) ||
        !is_printable(m->delta, sizeof a->delta))
        return skf_fail(why, SKF_ERR_FORMAT, "assignment: bad id or path");
    (void)snprintf(a->id, sizeof a->id, "%s", m->id);
    (void)snprintf(a->model, sizeof a->model, "%s", m->model);
    (void)snprintf(a->version, sizeof a->version, "%s", m->version);
    (void)snprintf(a->channel, sizeof a->channel, "%s", m->channel);
    (void)snprintf(a->manifest, sizeof a->manifest, "%s", m->manifest);
    (void)snprintf(a->delta, sizeof a->delta, "%s", m->delta);
    a->is_pinned = m->pinned;
    return check_assign(a, why);
}

/* ---- the record ---------------------------------------------------------------------------------------------------- */

enum skf_err skf_record_pack(const struct skf_record *r, char **text, size_t *len)
{
    *text = NULL;
    *len = 0;
    const struct {
        const char *key;
        const char *value;
    } texts[] = {{"id", r->assign.id},           {"model", r->assign.model},     {"version", r->assign.version},
                 {"channel", r->assign.channel}, {"manifest", r->assign.manifest}, {"delta", r->assign.delta},
                 {"phase", skf_phase_name(r->phase)}, {"error", r->error}};
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {{"format", 1}, {"attempts", r->attempts}, {"bytes", r->bytes}, {"swap_pause_us", r->swap_pause_us}};
    skf_json *j = skf_json_obj();
    if (!j)
        return SKF_ERR_NOMEM;
    enum skf_err e = SKF_OK;
    for (size_t i = 0; e == SKF_OK && i < SKF_COUNT(numbers); i++)
        e = skf_json_set(j, numbers[i].key, skf_json_int((int64_t)numbers[i].value));
    for (size_t i = 0; e == SKF_OK && i < SKF_COUNT(texts); i++)
        e = skf_json_set(j, texts[i].key, skf_json_str(texts[i].value));
    if (e == SKF_OK)
        e = skf_json_set(j, "pinned", skf_json_bool(r->assign.is_pinned));
    if (e == SKF_OK)
        e = skf_json_set(j, "error_class", skf_json_int(r->err));
    if (e == SKF_OK)
        e = skf_json_text(j, 0, text, len);
    skf_json_free(j);
    return e;
}

static bool is_text_taken(const skf_json *j, const char *key, char *out, size_t cap)
{
    const char *s = skf_json_cstr(skf_json_get(j, key));
    if (!s || strlen(s) >= cap)
        return false;
    (void)snprintf(out, cap, "%s", s);
    return true;
}

static bool is_record_taken(const skf_json *j, struct skf_record *r)
{
    char phase[16];
    struct skf_assign *a = &r->assign;
    if (skf_json_i64(skf_json_get(j, "format"), 0) != 1 || !is_text_taken(j, "id", a->id, sizeof a->id) ||
        !is_text_taken(j, "model", a->model, sizeof a->model) ||
        !is_text_taken(j, "version", a->version, sizeof a->version) ||
        !is_text_taken(j, "channel", a->channel, sizeof a->channel) ||
        !is_text_taken(j, "manifest", a->manifest, sizeof a->manifest) ||
        !is_text_taken(j, "delta", a->delta, sizeof a->delta) || !is_text_taken(j, "phase", phase, sizeof phase) ||
        !is_text_taken(j, "error", r->error, sizeof r->error))
        return false;
    size_t p = 0;
    while (p < SKF_COUNT(phase_names) && strcmp(phase, phase_names[p]) != 0)
        p++;
    int64_t attempts = skf_json_i64(skf_json_get(j, "attempts"), -1), bytes = skf_json_i64(skf_json_get(j, "bytes"), -1),
            pause = skf_json_i64(skf_json_get(j, "swap_pause_us"), -1),
            err = skf_json_i64(skf_json_get(j, "error_class"), -1);
    if (p == SKF_COUNT(phase_names) || attempts < 0 || attempts > 1000 || bytes < 0 || pause < 0 || err < 0 ||
        err >= SKF_ERR_COUNT_)
        return false;
    r->phase = (Skiff__V1__Phase)p;
    r->attempts = (unsigned)attempts;
    r->bytes = (uint64_t)bytes;
    r->swap_pause_us = (uint64_t)pause;
    r->err = (enum skf_err)err;
    a->is_pinned = skf_json_is_true(skf_json_get(j, "pinned"), false);
    return true;
}

enum skf_err skf_record_parse(const void *p, size_t n, struct skf_record *r, struct skf_why *why)
{
    memset(r, 0, sizeof *r);
    skf_json *j;
    SKF_TRY(skf_json_parse(p, n, RECORD_DEPTH, &j, why));
    enum skf_err e = SKF_OK;
    if (!is_record_taken(j, r))
        e = skf_fail(why, SKF_ERR_FORMAT, "the journal's record is damaged");
    else if (r->assign.id[0])
        e = check_assign(&r->assign, why);
    skf_json_free(j);
    return e;
}

void skf_record_key(const char *model, char key[SKF_NAME_MAX + 2]) { (void)snprintf(key, SKF_NAME_MAX + 2, "m:%s", model); }

enum skf_err skf_record_load(struct skf_store *s, const char *model, struct skf_record *r, struct skf_why *why)
{
    char key[SKF_NAME_MAX + 2];
    uint8_t *p;
    size_t n;
    memset(r, 0, sizeof *r);
    skf_record_key(model, key);
    enum skf_err e = skf_store_journal_get(s, key, &p, &n, why);
    if (e == SKF_ERR_NOT_FOUND)
        return SKF_OK;
    SKF_TRY(e);
    e = skf_record_parse(p, n, r, why);
    skf_free(p);
    return e == SKF_OK ? e : skf_fail_prefix(why, e, "journal of %s", model);
}

enum skf_err skf_record_save(struct skf_store *s, const char *model, const struct skf_record *r, struct skf_why *why)
{
    char key[SKF_NAME_MAX + 2], *text;
    size_t n;
    skf_record_key(model, key);
    enum skf_err e = skf_record_pack(r, &text, &n);
    if (e != SKF_OK)
        return skf_fail(why, e, "journal of %s: no memory", model);
    e = skf_store_journal_put(s, key, text, n, why);
    skf_free(text);
    return e;
}

enum skf_err skf_record_save_slots(struct skf_store *s, const char *model, const struct skf_slots *slots,
                                   const struct skf_record *r, struct skf_why *why)
{
    char key[SKF_NAME_MAX + 2], *text;
    size_t n;
    skf_record_key(model, key);
    enum skf_err e = skf_record_pack(r, &text, &n);
    if (e != SKF_OK)
        return skf_fail(why, e, "journal of %s: no memory", model);
    e = skf_store_set_slots(s, model, slots, key, text, n, why);
    skf_free(text);
    return e;
}

/* ---- the list of models ---------------------------------------------------------------------------------------------- */

enum skf_err skf_models_load(struct skf_store *s, char names[SKF_AGENT_MODELS][SKF_NAME_MAX], size_t *n,
                             struct skf_why *why)
{
    uint8_t *p;
    size_t len;
    *n = 0;
    enum skf_err e = skf_store_journal_get(s, MODELS_KEY, &p, &len, why);
    if (e == SKF_ERR_NOT_FOUND)
        return SKF_OK;
    SKF_TRY(e);
    for (size_t at = 0; e == SKF_OK && at < len;) { /* a line each */
        const uint8_t *nl = memchr(p + at, '\n', len - at);
        size_t k = nl ? (size_t)(nl - p) - at : SKF_NAME_MAX;
        if (k >= SKF_NAME_MAX || *n == SKF_AGENT_MODELS) {
            e = skf_fail(why, SKF_ERR_FORMAT, "the journal's list of models is damaged");
            break;
        }
        memcpy(names[*n], p + at, k);
        names[*n][k] = 0;
        if (!is_agent_name(names[*n]))
            e = skf_fail(why, SKF_ERR_FORMAT, "the journal's list of models is damaged");
        (*n)++;
        at += k + 1;
    }
    skf_free(p);
    return e;
}

enum skf_err skf_models_save(struct skf_store *s, char names[][SKF_NAME_MAX], size_t n, struct skf_why *why)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_AGENT_MODELS * SKF_NAME_MAX);
    enum skf_err e = SKF_OK;
    for (size_t i = 0; e == SKF_OK && i < n; i++)
        e = skf_buf_printf(&b, "%s\n", names[i]);
    if (e == SKF_OK)
        e = skf_store_journal_put(s, MODELS_KEY, b.data, b.len, why);
    else
        (void)skf_fail(why, e, "journal: the list of models");
    skf_buf_free(&b);
    return e;
}
