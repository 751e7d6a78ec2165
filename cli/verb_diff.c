/* skiff diff: the exact delta between two models, and what it is made of. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "cli/cli.h"
#include "delta/delta.h"
#include "model/adapter.h"

/* Two names of one file: writing the output would destroy the input. */
static bool is_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* ---- --explain: a row a tensor -------------------------------------------------------------------------------------------------- */
struct row {
    const char *name, *type;
    uint64_t end, bytes, payload, chunks[SKF_CODE_COUNT];
};
struct table {
    struct row *rows; /* in order of the result; what lies between tensors has rows of its own */
    size_t n, at;
};

static void add_row(struct table *t, const char *name, const char *type, uint64_t end)
{
    t->rows[t->n++] = (struct row){.name = name, .type = type, .end = end};
}

static enum skf_err make_table(const struct skf_model *m, struct table *t)
{
    size_t n;
    const struct skf_tensor *tensors = skf_model_tensors(m, &n);
    uint64_t size = skf_model_source(m)->size, end = 0;
    t->rows = skf_calloc(2 * n + 1, sizeof *t->rows);
    if (!t->rows)
        return SKF_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct skf_type_info *info = skf_type_info((uint32_t)tensors[i].type);
        if (tensors[i].offset > end)
            add_row(t, end ? "(between tensors)" : "(head)", "", tensors[i].offset);
        end = tensors[i].offset + tensors[i].bytes;
        add_row(t, tensors[i].name, info ? info->name : "?", end);
    }
    if (size > end)
        add_row(t, n ? "(behind the tensors)" : "(all)", "", size);
    return SKF_OK;
}

static void take_chunk(void *ctx, const struct skf_skd_chunk *c)
{
    struct table *t = ctx;
    while (t->at + 1 < t->n && t->rows[t->at].end <= c->result_offset)
        t->at++;
    if (t->n == 0)
        return;
    struct row *r = &t->rows[t->at];
    r->bytes += c->result_length;
    r->payload += c->payload_length;
    r->chunks[c->coding]++;
}

static void codings_text(const struct row *r, char *out, size_t cap)
{
    size_t at = 0;
    out[0] = 0;
    for (int k = 0; k < SKF_CODE_COUNT; k++) {
        if (!r->chunks[k] || at >= cap)
            continue;
        int w = snprintf(out + at, cap - at, "%s%s %llu", at ? ", " : "", skf_coding_name((enum skf_coding)k),
                         (unsigned long long)r->chunks[k]);
        at += w > 0 ? (size_t)w : 0;
    }
}

/* Names come from a file: control characters must not reach the terminal. */
static void print_name(const char *name)
{
    size_t n = 0;
    for (; *name && n < 44; name++, n++)
        (void)putchar((unsigned char)*name < 32 || *name == 127 ? '?' : *name);
    (void)printf("%*s", (int)(44 - n), "");
}

static void print_table(const struct table *t)
{
    (void)printf("%-44s %-8s %12s %12s %8s  %s\n", "tensor", "type", "bytes", "sent", "bits/B", "chunks");
    for (size_t i = 0; i < t->n; i++) {
        const struct row *r = &t->rows[i];
        char codings[128];
        codings_text(r, codings, sizeof codings);
        if (!r->bytes)
            continue;
        print_name(r->name);
        (void)printf(" %-8s %12llu %12llu %8.3f  %s\n", r->type, (unsigned long long)r->bytes,
                     (unsigned long long)r->payload, 8.0 * (double)r->payload / (double)r->bytes, codings);
    }
}

/* ---- results ---------------------------------------------------------------------------------------------------------------------- */
static void print_plan(const struct skf_delta_stats *s)
{
    uint64_t payload = 0;
    for (int k = 0; k < SKF_CODE_COUNT; k++) {
        payload += s->coding_bytes[k];
        (void)printf("%-6s %8llu chunks %14llu bytes\n", skf_coding_name((enum skf_coding)k),
                     (unsigned long long)s->coding_chunks[k], (unsigned long long)s->coding_bytes[k]);
    }
    (void)printf("%-6s %8s        %14llu bytes\n", "index", "", (unsigned long long)(s->bytes - payload));
}

static int print_json(const struct skf_delta_stats *s)
{
    char source[SKF_HEX], result[SKF_HEX];
    skf_hex(s->source_root, SKF_DIGEST, source);
    skf_hex(s->result_root, SKF_DIGEST, result);
    skf_json *j = skf_json_obj(), *coding = skf_json_obj();
    enum skf_err e = SKF_OK;
    for (int k = 0; k < SKF_CODE_COUNT && e == SKF_OK; k++)
        e = skf_json_set(coding, skf_coding_name((enum skf_coding)k), skf_json_int((int64_t)s->coding_bytes[k]));
    enum skf_err f[] = {e,
                        skf_json_set(j, "bytes", skf_json_int((int64_t)s->bytes)),
                        skf_json_set(j, "source_root", skf_json_str(source)),
                        skf_json_set(j, "result_root", skf_json_str(result)),
                        skf_json_set(j, "seconds", skf_json_real(s->seconds)),
                        skf_json_set(j, "chunks", skf_json_int((int64_t)s->chunks)),
                        skf_json_set(j, "coding", coding)};
    for (size_t i = 0; i < SKF_COUNT(f); i++) {
        if (f[i] != SKF_OK) {
            skf_json_free(j);
            return skf_cli_fail(f[i], NULL);
        }
    }
    return skf_cli_print_json(j);
}

struct want {
    const char *out, *adapter;
    uint64_t jobs, level;
    bool is_plan, is_explained, is_json;
};

static int diff(const char *old_path, const char *new_path, const struct want *w)
{
    struct skf_model *old = NULL, *neu = NULL;
    struct skf_adapter *adapter = NULL;
    struct table table = {0};
    struct skf_delta_stats stats;
    struct skf_why why = {{0}};
    struct skf_delta_opts opts = {.jobs = (unsigned)w->jobs, .level = (int)w->level, .progress = skf_cli_progress("diff")};
    int status = SKF_EXIT_OK;
    enum skf_err e;
    SKF_GO(e, skf_model_open(old_path, &old, &why));
    SKF_GO(e, skf_model_open(new_path, &neu, &why));
    if (w->adapter) {
        SKF_GO(e, skf_adapter_open(w->adapter, old, old_path, &adapter, &why));
        opts.adapter = adapter;
    }
    if (w->is_explained) {
        SKF_GO(e, make_table(neu, &table));
        opts.chunk = take_chunk;
        opts.chunk_ctx = &table;
    }
    SKF_GO(e, skf_delta_build(old, neu, w->is_plan ? NULL : w->out, &opts, &stats, &why));
    skf_cli_progress_end();
    if (w->is_json) {
        status = print_json(&stats);
        goto out;
    }
    uint64_t full = skf_model_source(neu)->size;
    char a[16], b[16];
    if (w->is_explained)
        print_table(&table);
    if (w->is_plan)
        print_plan(&stats);
    (void)printf("%s%s%s for %s: %.1fx less, %.1f s\n", w->is_plan ? "" : w->out, w->is_plan ? "" : ": ",
                 skf_human_bytes(stats.bytes, a), skf_human_bytes(full, b), (double)full / (double)stats.bytes,
                 stats.seconds);
out:
    skf_free(table.rows);
    skf_adapter_close(adapter);
    skf_model_close(old);
    skf_model_close(neu);
    return e == SKF_OK ? status : skf_cli_fail(e, &why);
}

int skf_verb_diff(int argc, char **argv)
{
    struct want w = {0};
    const char *files[2];
    const struct skf_opt opts[] = {
        {.name = "--output", .letter = 'o', .value = "FILE.skd", .help = "where the delta goes", .text = &w.out},
        {.name = "--adapter", .value = "LORA.gguf", .help = "NEW is OLD with this adapter merged, where it is", .text = &w.adapter},
        {.name = "--jobs", .letter = 'j', .value = "N", .help = "threads (one a processor)", .number = &w.jobs},
        {.name = "--level", .value = "N", .help = "zstd level of bytes that are no tensors, 1 to 19 (9)", .number = &w.level},
        {.name = "--plan", .help = "only tell what it would come to; nothing is written", .flag = &w.is_plan},
        {.name = "--explain", .help = "a table of what each tensor costs", .flag = &w.is_explained},
        {.name = "--json", .help = "one JSON object on standard output", .flag = &w.is_json},
    };
    const struct skf_usage u = {.verb = "diff",
                                .args = "OLD NEW -o FILE.skd",
                                .about = "Writes the exact delta that makes NEW of OLD.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts),
                                .positional = files,
                                .min_args = 2,
                                .max_args = 2};
    int status;
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    const char *wrong = NULL;
    if (!w.out && !w.is_plan)
        wrong = "-o FILE.skd is missing";
    else if (w.level > 19 || w.jobs > 1024)
        wrong = w.level > 19 ? "--level: 1 to 19" : "--jobs: at most 1024";
    else if (w.out && (is_same_file(w.out, files[0]) || is_same_file(w.out, files[1])))
        wrong = "the delta would overwrite one of the models";
    if (wrong) {
        (void)fprintf(stderr, "skiff: diff: %s\n", wrong);
        return SKF_EXIT_USAGE;
    }
    return diff(files[0], files[1], &w);
}
