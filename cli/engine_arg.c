/* A model opened by the options of a verb (engine_arg.h). */
#include "cli/engine_arg.h"

int skf_engine_arg_fail(const struct skf_engine_arg *a, enum skf_err e, struct skf_why *why)
{
    return skf_cli_fail(skf_fail_prefix(why, e, "%s", a->model), why);
}

/* The files, and the engine over them. */
static bool is_all_open(struct skf_engine_arg *a, struct skf_engine_opts *o, int *status)
{
    struct skf_why why = {{0}};
    enum skf_err e = skf_cli_model_open(a->model, &a->m, &why); /* names the file itself */
    if (e != SKF_OK) {
        *status = skf_cli_fail(e, &why);
        return false;
    }
    if (a->draft)
        e = skf_cli_model_open(a->draft, &a->draft_model, &why);
    if (e != SKF_OK) {
        *status = skf_cli_fail(e, &why);
        return false;
    }
    o->draft = a->draft_model;
    o->draft_name = a->draft;
    e = skf_engine_open(a->m, o, &a->e, &why);
    if (e != SKF_OK) {
        *status = skf_engine_arg_fail(a, e, &why);
        return false;
    }
    if (a->adapter)
        e = skf_engine_adapter_add(a->e, SKF_ENGINE_ADAPTER, a->adapter, &why); /* names the file itself */
    if (a->adapter && e == SKF_OK)
        e = skf_engine_evaluate_with(a->e, SKF_ENGINE_ADAPTER, &why);
    if (e != SKF_OK)
        *status = skf_cli_fail(e, &why);
    return e == SKF_OK;
}

bool is_engine_open(const char *verb, struct skf_engine_arg *a, unsigned slots, int *status)
{
    struct skf_engine_opts o = {.threads = (unsigned)a->threads, .context = (unsigned)a->context, .slots = slots,
                                .is_cache_q8 = a->cache_type && strcmp(a->cache_type, "q8_0") == 0,
                                .speculate = a->speculate ? (int)SKF_MIN(a->speculate, 16u) : -1};
    if (!a->model) {
        *status = skf_cli_usage(verb, "-m MODEL is missing");
        return false;
    }
    if (a->threads > SKF_ENGINE_THREADS || a->context > 1u << 24) {
        *status = skf_cli_usage(verb, a->threads > SKF_ENGINE_THREADS ? "--threads: at most 256" : "--context: at most 16777216");
        return false;
    }
    if (a->cache_type && !o.is_cache_q8 && strcmp(a->cache_type, "f16") != 0) {
        *status = skf_cli_usage(verb, "--cache-type takes f16 or q8_0");
        return false;
    }
    if (a->device && strcmp(a->device, "cpu") != 0) {
        bool is_cuda = strcmp(a->device, "cuda") == 0;
        if (is_cuda)
            *status = skf_cli_fail(SKF_ERR_UNSUPPORTED, &(struct skf_why){"--device cuda: this build computes on the CPU only; "
                                                                          "leave the option out"});
        else
            *status = skf_cli_usage(verb, "--device takes cpu or cuda");
        return false;
    }
    return is_all_open(a, &o, status);
}

void skf_engine_arg_close(struct skf_engine_arg *a)
{
    skf_engine_close(a->e);
    skf_model_close(a->m);
    skf_model_close(a->draft_model);
    a->e = NULL;
    a->m = a->draft_model = NULL;
}
