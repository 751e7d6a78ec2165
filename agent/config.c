/*
 * The agent's configuration file: its options by their names, and what has no option.  A mistake stops the start with file, line and key: a
 * box that ran with half of what was meant would be found out too late.
 */
#include "agent/agent_priv.h"

#include "base/alloc.h"
#include "base/file.h"
#include "base/toml.h"

#define RATE_LEAST 1000u /* slower, a chunk takes hours */
#define RATE_MOST  1000000000000ull

struct skf_agent_config {
    struct skf_toml doc;
    const char *warm[SKF_AGENT_WARM], *tags[SKF_AGENT_TAGS];
};

enum kind { TEXT, FLAG, NUMBER, SHARE, CHOICE, RATE, LIST };
struct known {
    const char *table, *key;
    enum kind kind;
    size_t at;             /* of the field in struct skf_agent_opts */
    unsigned least, most;  /* NUMBER; of a LIST the entries */
    const char *choices;
};
#define AT(field) offsetof(struct skf_agent_opts, field)
static const struct known keys[] = {
    {"", "dir", TEXT, AT(dir), 0, 0, NULL},
    {"", "centre", TEXT, AT(centre), 0, 0, NULL},
    {"", "listen", TEXT, AT(listen), 0, 0, NULL},
    {"", "name", TEXT, AT(name), 0, 0, NULL},
    {"", "enrol", TEXT, AT(enrol), 0, 0, NULL},
    {"", "token-file", TEXT, AT(token_file), 0, 0, NULL},
    {"", "unix", TEXT, AT(api_unix), 0, 0, NULL},
    {"", "keys", TEXT, AT(api_keys), 0, 0, NULL},
    {"", "tls-cert", TEXT, AT(api_cert), 0, 0, NULL},
    {"", "tls-key", TEXT, AT(api_key), 0, 0, NULL},
    {"", "init", FLAG, AT(is_init), 0, 0, NULL},
    {"", "allow-open-keys", FLAG, AT(is_open_key_fine), 0, 0, NULL},
    {"", "share", NUMBER, AT(share), 1, 100, NULL},
    {"", "rate", RATE, AT(rate), 0, 0, NULL},
    {"", "watch", NUMBER, AT(watch_seconds), 0, 86400, NULL},
    {"swap", "mode", CHOICE, AT(swap), 0, 0, "auto|side|in-place"},
    {"swap", "shadow", SHARE, AT(shadow_permille), 0, 0, NULL},
    {"swap", "agreement", SHARE, AT(shadow_agreement), 0, 0, NULL},
    {"swap", "shadow_requests", NUMBER, AT(shadow_requests), 1, 1u << 20, NULL},
    {"swap", "shadow_seconds", NUMBER, AT(shadow_seconds), 1, 120, NULL},
    {"", "tag", LIST, AT(tags), 0, SKF_AGENT_TAGS, NULL},
    {"runtime", "threads", NUMBER, AT(threads), 1, 256, NULL},
    {"runtime", "context", NUMBER, AT(context), 1, 1u << 20, NULL},
    {"runtime", "cache", NUMBER, AT(cache), 1, 1u << 20, NULL},
    {"runtime", "repack", CHOICE, AT(repack), 0, 0, "auto|on|off|shared"},
    {"runtime", "idle_seconds", NUMBER, AT(idle_seconds), 0, 1u << 30, NULL},
    {"cache", "warm", LIST, AT(warm), 0, SKF_AGENT_WARM, NULL},
};

bool is_agent_rate(const char *s, uint64_t *out)
{
    char *end;
    if (*s < '0' || *s > '9')
        return false;
    unsigned long long v = strtoull(s, &end, 10);
    uint64_t unit = *end == 'K' || *end == 'k' ? 1000 : *end == 'M' ? 1000000 : *end == 'G' ? 1000000000 : 1;
    end += unit > 1;
    *out = v * unit;
    return *end == 0 && v <= RATE_MOST / unit && *out >= RATE_LEAST;
}

bool is_agent_choice(const char *s, const char *choices)
{
    size_t n = strlen(s);
    for (const char *c = choices; n && c; c = strchr(c, '|'), c = c ? c + 1 : NULL)
        if (strncmp(c, s, n) == 0 && (c[n] == 0 || c[n] == '|'))
            return true;
    return false;
}

/* ---- one value --------------------------------------------------------------------------------------------------------------- */

struct reading {
    const char *path;
    struct skf_agent_opts *o;
    struct skf_agent_config *c;
    struct skf_why *why;
};

static enum skf_err SKF_PRINTF(3, 4) wrong(const struct reading *r, const struct skf_toml_value *v, const char *fmt, ...);
static enum skf_err wrong(const struct reading *r, const struct skf_toml_value *v, const char *fmt, ...)
{
    char text[256], key[400] = "";
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (unsigned i = 0; i < v->n_keys; i++) {
        size_t n = strlen(key);
        (void)snprintf(key + n, sizeof key - n, "%s%.80s", i ? "." : "", v->key[i]);
    }
    return skf_fail(r->why, SKF_ERR_ARG, "%s:%u: %s: %s", r->path, v->line, key, text);
}

static enum skf_err want(const struct reading *r, const struct skf_toml_value *v, enum skf_toml_type type, const char *what)
{
    if (v->type != type)
        return wrong(r, v, "must be %s", what);
    return type == SKF_TOML_STRING && !v->text[0] ? wrong(r, v, "is empty") : SKF_OK;
}

static enum skf_err take_number(const struct reading *r, const struct skf_toml_value *v, unsigned least, unsigned most, unsigned *out)
{
    SKF_TRY(want(r, v, SKF_TOML_INT, "a whole number"));
    if (v->number < least || v->number > most)
        return wrong(r, v, "is %lld, not %u to %u", (long long)v->number, least, most);
    *out = (unsigned)v->number;
    return SKF_OK;
}

/* An array of texts: its head first, then an element a call. */
static enum skf_err take_list(const struct reading *r, const struct skf_toml_value *v, const char **list, size_t most, size_t *n)
{
    if (v->element < 0) {
        *n = 0;
        return want(r, v, SKF_TOML_ARRAY, "an array of strings");
    }
    SKF_TRY(want(r, v, SKF_TOML_STRING, "an array of strings"));
    if (*n == most)
        return wrong(r, v, "has more than %zu entries", most);
    list[(*n)++] = v->text;
    return SKF_OK;
}

static enum skf_err take(const struct reading *r, const struct skf_toml_value *v, const struct known *k)
{
    void *field = (char *)r->o + k->at;
    switch (k->kind) {
    case TEXT:
        SKF_TRY(want(r, v, SKF_TOML_STRING, "a string"));
        *(const char **)field = v->text;
        return SKF_OK;
    case FLAG:
        SKF_TRY(want(r, v, SKF_TOML_BOOL, "true or false"));
        *(bool *)field = v->number != 0;
        return SKF_OK;
    case NUMBER: return take_number(r, v, k->least, k->most, field);
    case SHARE:
        if ((v->type != SKF_TOML_FLOAT && v->type != SKF_TOML_INT) || !(v->real >= 0 && v->real <= 1))
            return wrong(r, v, "must be a number from 0 to 1");
        *(unsigned *)field = (unsigned)(v->real * 1000 + 0.5);
        return SKF_OK;
    case RATE:
        SKF_TRY(want(r, v, SKF_TOML_STRING, "a string, as \"200K\""));
        return is_agent_rate(v->text, field) ? SKF_OK : wrong(r, v, "'%.40s' is no rate of 1K to 1000G", v->text);
    case CHOICE:
        SKF_TRY(want(r, v, SKF_TOML_STRING, "a string"));
        *(const char **)field = v->text;
        return is_agent_choice(v->text, k->choices) ? SKF_OK : wrong(r, v, "'%.40s' is not one of %s", v->text, k->choices);
    default:
        if (k->at == AT(warm)) {
            r->o->warm = r->c->warm;
            return take_list(r, v, r->c->warm, k->most, &r->o->n_warm);
        }
        r->o->tags = r->c->tags;
        return take_list(r, v, r->c->tags, k->most, &r->o->n_tags);
    }
}

/* ---- [models."name"] --------------------------------------------------------------------------------------------------------- */

static enum skf_err model_of(const struct reading *r, const struct skf_toml_value *v, struct skf_agent_model **out)
{
    struct skf_agent_opts *o = r->o;
    if (!is_agent_name(v->key[1]))
        return wrong(r, v, "is no name of a model (1 to 128 of A-Z a-z 0-9 . _ -)");
    for (size_t i = 0; i < o->n_models; i++)
        if (strcmp(o->models[i].name, v->key[1]) == 0) {
            *out = &o->models[i];
            return SKF_OK;
        }
    if (o->n_models == SKF_AGENT_MODEL_OPTS)
        return wrong(r, v, "more than %d models", SKF_AGENT_MODEL_OPTS);
    *out = &o->models[o->n_models++];
    **out = (struct skf_agent_model){.name = v->key[1]};
    return SKF_OK;
}

static enum skf_err check_alias(const struct reading *r, const struct skf_toml_value *v)
{
    size_t n = 0;
    if (v->element < 0)
        return SKF_OK;
    if (!is_agent_name(v->text))
        return wrong(r, v, "'%.100s' is no name (1 to 128 of A-Z a-z 0-9 . _ -)", v->text);
    for (size_t i = 0; i < r->o->n_models; i++)
        for (size_t k = 0; k < r->o->models[i].n_aliases; k++)
            n += strcmp(r->o->models[i].aliases[k], v->text) == 0;
    return n == 1 ? SKF_OK : wrong(r, v, "'%.100s' stands for another model already", v->text);
}

static enum skf_err take_model(const struct reading *r, const struct skf_toml_value *v)
{
    struct skf_agent_model *m = NULL;
    SKF_TRY(model_of(r, v, &m));
    if (v->n_keys == 2)
        return want(r, v, SKF_TOML_TABLE, "a table");
    if (v->n_keys == 3 && strcmp(v->key[2], "memory") == 0)
        return take_number(r, v, 1, 1u << 20, &m->memory);
    if (v->n_keys == 3 && strcmp(v->key[2], "aliases") == 0) {
        SKF_TRY(take_list(r, v, m->aliases, SKF_AGENT_ALIASES, &m->n_aliases));
        return check_alias(r, v);
    }
    return wrong(r, v, "unknown key");
}

/* ---- the file ---------------------------------------------------------------------------------------------------------------- */

static enum skf_err take_value(const struct reading *r, const struct skf_toml_value *v)
{
    const char *table = v->n_keys > 1 ? v->key[0] : "", *key = v->key[v->n_keys - 1];
    if (strcmp(v->key[0], "models") == 0)
        return v->n_keys > 1 ? take_model(r, v) : want(r, v, SKF_TOML_TABLE, "a table");
    for (size_t i = 0; i < SKF_COUNT(keys); i++) {
        if (v->n_keys == 1 && v->type == SKF_TOML_TABLE && strcmp(keys[i].table, key) == 0 && key[0])
            return SKF_OK;
        if (v->n_keys <= 2 && strcmp(keys[i].table, table) == 0 && strcmp(keys[i].key, key) == 0)
            return take(r, v, &keys[i]);
    }
    return wrong(r, v, v->type == SKF_TOML_TABLE ? "unknown table" : "unknown key");
}

enum skf_err skf_agent_config(const char *path, struct skf_agent_opts *o, struct skf_agent_config **out, struct skf_why *why)
{
    uint8_t *text = NULL;
    size_t n;
    *out = NULL;
    SKF_TRY(skf_file_read(path, SKF_TOML_MAX, &text, &n, why));
    struct skf_agent_config *c = skf_calloc(1, sizeof *c);
    enum skf_err e = c ? skf_toml_parse(path, (const char *)text, n, &c->doc, why) : skf_fail(why, SKF_ERR_NOMEM, "%s: no memory", path);
    skf_free(text);
    struct reading r = {path, o, c, why};
    for (size_t i = 0; e == SKF_OK && i < c->doc.n; i++)
        e = take_value(&r, &c->doc.v[i]);
    if (e == SKF_OK)
        *out = c;
    else
        skf_agent_config_free(c);
    return e;
}

void skf_agent_config_free(struct skf_agent_config *c)
{
    if (!c)
        return;
    skf_toml_free(&c->doc);
    skf_free(c);
}
