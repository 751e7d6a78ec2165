/* skiff show: what a file is, without running or trusting it. */
#include "base/file.h"
#include "cli/cli.h"
#include "cli/show.h"
#include "model/folder.h"

enum { WIDE = 96, PLAN_TOKENS = 65536 };

/* A string on one line and not for ever: control characters must not reach the terminal. */
static void print_tame(const char *s)
{
    int n = 0;
    for (; *s && n < WIDE; s++, n++)
        (void)putchar((unsigned char)*s < 0x20 || *s == 0x7F ? (*s == '\n' ? ' ' : '?') : *s);
    while ((*s & 0xC0) == 0x80) /* the rest of a letter */
        (void)putchar(*s++);
    if (*s)
        (void)fputs("...", stdout);
}

static void print_value(const skf_json *v)
{
    if (is_json_str(v))
        print_tame(skf_json_cstr(v));
    else if (is_json_int(v))
        (void)printf("%lld", (long long)skf_json_i64(v, 0));
    else if (is_json_num(v))
        (void)printf("%g", skf_json_f64(v, 0));
    else if (is_json_bool(v))
        (void)fputs(skf_json_is_true(v, false) ? "true" : "false", stdout);
    else if (is_json_obj(v))
        (void)printf("%lld x %s", (long long)skf_json_i64(skf_json_get(v, "count"), 0),
                     skf_json_cstr(skf_json_get(v, "array")));
}

static void print_fields(const skf_json *o, int indent, int width)
{
    for (void *it = skf_json_iter(o); it; it = skf_json_next(o, it)) {
        const skf_json *v = skf_json_iter_value(it);
        if (is_json_arr(v) || (is_json_obj(v) && !skf_json_get(v, "count")))
            continue;
        (void)printf("%*s%-*s ", indent, "", width, skf_json_iter_key(it));
        print_value(v);
        (void)putchar('\n');
    }
}

static void print_tensors(const skf_json *list)
{
    for (size_t i = 0; i < skf_json_len(list); i++) {
        const skf_json *t = skf_json_at(list, i), *shape = skf_json_get(t, "shape");
        char dims[160] = "", size[16];
        size_t n = 0;
        for (size_t k = 0; k < skf_json_len(shape) && n < sizeof dims - 24; k++)
            n += (size_t)snprintf(dims + n, sizeof dims - n, "%s%lld", k ? " x " : "",
                                  (long long)skf_json_i64(skf_json_at(shape, k), 0));
        (void)printf("  %-36s %-8s %-22s %9s at %lld\n", skf_json_cstr(skf_json_get(t, "name")),
                     skf_json_cstr(skf_json_get(t, "type")), dims,
                     skf_human_bytes((uint64_t)skf_json_i64(skf_json_get(t, "bytes"), 0), size),
                     (long long)skf_json_i64(skf_json_get(t, "offset"), 0));
    }
}

static void print_codings(const skf_json *o)
{
    (void)printf("  %-8s %8s %14s %14s\n", "coding", "chunks", "payload bytes", "result bytes");
    for (void *it = skf_json_iter(o); it; it = skf_json_next(o, it)) {
        const skf_json *c = skf_json_iter_value(it);
        (void)printf("  %-8s %8lld %14lld %14lld\n", skf_json_iter_key(it),
                     (long long)skf_json_i64(skf_json_get(c, "chunks"), 0),
                     (long long)skf_json_i64(skf_json_get(c, "payload_bytes"), 0),
                     (long long)skf_json_i64(skf_json_get(c, "result_bytes"), 0));
    }
}

static void print_text(const skf_json *o)
{
    const skf_json *metadata = skf_json_get(o, "metadata"), *tensors = skf_json_get(o, "tensors");
    print_fields(o, 0, 16);
    if (skf_json_get(o, "needs")) {
        (void)puts("needs");
        print_fields(skf_json_get(o, "needs"), 2, 14);
    }
    if (metadata) {
        (void)printf("metadata         %zu\n", skf_json_len(metadata));
        print_fields(metadata, 2, 42);
    }
    for (size_t i = 0; i < skf_json_len(skf_json_get(o, "files")); i++) {
        const skf_json *f = skf_json_at(skf_json_get(o, "files"), i);
        (void)printf("holds            %s, %lld bytes\n", skf_json_cstr(skf_json_get(f, "name")),
                     (long long)skf_json_i64(skf_json_get(f, "bytes"), 0));
    }
    if (tensors) {
        (void)printf("tensors          %zu\n", skf_json_len(tensors));
        print_tensors(tensors);
    }
    if (skf_json_get(o, "coding"))
        print_codings(skf_json_get(o, "coding"));
}

static bool is_named(const char *path, const char *ending)
{
    size_t n = strlen(path), e = strlen(ending);
    return n > e && strcmp(path + n - e, ending) == 0;
}

static enum skf_err show(const char *path, bool with_root, skf_json **o, struct skf_why *why)
{
    struct skf_map map = {0};
    struct skf_progress progress = skf_cli_progress("hashing");
    SKF_TRY(skf_cli_whole(path, why));
    if (is_folder(path)) {
        SKF_TRY(skf_show_model(path, with_root, &progress, o, why));
        skf_cli_progress_end();
        return SKF_OK;
    }
    SKF_TRY(skf_map_open(path, &map, why));
    enum skf_err e;
    if (map.size >= 4 && memcmp(map.data, "SKD\x1a", 4) == 0)
        e = skf_show_skd(path, &map, o, why);
    else if (is_named(path, ".manifest"))
        e = skf_show_manifest(path, &map, o, why);
    else
        e = skf_show_model(path, with_root, &progress, o, why);
    skf_map_close(&map);
    skf_cli_progress_end();
    return e;
}

int skf_verb_show(int argc, char **argv)
{
    bool is_json = false, with_root = false, is_plan = false;
    uint64_t tokens = 1;
    const char *file = NULL;
    const struct skf_opt opts[] = {
        {.name = "--root", .help = "hash the file and show the root of its chunks", .flag = &with_root},
        {.name = "--plan", .help = "the operators of a model's forward pass and where their buffers lie", .flag = &is_plan},
        {.name = "--tokens", .value = "N", .help = "of the plan: tokens computed at once (1)", .number = &tokens},
        {.name = "--json", .help = "one JSON object", .flag = &is_json},
    };
    const struct skf_usage u = {.verb = "show",
                                .args = "FILE [--root] [--plan] [--json]",
                                .about = "Says what a GGUF, a safetensors file, a .skd, a .manifest or any file is.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts),
                                .positional = &file,
                                .min_args = 1,
                                .max_args = 1};
    int status;
    struct skf_why why = {{0}};
    skf_json *o = NULL;
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    if (tokens < 1 || tokens > PLAN_TOKENS)
        return skf_cli_usage("show", "--tokens is 1 to 65536");
    enum skf_err e = is_plan ? skf_show_plan(file, (uint32_t)tokens, &o, &why) : show(file, with_root, &o, &why);
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    if (is_json)
        return skf_cli_print_json(o);
    if (is_plan)
        skf_show_plan_text(o);
    else
        print_text(o);
    skf_json_free(o);
    return skf_cli_flush(SKF_EXIT_OK);
}
