/* skiff-worker: one version of a model behind a Unix socket. Started by the agent, or by `skiff serve`. */
#include <errno.h>

#include "base/util.h"
#include "runtime/worker.h"

static const char help[] =
    "usage: skiff-worker --socket PATH (--file MODEL.gguf | --store DIR --model NAME --version V) [options]\n"
    "       skiff-worker --lay-out --store DIR --model NAME --version V [--repack HOW] [--threads N]\n"
    "\n"
    "Loads one version of a model and serves it on the Unix socket PATH to a gateway.\n"
    "\n"
    "  --socket PATH    appears when the model is loaded\n"
    "  --file FILE      the model, as a GGUF file; --model and --version may give it a name\n"
    "  --store DIR      the weight store that holds --model NAME --version V\n"
    "  --name NAME      what it calls itself (the model's name)\n"
    "  --threads N      threads to compute on (one a processor)\n"
    "  --context N      tokens a conversation may have (the model's own, at most 4,096)\n"
    "  --slots N        generations at once (4)\n"
    "  --cache-spill M  MiB of a file without a name where they go that memory does not keep, and come back from (none)\n"
    "  --cache-folder D the folder of that file (/var/tmp)\n"
    "  --warm TEXT      a system prompt (@FILE: the text of a file) that is computed before anybody asks, and stays; up to 16 of them\n"
    "  --cache-file F   what is warm is read from this file, and written there for the next start, if it is of another model or not there\n"
    "  --cache-type T   keys and values as f16, or as q8_0: half the memory, nearly the same answers (f16)\n"
    "  --cache MIB      keys and values kept for prompts that begin alike (64)\n"
    "  --kv-memory MIB  keys and values may take so much, kept ones included; requests wait until they fit (what all slots and --cache can take)\n"
    "  --queue N        requests that may wait, and\n"
    "  --queue-tokens N the tokens of their prompts; more are refused as busy (256 and 262,144)\n"
    "  --gap PERCENT    how long a step may take that computes prompts beside sequences that decode, of one that only decodes (175)\n"
    "  --portion N      tokens of prompts in one step at most (64)\n"
    "  --gather MS,MS   how long to wait for more requests before a batch begins: short prompts or much to do, long ones and little (5,20; 0,0: never)\n"
    "  --speculate N    most tokens guessed ahead in one step, at most 16 (8; 0: none); answers are the same to the bit\n"
    "  --draft FILE     a small GGUF model of the same tokens, that guesses ahead where nothing can be looked up\n"
    "  --adapter N=FILE a LoRA adapter in GGUF under the name N, for requests that ask for MODEL:N; may be repeated\n"
    "  --repack HOW     whether quantized matrices are laid out for the kernels at the start: auto (if memory is ample), on, off,\n"
    "                   shared (only where the store keeps them so: read there, workers share the pages)\n"
    "  --lay-out        serve nobody: lay the matrices out once and keep them in the store, for workers to come, and end\n"
    "  --parent-death   end when the process that started this one ends\n"
    "  --help; --version alone prints the program's\n";

static int usage(const char *what)
{
    fprintf(stderr, "skiff-worker: %s (--help says more)\n", what);
    return 2;
}

static bool is_number(const char *s, unsigned *out)
{
    char *end;
    errno = 0;
    unsigned long v = strtoul(s, &end, 10);
    if (errno || *end || end == s || *s == '-' || v < 1 || v > 1u << 20)
        return false;
    *out = (unsigned)v;
    return true;
}

static bool is_repack(const char *s, enum skf_repack *out)
{
    static const char *const names[] = {[SKF_REPACK_AUTO] = "auto", [SKF_REPACK_ON] = "on", [SKF_REPACK_OFF] = "off", [SKF_REPACK_SHARED] = "shared"};
    for (size_t i = 0; i < SKF_COUNT(names); i++)
        if (strcmp(s, names[i]) == 0) {
            *out = (enum skf_repack)i;
            return true;
        }
    return false;
}

static bool is_gather(const char *s, struct skf_engine_opts *o)
{
    unsigned busy, idle;
    int n = 0;
    if (sscanf(s, "%4u,%4u%n", &busy, &idle, &n) != 2 || s[n] || busy > 1000 || idle > 1000)
        return false;
    o->gather_busy_ms = busy ? (int)busy : -1;
    o->gather_idle_ms = idle ? (int)idle : -1;
    return true;
}

/* 0 when the options go together, otherwise the exit status. */
static int check(struct skf_worker_opts *o, const char *type)
{
    if (!o->engine.spill_dir)
        o->engine.spill_dir = "/var/tmp";
    o->engine.is_cache_q8 = strcmp(type, "q8_0") == 0;
    if (!o->engine.is_cache_q8 && strcmp(type, "f16") != 0)
        return usage("--cache-type is f16 or q8_0");
    if (o->is_laying_out && (o->socket || o->file || !o->store))
        return usage("--lay-out takes --store, --model and --version");
    if (!o->is_laying_out && (!o->socket || !o->file == !o->store))
        return usage("--socket and one of --file and --store are needed");
    if (o->cache_file && !o->n_warm)
        return usage("--cache-file keeps what --warm names");
    if (o->store && (!o->model || !o->version))
        return usage("--store needs --model and --version");
    return 0;
}

static bool is_speculate(const char *s, struct skf_engine_opts *o)
{
    unsigned ahead = 0;
    if (strcmp(s, "0") != 0 && (!is_number(s, &ahead) || ahead > 16))
        return false;
    o->speculate = ahead ? (int)ahead : -1;
    return true;
}

/* One more adapter; false for another option, or when there are too many or it has no value: then it is an unknown one. */
static bool is_adapter(const char *option, const char *value, struct skf_worker_opts *o)
{
    if (strcmp(option, "--adapter") != 0 || !value || o->n_adapters == SKF_COUNT(o->adapters))
        return false;
    o->adapters[o->n_adapters++] = value;
    return true;
}

/* 0 when the options are good, otherwise the exit status. */
static int parse(int argc, char **argv, struct skf_worker_opts *o)
{
    const char *repack = "auto", *gather = "5,20", *type = "f16", *warm = NULL;
    unsigned cache = 0, memory = 0, spill = 0;
    const char *speculate = "8";
    const struct {
        const char *name;
        const char **text;
        unsigned *number;
    } opts[] = {{"--socket", &o->socket, NULL},   {"--file", &o->file, NULL},
                {"--store", &o->store, NULL},     {"--model", &o->model, NULL},
                {"--version", &o->version, NULL}, {"--name", &o->name, NULL}, {"--draft", &o->draft, NULL},
                {"--threads", NULL, &o->engine.threads}, {"--context", NULL, &o->engine.context},
                {"--slots", NULL, &o->engine.slots}, {"--repack", &repack, NULL},
                {"--cache", NULL, &cache}, {"--cache-type", &type, NULL},
                {"--cache-spill", NULL, &spill}, {"--cache-folder", &o->engine.spill_dir, NULL}, {"--cache-file", &o->cache_file, NULL},
                {"--warm", &warm, NULL}, {"--kv-memory", NULL, &memory},
                {"--queue", NULL, &o->engine.waiting}, {"--queue-tokens", NULL, &o->engine.waiting_tokens},
                {"--gap", NULL, &o->engine.gap}, {"--portion", NULL, &o->engine.portion}, {"--gather", &gather, NULL}, {"--speculate", &speculate, NULL}};
    for (int i = 1; i < argc; i++) {
        size_t k = 0;
        if (strcmp(argv[i], "--parent-death") == 0) {
            o->parent_death = true;
            continue;
        }
        if (strcmp(argv[i], "--lay-out") == 0) {
            o->is_laying_out = true;
            continue;
        }
        if (is_adapter(argv[i], argv[i + 1], o)) {
            i++;
            continue;
        }
        while (k < SKF_COUNT(opts) && strcmp(argv[i], opts[k].name) != 0)
            k++;
        if (k == SKF_COUNT(opts))
            return usage("unknown option");
        if (++i == argc)
            return usage("an option lacks its value");
        if (opts[k].text == &warm && o->n_warm == SKF_WARM_MOST)
            return usage("--warm is given 16 times at most");
        if (opts[k].text == &warm)
            o->warm[o->n_warm++] = argv[i];
        else if (opts[k].text)
            *opts[k].text = argv[i];
        else if (!is_number(argv[i], opts[k].number))
            return usage("a number is expected");
    }
    o->engine.cache = (uint64_t)cache << 20;
    o->engine.memory = (uint64_t)memory << 20;
    o->engine.spill = (uint64_t)spill << 20;
    if (!is_gather(gather, &o->engine))
        return usage("--gather is two numbers of ms from 0 to 1000, as 5,20");
    if (!is_speculate(speculate, &o->engine))
        return usage("--speculate is 0 to 16");
    if (!is_repack(repack, &o->engine.repack))
        return usage("--repack is auto, on, off or shared");
    return check(o, type);
}

int main(int argc, char **argv)
{
    struct skf_worker_opts o = {0};
    struct skf_why why = {{0}};
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "--version") == 0))
        return fputs(argv[1][2] == 'h' ? help : "skiff-worker " SKF_VERSION "\n", stdout) < 0;
    int status = parse(argc, argv, &o);
    if (status)
        return status;
    skf_log_open("skiff-worker", SKF_LOG_INFO);
    enum skf_err e = skf_worker_run(&o, &why);
    if (e == SKF_OK)
        return 0;
    fprintf(stderr, "skiff-worker: %s\n", why.text[0] ? why.text : skf_err_name(e));
    return 1;
}
