/* skiff quantize without a base: every matrix by itself, as the options say (quantize.h). */
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "cli/cli.h"
#include "cli/quantize.h"
#include "model/quant.h"

#define ACT_SCALE "skiff.act_scale."

struct plain {
    const struct quantize_args *a;
    struct skf_model *m;
    struct skf_imatrix *imatrix; /* read from a file */
    struct quantize_seen seen;
    struct skf_quantize_opts opts;
    struct skf_quantize_plan plan;
    struct skf_quantize_stats stats;
    uint64_t bytes; /* of the file written */
    struct skf_gguf_kv *extra; /* the activations' scales, and what they point at */
    uint8_t *raw;
    char *keys;
};

/* ---- the activations' scales, as metadata ----------------------------------------------------------------------------------- */
static enum skf_err put_scales(struct plain *p)
{
    const struct quantize_seen *s = &p->seen;
    size_t room = sizeof ACT_SCALE + sizeof s->ranges->name;
    bool is_average = strcmp(p->a->observer, "average") == 0;
    p->extra = skf_calloc(s->n_ranges + 1, sizeof *p->extra);
    p->raw = skf_calloc(s->n_ranges + 8, 4);
    p->keys = skf_calloc(s->n_ranges + 1, room);
    if (!p->extra || !p->raw || !p->keys)
        return SKF_ERR_NOMEM;
    for (size_t i = 0; i < s->n_ranges; i++) {
        float most = is_average ? s->ranges[i].average : s->ranges[i].most, scale = most / 127.0f;
        char *key = p->keys + i * room;
        int n = snprintf(key, room, ACT_SCALE "%s", s->ranges[i].name);
        memcpy(p->raw + 4 * i, &scale, 4);
        p->extra[i] = (struct skf_gguf_kv){{key, (uint64_t)n}, {.type = SKF_GGUF_F32, .count = 1, .raw = p->raw + 4 * i, .raw_len = 4}};
    }
    uint8_t *name = p->raw + 4 * s->n_ranges;
    uint64_t n = strlen(p->a->observer);
    skf_put_le64(name, n);
    memcpy(name + 8, p->a->observer, n);
    p->extra[s->n_ranges] = (struct skf_gguf_kv){{"skiff.act_observer", strlen("skiff.act_observer")},
                                                 {.type = SKF_GGUF_STRING, .count = 1, .raw = name, .raw_len = 8 + n}};
    p->opts.extra = p->extra;
    p->opts.n_extra = s->n_ranges + 1;
    return SKF_OK;
}

/* ---- the report --------------------------------------------------------------------------------------------------------------- */
static const char *type_name(const struct skf_quantize_line *l)
{
    return l->is_row_scaled ? "int8" : skf_type_info((uint32_t)l->type)->name;
}

static enum skf_err put_line(skf_json *list, const struct skf_quantize_line *l)
{
    skf_json *o = skf_json_obj();
    enum skf_err e = skf_json_push(list, o);
    if (e == SKF_OK)
        e = skf_json_set(o, "name", skf_json_str(l->from->name));
    if (e == SKF_OK)
        e = skf_json_set(o, "from", skf_json_str(skf_type_info((uint32_t)l->from->type)->name));
    if (e == SKF_OK)
        e = skf_json_set(o, "to", skf_json_str(type_name(l)));
    if (e == SKF_OK)
        e = skf_json_set(o, "bytes_from", skf_json_int((int64_t)l->from->bytes));
    if (e == SKF_OK)
        e = skf_json_set(o, "bytes", skf_json_int((int64_t)l->bytes));
    if (e == SKF_OK && l->is_fallback)
        e = skf_json_set(o, "fallback", skf_json_bool(true));
    if (e == SKF_OK && l->is_pruned)
        e = skf_json_set(o, "pruned", skf_json_bool(true));
    if (e == SKF_OK && l->importance)
        e = skf_json_set(o, "weighed", skf_json_bool(true));
    return e;
}

static enum skf_err put_report(const struct plain *p, skf_json *report)
{
    const struct skf_quantize_plan *plan = &p->plan;
    if (!p->a->is_plan) {
        SKF_TRY(skf_json_set(report, "file", skf_json_str(p->a->out)));
        SKF_TRY(skf_json_set(report, "bytes", skf_json_int((int64_t)p->bytes)));
        SKF_TRY(skf_json_set(report, "seconds", skf_json_real(p->stats.seconds)));
    }
    SKF_TRY(skf_json_set(report, "type", skf_json_str(p->a->kind->name)));
    SKF_TRY(skf_json_set(report, "tensor_bytes", skf_json_int((int64_t)plan->bytes)));
    SKF_TRY(skf_json_set(report, "tensors_quantized", skf_json_int((int64_t)plan->n_changed)));
    SKF_TRY(skf_json_set(report, "tensors_kept", skf_json_int((int64_t)(plan->n - plan->n_changed))));
    SKF_TRY(skf_json_set(report, "tensors_fallback", skf_json_int((int64_t)plan->n_fallback)));
    SKF_TRY(skf_json_set(report, "tensors_requantized", skf_json_int((int64_t)plan->n_requantized)));
    SKF_TRY(skf_json_set(report, "tensors_weighed", skf_json_int((int64_t)plan->n_weighed)));
    if (p->seen.tokens)
        SKF_TRY(skf_json_set(report, "calibration_tokens", skf_json_int((int64_t)p->seen.tokens)));
    if (p->a->prune && !p->a->is_plan) {
        double share = p->stats.pruned ? (double)p->stats.zeroed / (double)p->stats.pruned : 0;
        SKF_TRY(skf_json_set(report, "sparsity", skf_json_real(share)));
    }
    skf_json *list = skf_json_arr();
    SKF_TRY(skf_json_set(report, "tensors", list));
    for (size_t i = 0; i < plan->n; i++)
        SKF_TRY(put_line(list, &plan->lines[i]));
    return SKF_OK;
}

static void print_plan(const struct skf_quantize_plan *plan)
{
    char size[16];
    (void)printf("%-40s %-8s %-8s %15s\n", "tensor", "from", "to", "bytes");
    for (size_t i = 0; i < plan->n; i++) {
        const struct skf_quantize_line *l = &plan->lines[i];
        (void)printf("%-40s %-8s %-8s %15llu%s%s%s\n", l->from->name, skf_type_info((uint32_t)l->from->type)->name, type_name(l),
                     (unsigned long long)l->bytes, l->is_fallback ? "  rows fit no other" : "", l->is_pruned ? "  pruned" : "",
                     l->importance ? "  weighed" : "");
    }
    (void)printf("%zu tensors, %s\n", plan->n, skf_human_bytes(plan->bytes, size));
}

static void print_done(const struct plain *p)
{
    char size[16];
    (void)printf("%s: %s, %zu tensors quantized, %zu as they were, %.1f s\n", p->a->out, skf_human_bytes(p->bytes, size),
                 p->plan.n_changed, p->plan.n - p->plan.n_changed, p->stats.seconds);
    if (p->a->prune && p->stats.pruned)
        (void)printf("%.2f %% of the weights of pruned tensors are zero\n", 100.0 * (double)p->stats.zeroed / (double)p->stats.pruned);
}

/* What an operator should know before trusting the result; on stderr. */
static void warn(const struct plain *p)
{
    size_t uneven = 0;
    skf_cli_progress_end();
    if (p->plan.n_requantized)
        (void)fprintf(stderr, "skiff: %s: %zu tensors are quantized already; what they lost adds to what they lose now\n", p->a->in,
                      p->plan.n_requantized);
    if (p->plan.n_fallback)
        (void)fprintf(stderr, "skiff: %s: rows of %zu tensors are no whole blocks of their type; --plan shows what they become\n",
                      p->a->in, p->plan.n_fallback);
    if (p->seen.is_cut)
        (void)fprintf(stderr, "skiff: %s: its first %zu tokens were used\n", p->a->calibrate, p->seen.tokens);
    for (size_t i = 0; i < p->plan.n; i++)
        uneven += p->plan.lines[i].is_pruned && !has_exact_zero(p->plan.lines[i].type);
    if (uneven)
        (void)fprintf(stderr, "skiff: %s: pruned weights of %zu tensors are not exactly zero in their type, which has none\n", p->a->in, uneven);
}

/* ---- the work ----------------------------------------------------------------------------------------------------------------- */
static enum skf_err prepare(struct plain *p, struct skf_why *why)
{
    const struct quantize_args *a = p->a;
    SKF_TRY(skf_cli_model_open(a->in, &p->m, why));
    if (a->imatrix)
        SKF_TRY(skf_imatrix_open(a->imatrix, &p->imatrix, why));
    if (a->calibrate)
        SKF_TRY(skf_cli_observe(p->m, a->in, a->calibrate, a->jobs, &a->progress, &p->seen, why));
    if (a->save_imatrix)
        SKF_TRY(skf_imatrix_save(p->seen.imatrix, a->save_imatrix, a->calibrate, p->seen.tokens, why));
    p->opts = (struct skf_quantize_opts){.kind = a->kind, .embedding = a->embedding, .output = a->output, .rules = a->rules,
                                         .n_rules = a->n_rules, .prune = a->prune, .jobs = a->jobs, .progress = &a->progress};
    p->opts.imatrix = p->imatrix ? p->imatrix : a->observer ? NULL : p->seen.imatrix;
    if (a->observer && put_scales(p) != SKF_OK)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", a->in);
    return skf_quantize_plan(p->m, a->in, &p->opts, &p->plan, why);
}

enum skf_err skf_cli_quantize_plain(const struct quantize_args *a, skf_json *report, struct skf_why *why)
{
    struct plain p = {.a = a};
    struct stat st;
    enum skf_err e = prepare(&p, why);
    if (e != SKF_OK)
        goto out;
    if (!a->is_plan) {
        SKF_GO(e, skf_quantize_write(p.m, a->in, &p.plan, &p.opts, a->out, &p.stats, why));
        p.bytes = stat(a->out, &st) == 0 ? (uint64_t)st.st_size : 0;
    }
    warn(&p); /* of a result that is there: what failed says one line, why */
    if (a->is_json)
        e = put_report(&p, report);
    else if (a->is_plan)
        print_plan(&p.plan);
    else
        print_done(&p);
out:
    skf_quantize_plan_free(&p.plan);
    skf_free(p.extra);
    skf_free(p.raw);
    skf_free(p.keys);
    skf_cli_seen_free(&p.seen);
    skf_imatrix_close(p.imatrix);
    skf_model_close(p.m);
    return e;
}
