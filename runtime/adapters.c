/* The adapters that an engine has, by name (engine.h). Whoever generates with one holds it: taking its name away does not take it from them. */
#include "base/alloc.h"
#include "runtime/engine_priv.h"

#define ADAPTERS_MOST 64u

struct skf_named_lora {
    struct skf_named_lora *next;
    struct skf_lora *lora;
    char name[SKF_ADAPTER_NAME];
};

static struct skf_named_lora **find_(struct skf_engine *e, const char *name)
{
    struct skf_named_lora **at = &e->adapters;
    while (*at && strcmp((*at)->name, name) != 0)
        at = &(*at)->next;
    return at;
}

/* Names go into "base:name" and into headers: letters, digits and a few signs. */
static bool is_name(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_letter && !(c == '-' || c == '_' || c == '.'))
            return false;
    }
    return n > 0 && n < SKF_ADAPTER_NAME;
}

enum skf_err skf_engine_adapter_add(struct skf_engine *e, const char *name, const char *path, struct skf_why *why)
{
    struct skf_named_lora *x = NULL;
    uint64_t used = 0;
    uint32_t n = 0;
    if (!is_name(name))
        return skf_fail(why, SKF_ERR_ARG, "adapter '%.80s': a name has 1 to %d letters, digits, '-', '_' and '.'", name, SKF_ADAPTER_NAME - 1);
    (void)pthread_mutex_lock(&e->lock);
    bool is_there = *find_(e, name) != NULL;
    for (x = e->adapters; x; x = x->next, n++)
        used += x->lora->bytes;
    (void)pthread_mutex_unlock(&e->lock);
    if (is_there)
        return skf_fail(why, SKF_ERR_EXISTS, "adapter '%s' is loaded already; unload it first", name);
    if (n >= ADAPTERS_MOST)
        return skf_fail(why, SKF_ERR_LIMIT, "adapter '%s': %u are loaded already", name, n);
    x = skf_calloc(1, sizeof *x);
    if (!x)
        return skf_fail(why, SKF_ERR_NOMEM, "adapter '%s': out of memory", name);
    enum skf_err err = skf_lora_load(path, e->model, e->llama, used < SKF_LORA_BYTES ? SKF_LORA_BYTES - used : 0, &x->lora, why);
    if (err != SKF_OK) {
        skf_free(x);
        return err;
    }
    (void)snprintf(x->name, sizeof x->name, "%s", name);
    (void)pthread_mutex_lock(&e->lock);
    struct skf_named_lora **at = find_(e, name);
    is_there = *at != NULL; /* somebody else was quicker */
    if (!is_there)
        *at = x;
    (void)pthread_mutex_unlock(&e->lock);
    if (!is_there)
        return SKF_OK;
    skf_lora_free(x->lora);
    skf_free(x);
    return skf_fail(why, SKF_ERR_EXISTS, "adapter '%s' is loaded already; unload it first", name);
}

enum skf_err skf_engine_adapter_remove(struct skf_engine *e, const char *name, struct skf_why *why)
{
    (void)pthread_mutex_lock(&e->lock);
    struct skf_named_lora **at = find_(e, name), *x = *at;
    if (x)
        *at = x->next;
    (void)pthread_mutex_unlock(&e->lock);
    if (!x)
        return skf_fail(why, SKF_ERR_NOT_FOUND, "adapter '%.80s' is not loaded", name);
    skf_lora_free(x->lora);
    skf_free(x);
    return SKF_OK;
}

size_t skf_engine_adapters(struct skf_engine *e, char (*names)[SKF_ADAPTER_NAME], size_t room)
{
    size_t n = 0;
    (void)pthread_mutex_lock(&e->lock);
    for (const struct skf_named_lora *x = e->adapters; x; x = x->next, n++)
        if (n < room)
            (void)snprintf(names[n], SKF_ADAPTER_NAME, "%s", x->name);
    (void)pthread_mutex_unlock(&e->lock);
    return n;
}

enum skf_err skf_engine_adapter_hold(struct skf_engine *e, const char *name, struct skf_lora **lora, struct skf_why *why)
{
    *lora = NULL;
    if (!name || !name[0])
        return SKF_OK;
    (void)pthread_mutex_lock(&e->lock);
    const struct skf_named_lora *x = *find_(e, name);
    if (x)
        *lora = skf_lora_hold(x->lora);
    (void)pthread_mutex_unlock(&e->lock);
    return x ? SKF_OK : skf_fail(why, SKF_ERR_NOT_FOUND, "the adapter '%.80s' is not loaded", name);
}

enum skf_err skf_engine_evaluate_with(struct skf_engine *e, const char *name, struct skf_why *why)
{
    struct skf_lora *lora;
    SKF_TRY(skf_engine_adapter_hold(e, name, &lora, why));
    skf_lora_free(e->evaluated);
    e->evaluated = lora;
    return SKF_OK;
}

void skf_engine_adapters_close(struct skf_engine *e)
{
    skf_lora_free(e->evaluated);
    while (e->adapters) {
        struct skf_named_lora *x = e->adapters;
        e->adapters = x->next;
        skf_lora_free(x->lora);
        skf_free(x);
    }
}
