/* Workers' keys and values in the metrics: what each said last, with its hello and with every answer's end. */
#include <inttypes.h>

#include "base/util.h"
#include "gateway/gateway_priv.h"

void skf_gw_cache_seen_(struct gw_link *l, const Skiff__V1__CacheState *c)
{
    if (c)
        l->cache = (struct gw_cache){.memory = c->memory_bytes - SKF_MIN(c->memory_bytes, c->pinned_bytes), .pinned = c->pinned_bytes,
                                     .file = c->file_bytes, .prompt_tokens = c->prompt_tokens, .memory_tokens = c->memory_tokens,
                                     .file_tokens = c->file_tokens, .evicted = c->evicted_pages, .spilled = c->spilled_pages,
                                     .read = c->read_pages};
}

/* One line a worker; `tier` NULL for a metric without tiers. */
static enum skf_err put_tier(struct skf_buf *b, const struct skf_gw *g, const char *name, const char *tier, size_t at)
{
    for (const struct gw_link *l = g->links; l; l = l->next) {
        uint64_t v;
        memcpy(&v, (const char *)&l->cache + at, sizeof v);
        SKF_TRY(skf_buf_printf(b, "skiff_kv_cache_%s{", name));
        SKF_TRY(skf_gw_put_worker(b, l));
        if (tier)
            SKF_TRY(skf_buf_printf(b, ",tier=\"%s\"", tier));
        SKF_TRY(skf_buf_printf(b, "} %" PRIu64 "\n", v));
    }
    return SKF_OK;
}

enum skf_err skf_gw_put_cache_(struct skf_buf *b, const struct skf_gw *g)
{
    static const struct {
        const char *name, *type, *help, *tier; /* help: of the metric's first line */
        size_t at;
    } all[] = {
        {"bytes", "gauge", "Keys and values that a worker holds.", "memory", offsetof(struct gw_cache, memory)},
        {"bytes", NULL, NULL, "pinned", offsetof(struct gw_cache, pinned)},
        {"bytes", NULL, NULL, "file", offsetof(struct gw_cache, file)},
        {"prompt_tokens_total", "counter", "Tokens of prompts, warmed ones too.", NULL, offsetof(struct gw_cache, prompt_tokens)},
        {"hit_tokens_total", "counter", "Of these, tokens whose keys and values were there.", "memory", offsetof(struct gw_cache, memory_tokens)},
        {"hit_tokens_total", NULL, NULL, "file", offsetof(struct gw_cache, file_tokens)},
        {"evicted_pages_total", "counter", "Pages that are gone.", NULL, offsetof(struct gw_cache, evicted)},
        {"spilled_pages_total", "counter", "Pages put aside in the file.", NULL, offsetof(struct gw_cache, spilled)},
        {"read_pages_total", "counter", "Pages brought back from the file.", NULL, offsetof(struct gw_cache, read)},
    };
    for (size_t i = 0; i < SKF_COUNT(all); i++) {
        if (all[i].help)
            SKF_TRY(skf_buf_printf(b, "# HELP skiff_kv_cache_%s %s\n# TYPE skiff_kv_cache_%s %s\n", all[i].name, all[i].help, all[i].name,
                                   all[i].type));
        SKF_TRY(put_tier(b, g, all[i].name, all[i].tier, all[i].at));
    }
    return SKF_OK;
}
