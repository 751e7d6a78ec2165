/* A worker's adapters: those that it is started with, those that a peer has it load, and which one a request means. */
#include "base/alloc.h"
#include "runtime/worker_priv.h"

enum skf_err skf_worker_adapters(struct worker *w, const struct skf_worker_opts *o, struct skf_why *why)
{
    for (size_t i = 0; i < o->n_adapters; i++) {
        char name[SKF_ADAPTER_NAME];
        const char *path = strchr(o->adapters[i], '=');
        size_t n = path ? (size_t)(path - o->adapters[i]) : sizeof name;
        if (n >= sizeof name || !path[1])
            return skf_fail(why, SKF_ERR_ARG, "--adapter %.100s: NAME=FILE is wanted, with a name of at most %zu characters", o->adapters[i], sizeof name - 1);
        memcpy(name, o->adapters[i], n);
        name[n] = 0;
        SKF_TRY(skf_engine_adapter_add(w->engine, name, path + 1, why));
    }
    return SKF_OK;
}

const char *skf_worker_adapter_of(const struct worker *w, const Skiff__V1__Generate *g)
{
    const char *colon = strrchr(g->model, ':');
    if (g->adapter[0] || !colon || strcmp(g->model, w->model) == 0)
        return g->adapter;
    return colon + 1;
}

size_t skf_worker_adapter_names(struct worker *w, struct worker_names *x)
{
    size_t n = SKF_MIN(skf_engine_adapters(w->engine, x->names, WORKER_ADAPTERS), (size_t)WORKER_ADAPTERS);
    for (size_t i = 0; i < n; i++)
        x->list[i] = x->names[i];
    return n;
}

void skf_worker_change_adapters(struct worker_conn *c, uint64_t id, const char *name, const char *path)
{
    struct worker *w = c->w;
    struct skf_why why = {{0}};
    struct worker_names names;
    Skiff__V1__FromWorker m = SKIFF__V1__FROM_WORKER__INIT;
    Skiff__V1__Adapters x = SKIFF__V1__ADAPTERS__INIT;
    enum skf_err e = path ? skf_engine_adapter_add(w->engine, name, path, &why) : skf_engine_adapter_remove(w->engine, name, &why);
    skf_log(e == SKF_OK ? SKF_LOG_INFO : SKF_LOG_WARN, "adapter %s %s: %s", name, path ? "is to be loaded" : "is to be unloaded", e == SKF_OK ? "done" : why.text);
    x.n_names = skf_worker_adapter_names(w, &names);
    x.names = names.list;
    m.kind_case = SKIFF__V1__FROM_WORKER__KIND_ADAPTERS;
    m.adapters = &x;
    pthread_mutex_lock(&w->lock);
    for (struct worker_conn *each = w->conns; each; each = each->next) { /* others are told what there is now */
        x.id = each == c ? id : 0;
        x.error = each == c ? why.text : (char *)(uintptr_t)"";
        x.error_class = (char *)(uintptr_t)(each == c && e != SKF_OK ? skf_err_name(e) : "");
        if (each == c || e == SKF_OK)
            skf_worker_say_(each, &m);
    }
    pthread_mutex_unlock(&w->lock);
}
