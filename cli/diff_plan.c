/* skiff diff --plan: each way to the new version, and why the delta is what it is (diff.h). */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/diff.h"

static const char *const names[SKF_WAYS] = {"the full file", "zstd of it", "zstd with the old one", "skiff"};
static const char *const keys[SKF_WAYS] = {"full", "zstd", "zstd_patch", "skiff"};

static void print_way(const char *name, const struct skf_delta_way *w, uint64_t full, bool is_chosen)
{
    char bytes[16], memory[16];
    (void)printf("%c %-24s %s%-10s %7.1fx %9.2f s %9.2f s %10s\n", is_chosen ? '>' : ' ', name, w->is_estimate ? "~" : " ",
                 skf_human_bytes(w->bytes, bytes), w->bytes ? (double)full / (double)w->bytes : 0, w->encode_seconds,
                 w->apply_seconds, skf_human_bytes(w->memory, memory));
}

/* One sentence. */
static void reason(const struct skf_diff_plan *p, char *out, size_t cap)
{
    const struct skf_delta_way *w = p->ways;
    int next = SKF_WAY_FULL;
    for (int k = SKF_WAY_FULL; k < SKF_WAY_SKIFF; k++)
        if (w[k].bytes < w[next].bytes)
            next = k;
    if (!p->has_changes)
        (void)snprintf(out, cap, "nothing is to be sent: the versions are the same");
    else if (p->has_adapter && !p->adapter_chunks)
        (void)snprintf(out, cap, "fewest bytes: %.1f%% of %s; no tensor is cheaper as the adapter's factors",
                       100.0 * (double)w[SKF_WAY_SKIFF].bytes / (double)w[next].bytes, names[next]);
    else if (p->has_adapter)
        (void)snprintf(out, cap, "fewest bytes: %.1f%% of %s; %llu chunks are the adapter's factors, which saves %lld bytes",
                       100.0 * (double)w[SKF_WAY_SKIFF].bytes / (double)w[next].bytes, names[next],
                       (unsigned long long)p->adapter_chunks, (long long)(p->without.bytes - w[SKF_WAY_SKIFF].bytes));
    else
        (void)snprintf(out, cap, "fewest bytes: %.1f%% of %s, the next; each chunk is coded the way that is least for it",
                       100.0 * (double)w[SKF_WAY_SKIFF].bytes / (double)w[next].bytes, names[next]);
}

void skf_plan_print(const struct skf_diff_plan *p, const struct skf_delta_stats *s)
{
    char why[200];
    uint64_t payload = 0, full = p->ways[SKF_WAY_FULL].bytes;
    (void)printf("  %-24s  %-10s %8s %11s %11s %10s\n", "way", "bytes", "less", "encode", "apply", "memory");
    for (int k = 0; k < SKF_WAYS; k++) {
        if (p->has_changes || k == SKF_WAY_FULL || k == SKF_WAY_SKIFF) /* of the same version nothing is tried */
            print_way(names[k], &p->ways[k], full, k == SKF_WAY_SKIFF);
        if (k == SKF_WAY_PATCH && p->has_adapter)
            print_way("skiff, no adapter", &p->without, full, false);
    }
    reason(p, why, sizeof why);
    (void)printf("why: %s\n(seconds of one core here, the result's digest included; memory to apply, beyond maps; ~ estimated on a few chunks)\n\n",
                 why);
    for (int k = 0; k < SKF_CODE_COUNT; k++) {
        payload += s->coding_bytes[k];
        (void)printf("%-8s %8llu chunks %14llu bytes\n", skf_coding_name((enum skf_coding)k),
                     (unsigned long long)s->coding_chunks[k], (unsigned long long)s->coding_bytes[k]);
    }
    (void)printf("%-8s %8s        %14llu bytes\n", "sides", "", (unsigned long long)s->side_bytes);
    (void)printf("%-8s %8s        %14llu bytes\n", "index", "", (unsigned long long)(s->bytes - payload - s->side_bytes));
}

static enum skf_err put_way(skf_json *list, const char *key, const struct skf_delta_way *w)
{
    skf_json *one = skf_json_obj();
    SKF_TRY(skf_json_push(list, one));
    SKF_TRY(skf_json_set(one, "way", skf_json_str(key)));
    SKF_TRY(skf_json_set(one, "bytes", skf_json_int((int64_t)w->bytes)));
    SKF_TRY(skf_json_set(one, "is_estimate", skf_json_bool(w->is_estimate)));
    SKF_TRY(skf_json_set(one, "encode_seconds", skf_json_real(w->encode_seconds)));
    SKF_TRY(skf_json_set(one, "apply_seconds", skf_json_real(w->apply_seconds)));
    return skf_json_set(one, "memory_bytes", skf_json_int((int64_t)w->memory));
}

enum skf_err skf_plan_json(const struct skf_diff_plan *p, skf_json *to)
{
    char why[200];
    skf_json *list = skf_json_arr();
    SKF_TRY(skf_json_set(to, "ways", list));
    for (int k = 0; k < SKF_WAYS; k++)
        if (p->has_changes || k == SKF_WAY_FULL || k == SKF_WAY_SKIFF)
            SKF_TRY(put_way(list, keys[k], &p->ways[k]));
    if (p->has_adapter)
        SKF_TRY(put_way(list, "skiff_without_adapter", &p->without));
    reason(p, why, sizeof why);
    SKF_TRY(skf_json_set(to, "chosen", skf_json_str(keys[SKF_WAY_SKIFF])));
    return skf_json_set(to, "why", skf_json_str(why));
}
