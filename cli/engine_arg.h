/*
 * What run, bench and perplexity share: the options -m, --adapter, --threads, --context, --cache-type, --device, and a model opened by them.
 */
#ifndef SKF_CLI_ENGINE_ARG_H
#define SKF_CLI_ENGINE_ARG_H

#include "cli/cli.h"
#include "runtime/engine.h"

#define SKF_ENGINE_THREADS 256 /* an engine's most */

struct skf_engine_arg {
    const char *model, *device, *cache_type, *adapter, *draft;
    uint64_t threads, context, speculate; /* speculate: 0 for none; the verb that has no such option leaves it so */
    struct skf_model *m, *draft_model;
    struct skf_engine *e;
};
#define SKF_ENGINE_OPTS(a)                                                                                             \
    {.name = "--model", .letter = 'm', .value = "MODEL", .help = "a GGUF file", .text = &(a).model},                   \
        {.name = "--adapter", .value = "LORA", .help = "a LoRA adapter in GGUF, beside the model", .text = &(a).adapter}, \
        {.name = "--threads", .value = "N", .help = "threads; one a processor if not given", .number = &(a).threads},  \
        {.name = "--cache-type", .value = "T", .help = "keys and values as f16 (if not given) or q8_0", .text = &(a).cache_type}, \
    {                                                                                                                  \
        .name = "--device", .value = "cpu|cuda", .help = "where to compute; cpu if not given", .text = &(a).device     \
    }

#define SKF_ENGINE_ADAPTER "adapter" /* the name of what --adapter loads; what evaluates computes with it */

/* Opens model and engine. On failure the error line was printed and *status is the verb's; close in either case. */
bool is_engine_open(const char *verb, struct skf_engine_arg *a, unsigned slots, int *status);
void skf_engine_arg_close(struct skf_engine_arg *a);
/* Puts the model's name before what `why` says, and prints it. */
int skf_engine_arg_fail(const struct skf_engine_arg *a, enum skf_err e, struct skf_why *why);

#endif
